"""Which subfolders hold good images, whatever they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly.errors import DatasetError
from anomaly.inputs.dataset import read_dataset
from anomaly.inputs.folders import counted, placed_images
from tests.inputs.test_dataset import touch


def labels(root: Path, *good: str, plain: str | None = "good") -> dict[str, str | None]:
    """Returns the label of each image by its path."""
    return {
        found.path.relative_to(root).as_posix(): found.label
        for found in placed_images(root, good, plain=plain)
    }


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("OK", "NG"),
        ("Good", "Bad"),
        ("pass", "fail"),
        ("normal", "abnormal"),
        ("i.O.", "n.i.O."),
        ("gut", "schlecht"),
        ("bon", "mauvais"),
        ("buono", "difettoso"),
        ("良品", "不良品"),
        ("合格", "不合格"),
        ("正常", "异常"),
        ("양품", "불량"),
        ("хороший", "брак"),
        ("0_good", "1_defect"),
        ("OK_images", "NG_images"),
        ("accepted", "rejected"),
        ("ok", "not ok"),
        ("no defect", "defect"),
        ("good_weld", "bad_weld"),
        ("ok_front", "def_front"),
        ("normal", "crack"),
        ("OK", "blue"),
        ("nominal", "anomaly"),
        ("conforming", "non-conforming"),
    ],
)
def test_words_beside_each_other_tell_good_from_bad(tmp_path, good, bad):
    root = touch(tmp_path, f"{good}/0.png", f"{good}/day/1.png", f"{bad}/2.png")
    assert labels(root) == {
        f"{good}/0.png": "good",
        f"{good}/day/1.png": "good",
        f"{bad}/2.png": bad,
    }
    assert labels(
        touch(tmp_path / "b", f"cam1/{good}/0.png", f"cam1/{bad}/1.png", f"cam2/x/{good}/2.png")
    ) == {
        f"cam1/{good}/0.png": "good",
        f"cam1/{bad}/1.png": bad,
        f"cam2/x/{good}/2.png": "good",
    }
    split = touch(
        tmp_path / "c",
        f"Train/{good}/0.png",
        f"test/{good}/1.png",
        f"test/{bad}/2.png",
        "val/3.png",
    )
    found = {(p.split, p.label, p.path.name) for p in placed_images(split)}
    assert found == {("train", "good", "0.png"), ("test", "good", "1.png"), ("test", bad, "2.png")}


@pytest.mark.parametrize(
    "names",
    [
        ["camera1", "camera2"],
        ["Monday", "Passau"],
        ["lot 1", "goodyear", "okular"],
        ["io_board", "cpu"],
    ],
)
def test_folders_that_say_nothing_are_searched(tmp_path, names):
    root = touch(tmp_path, "0.png", *(f"{name}/sub/1.png" for name in names))
    assert set(labels(root).values()) == {"good"} and len(labels(root)) == len(names) + 1


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["NG/0.png", "NG/1.png", "blue/2.png"],
            r"bad by name: NG \(2\); good or bad: blue \(1\)\? .*--good NAME .*'blue'",
        ),
        (
            ["scratch/0.png", "camera 1/1.png"],
            r"bad by name: scratch \(1\); good or bad: camera 1 \(1\)\?",
        ),
        (["NG/0.png", "1.png"], r"good or bad: beside them \(1\)\?"),
        (
            ["a/OK/0.png", "a/NG/1.png", "b/2.png"],
            r"good: a/OK \(1\); bad by name: a/NG \(1\); good or bad: b \(1\)\?",
        ),
        (["0/0.png", "1/1.png"], r"good or bad: 0 \(1\), 1 \(1\)\?"),
        (["yes/0.png", "no/1.png"], r"good or bad: no \(1\), yes \(1\)\?"),
        (
            ["test/NG/0.png", "test/cam1/1.png"],
            r"bad by name: test/NG \(1\); good or bad: test/cam1 \(1\)\?",
        ),
        (
            ["OK/0.png", "OK/NG/1.png"],
            r"folder OK/NG \(1 images\) found within OK, whose name says the opposite",
        ),
        (["NG/OK/0.png", "NG/1.png"], r"folder NG/OK \(1 images\) found within NG"),
        (["OK/0.png", "1.png"], r"1\.png: an image beside the folder good has no label"),
    ],
)
def test_what_may_be_good_or_bad_is_refused_in_one_line(tmp_path, names, said):
    with pytest.raises(DatasetError, match=said) as error:
        labels(touch(tmp_path, *names))
    assert "\n" not in str(error.value)


def test_a_folder_named_as_bad_is_not_read_as_good(tmp_path):
    root = touch(tmp_path / "NG", "0.png", "mon/1.png")
    with pytest.raises(
        DatasetError,
        match=r"a folder named 'NG' with 2 images found where good images are expected",
    ):
        labels(root)
    assert set(labels(root, ".").values()) == {"good"}
    assert set(labels(root, plain="defect").values()) == {"defect"}


@pytest.mark.parametrize(
    "bad",
    ["ikke ok", "nicht in Ordnung", "pas bon", "ungut", "zły", "B-Ware", "rework", "K.O.", "dirty"],
)
def test_what_is_not_good_is_never_read_as_good(tmp_path, bad):
    root = touch(tmp_path, "ok/0.png", f"{bad}/1.png")
    assert labels(root) == {"ok/0.png": "good", f"{bad}/1.png": bad}
    manifest = root / "m.csv"
    manifest.write_text(f"path,label\na,ok\nb,{bad}\n")
    assert [record.label for record in read_dataset(manifest)] == ["good", bad]


@pytest.mark.parametrize(
    "names",
    [
        ["positive", "negative"],
        ["positiv", "negativ"],
        ["阳性", "阴性"],
        ["正样本", "负样本"],
        ["P", "F"],
        ["检出", "未检出"],
        ["Class A", "Class B"],
        ["class_0", "class_1", "class_2"],
        ["0", "1"],
        ["almost_good", "scratch"],
        ["ok_fraglich", "NG"],
        ["good", "good_weld", "scratch"],
        ["NG", "negative"],
    ],
)
def test_what_only_a_person_knows_is_refused_in_folders_and_manifests(tmp_path, names):
    for at in ("x", "test"):
        root = touch(tmp_path / at, *(f"{at}/{name}/{i}.png" for i, name in enumerate(names)))
        with pytest.raises(DatasetError, match=r"\(1\).*--good NAME"):
            labels(root)
        assert set(labels(root, names[0]).values()) >= {"good"}
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,label\n" + "".join(f"{name}.png,{name}\n" for name in names))
    if "good" not in names:
        with pytest.raises(DatasetError, match=r"\(1\).*--good NAME"):
            read_dataset(manifest)


@pytest.mark.parametrize(
    "names",
    [
        "cam1 2024-05-01 Los_7",
        "linea norte nota okular",
        "badge passau normandy",
        "A B",
        "pos1 pos2",
    ],
)
def test_ordinary_names_stay_searched(tmp_path, names):
    assert set(labels(touch(tmp_path, *(f"{name}/0.png" for name in names.split()))).values()) == {
        "good"
    }


@pytest.mark.parametrize("name", ["scratch", "Kratzer", "NG", "positive", "ikke ok", "rework"])
def test_a_root_that_is_named_by_a_defect_is_refused_as_a_subfolder_is(tmp_path, name):
    root = touch(tmp_path / name, "0.png", "cam1/1.png")
    with pytest.raises(
        DatasetError, match=r"with 2 images found where good images are expected: .*--good \."
    ):
        labels(root)
    said: list[str] = []
    assert len(list(placed_images(touch(tmp_path / "bad_weld", "0.png"), say=said.append))) == 1
    assert said == [
        (
            "read as good, although the folder is named 'bad_weld': if it holds defects, give the "
            "folder of good images"
        )
    ]


def test_only_defects(tmp_path):
    assert labels(touch(tmp_path / "a", "test/hole/0.png", "test/cut/1.png")) == {
        "test/cut/1.png": "cut",
        "test/hole/0.png": "hole",
    }
    assert labels(touch(tmp_path / "b", "NG/0.png", "scratch/1.png")) == {
        "NG/0.png": "NG",
        "scratch/1.png": "scratch",
    }
    assert labels(touch(tmp_path / "c", "crack/0.png", "good/no image")) == {"crack/0.png": "crack"}


def test_names_that_are_given_decide(tmp_path):
    root = touch(tmp_path, "NG/0.png", "blue/1.png", "red/2.png")
    assert labels(root, "blue", "RED") == {
        "NG/0.png": "NG",
        "blue/1.png": "good",
        "red/2.png": "good",
    }
    assert labels(root, "NG") == {"NG/0.png": "good", "blue/1.png": "blue", "red/2.png": "red"}
    cameras = touch(tmp_path / "c", "1/0/a.png", "1/1/b.png", "2/1/c.png", "d.png")
    assert labels(cameras, "1/0", ".") == {
        "1/0/a.png": "good",
        "1/1/b.png": "1",
        "2/1/c.png": "1",
        "d.png": "good",
    }
    with pytest.raises(
        DatasetError, match=r"--good blau names no folder; found: NG \(1\), blue \(1\), "
    ):
        labels(root, "blau")


def test_whatever_is_not_read_is_counted(tmp_path):
    said: list[str] = []
    root = touch(
        tmp_path,
        "train/OK/0.png",
        "test/NG/1.png",
        "val/2.png",
        "3.png",
        ".old/x/4.png",
        "test/.tmp/5.png",
    )
    touch(root, "ground_truth/NG/1_mask.png", ".old/._6.png")
    assert len(list(placed_images(root, say=said.append))) == 2
    assert said == [
        "read as masks only: ground_truth (1)",
        "not read, as they are neither in train nor in test: beside the folders (1), val (1)",
        "not read, in hidden folders: .old (1), test/.tmp (1)",
    ]
    plain = touch(tmp_path / "plain", "a/0.png", "ground_truth/1.png")
    assert labels(plain) == {"a/0.png": "good"}


def test_many_names_are_cut_off_with_their_counts():
    assert counted([(str(i), 2) for i in range(13)]).endswith("9 (2) and 3 more (6)")


def test_thousands_of_lots_are_read(tmp_path):
    root = touch(tmp_path, *(f"lot{i}/OK/0.png" for i in range(2000)), "lot7/NG/1.png")
    found = labels(root)
    assert [path for path, label in found.items() if label != "good"] == ["lot7/NG/1.png"] and len(
        found
    ) == 2001
