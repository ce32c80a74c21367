from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.errors import DatasetError
from anomaly.inputs.dataset import Record, labelled_test, normal_training, read_dataset


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def csv_of(root: Path, text: str) -> Path:
    path = root / "manifest.csv"
    path.write_bytes(os.fsencode(text))
    return path


# ---- folders ----


def test_a_folder_of_images_is_all_normal(tmp_path):
    root = touch(tmp_path, "b.png", "lot 2/a.jpg", "notes.txt")
    assert read_dataset(root) == [
        Record(root / "b.png", None, "good", "b.png", None),
        Record(root / "lot 2/a.jpg", None, "good", "lot 2/a.jpg", None),
    ]


def test_the_layout_of_mvtec(tmp_path):
    root = touch(
        tmp_path, "train/good/0.png", "test/good/1.png", "test/crack/2.png", "test/hole/3.png"
    )
    touch(root, "test/hole/4.png", "license.txt", "test/.cache/5.png")
    touch(root, "ground_truth/crack/2_mask.png", "ground_truth/hole/3.png")
    assert read_dataset(root) == [
        Record(root / "train/good/0.png", "train", "good", "train/good/0.png", None),
        Record(
            root / "test/crack/2.png",
            "test",
            "crack",
            "test/crack/2.png",
            root / "ground_truth/crack/2_mask.png",
        ),
        Record(root / "test/good/1.png", "test", "good", "test/good/1.png", None),
        Record(
            root / "test/hole/3.png",
            "test",
            "hole",
            "test/hole/3.png",
            root / "ground_truth/hole/3.png",
        ),
        Record(root / "test/hole/4.png", "test", "hole", "test/hole/4.png", None),
    ]


def test_a_folder_good_makes_its_neighbours_defects(tmp_path):
    root = touch(tmp_path, "good/0.png", "crack/1.png", "ground_truth/crack/1_mask.png")
    assert read_dataset(root) == [
        Record(
            root / "crack/1.png",
            None,
            "crack",
            "crack/1.png",
            root / "ground_truth/crack/1_mask.png",
        ),
        Record(root / "good/0.png", None, "good", "good/0.png", None),
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            [],
            (
                r": no images found, rows or files ending in \.jpg, \.png, \.bmp, \.tif, \.webp "
                r"expected$"
            ),
        ),
        (["notes.txt"], ": no images found"),
        (
            ["train/lot 1/0.png"],
            (
                r": folder train without train/good found \(train/lot 1 \(1\)\), train/good "
                r"expected: rename"
            ),
        ),
        (["train/0.png"], ": folder train without train/good found"),
        (
            ["train/good/0.png", "test/1.png"],
            r"test/1\.png: an image beside the folder good has no label: move it",
        ),
    ],
)
def test_folders_that_cannot_be_understood(tmp_path, names, message):
    with pytest.raises(DatasetError, match=message):
        read_dataset(touch(tmp_path, *names))


def test_what_is_neither_folder_nor_manifest(tmp_path):
    with pytest.raises(DatasetError, match=r"none: no such folder or manifest: check the path$"):
        read_dataset(tmp_path / "none")
    with pytest.raises(
        DatasetError, match=r"none\.csv: no such folder or manifest: check the path$"
    ):
        read_dataset(tmp_path / "none.csv")
    touch(tmp_path, "a.png")
    with pytest.raises(
        DatasetError,
        match=r"a\.png: a file found, a folder of images or a \.csv, \.tsv, \.txt or \.parquet",
    ):
        read_dataset(tmp_path / "a.png")


# ---- manifests ----

ROWS = [
    {"path": "a.png", "split": "train", "label": "good", "group": "tile 1", "mask": None},
    {
        "path": "/data/b.png",
        "split": "test",
        "label": "crack",
        "group": None,
        "mask": "masks/b.png",
    },
    {"path": "c, d.png", "split": None, "label": None, "group": "tile 1", "mask": None},
]


def records_of(root: Path) -> list[Record]:
    return [
        Record(root / "a.png", "train", "good", "tile 1", None),
        Record(Path("/data/b.png"), "test", "crack", "/data/b.png", root / "masks/b.png"),
        Record(root / "c, d.png", None, None, "tile 1", None),
    ]


def test_a_csv_manifest(tmp_path):
    head = "\ufeffpath,split,label,group,mask\n"  # as Excel saves it
    rows = 'a.png,train,good,tile 1,\n/data/b.png,test,crack,,masks/b.png\n\n"c, d.png",,,tile 1,\n'
    assert read_dataset(csv_of(tmp_path, head + rows)) == records_of(tmp_path)


@pytest.mark.parametrize("encode", [lambda path: path, os.fsencode], ids=["text", "bytes"])
def test_a_parquet_manifest(tmp_path, encode):
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{**row, "path": encode(row["path"]), "width": 3} for row in ROWS]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "manifest.parquet")
    assert read_dataset(tmp_path / "manifest.parquet") == records_of(tmp_path)


def test_a_manifest_needs_only_paths(tmp_path):
    manifest = csv_of(tmp_path, "path\nlost.png\nsub/b.png\n")
    assert read_dataset(manifest) == [
        Record(tmp_path / "lost.png", None, None, "lost.png", None),
        Record(tmp_path / "sub/b.png", None, None, "sub/b.png", None),
    ]


def test_masks_beside_a_manifest_without_a_column_for_them(tmp_path):
    touch(tmp_path, "ground_truth/crack/a_mask.png")
    (record,) = read_dataset(csv_of(tmp_path, "path,label\ntest/crack/a.jpg,crack\n"))
    assert record.mask == tmp_path / "ground_truth/crack/a_mask.png"


def test_names_that_are_not_utf_8_survive_a_manifest(tmp_path):
    (record,) = read_dataset(csv_of(tmp_path, "path\nb\udcff.png\n"))
    assert os.fsencode(record.path) == os.fsencode(tmp_path) + b"/b\xff.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": columns none found, 'path' expected among them$"),
        (
            "file;split\na.png;train\n",
            ": columns 'file', 'split' found, 'path' expected among them$",
        ),
        ("path,path\na,b\n", ": column 'path' found twice, once expected$"),
        ("path,split\n", ": no images found"),
        ("path,split\na.png,train\n,test\n", ", line 3: no path found, one expected in every row$"),
        (
            "path,split\na.png,val\n",
            ", line 2: split 'val' found, 'train', 'test' or nothing expected$",
        ),
        ("path,split\na.png\n", ", line 2: 1 cells found, 2 expected$"),
        (
            "path\na.png\nb.png\n./a.png\n",
            r", line 4: './a\.png' stands in line 2 already: remove one of them$",
        ),
        ('path\n"a.png\n', r": cannot be read as CSV \(unexpected end of data\)$"),
    ],
)
def test_manifests_that_cannot_be_understood(tmp_path, text, message):
    with pytest.raises(DatasetError, match=r"manifest\.csv" + message):
        read_dataset(csv_of(tmp_path, text))


@pytest.mark.parametrize("content", [b"", b"PAR1 nonsense", b"path\na.png\n"])
def test_a_parquet_manifest_that_is_none(tmp_path, content):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    (tmp_path / "m.parquet").write_bytes(content)
    with pytest.raises(DatasetError, match=r"m\.parquet: cannot be read as Parquet \(.+\)$"):
        read_dataset(tmp_path / "m.parquet")


@pytest.mark.parametrize(
    ("labels", "good", "expected"),
    [
        (["OK", " ok ", "NG"], (), ["good", "good", "NG"]),
        (["合格", "不合格"], (), ["good", "不合格"]),
        (["Good", "scratch"], (), ["good", "scratch"]),
        (["normal_weld", "abnormal_weld"], (), ["good", "abnormal_weld"]),
        (["0", "1"], ("0",), ["good", "1"]),
        (["False", "True"], ("false",), ["good", "True"]),
        (["blue", "NG", "good"], ("blue",), ["good", "NG", "not blue"]),
        (["crack", "hole"], (), ["crack", "hole"]),
    ],
)
def test_labels_by_other_names(tmp_path, labels, good, expected):
    text = "path,label\n" + "".join(f"{i}.png,{label}\n" for i, label in enumerate(labels))
    assert [record.label for record in read_dataset(csv_of(tmp_path, text), good=good)] == expected


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            ["0", "1", "1"],
            r"labels 1 \(2\), 0 \(1\) found, which do not tell good from bad: .*--good NAME$",
        ),
        (["True", "False"], "labels .*--good NAME"),
        (["NG", "blue"], r"labels NG \(1\), blue \(1\) found"),
    ],
)
def test_labels_that_do_not_tell_are_refused(tmp_path, labels, said):
    manifest = csv_of(
        tmp_path, "path,label\n" + "".join(f"{i}.png,{label}\n" for i, label in enumerate(labels))
    )
    with pytest.raises(DatasetError, match=said):
        read_dataset(manifest)
    with pytest.raises(DatasetError, match=r"--good OK names no label; found: "):
        read_dataset(manifest, good=("OK",))


def test_what_is_taken_and_what_is_not_is_said_with_counts(tmp_path):
    text = (
        "path,split,label\na,train,OK\nb,train,OK\nc,train,NG\nd,train,\ne,test,OK\nf,test,crack\n"
        "g,,NG\n"
    )
    records = read_dataset(csv_of(tmp_path, text))
    said: list[str] = []
    assert [r.path.name for r in normal_training(records, said.append)] == ["a", "b"]
    assert said == [
        "read as good: train/OK (2)",
        (
            "not read as good, left out: train/NG (1), without a label (1), test/OK (1), "
            "test/crack (1), NG (1)"
        ),
    ]
    said.clear()
    assert [r.path.name for r in labelled_test(records, said.append)] == ["e", "f"]
    assert said == [
        "read as good: test/OK (1)",
        "read as defects: test/crack (1)",
        "not evaluated: train/OK (2), train/NG (1), without a label (1), NG (1)",
    ]
    with pytest.raises(
        DatasetError,
        match=r"labels found: NG \(1\), and 2 images without a label, which may be good or not",
    ):
        normal_training(read_dataset(csv_of(tmp_path, "path,label\na,NG\nb,\nc,\n")))


@pytest.mark.parametrize(
    "data",
    [
        "path;label;split\r\nsub\\ü.png;OK;Train\r\n;;\r\n".encode("utf-8-sig"),
        "path\tlabel\tsplit\r\nsub\\ü.png\tOK\ttrain\r\n".encode("utf-16"),
        "Path,Label,Split\r\nsub/ü.png,OK,TRAIN\r\n".encode("cp1252"),
    ],
    ids=["utf-8", "utf-16", "cp1252"],
)
def test_manifests_as_excel_and_windows_write_them(tmp_path, data):
    touch(tmp_path, "sub/ü.png")
    (tmp_path / "manifest.csv").write_bytes(data)
    (record,) = read_dataset(tmp_path / "manifest.csv")
    assert record == Record(tmp_path / "sub/ü.png", "train", "good", "sub/ü.png", None)


def test_empty_columns_and_other_endings_are_taken(tmp_path):
    manifest = csv_of(tmp_path, "Path;Label;group;;\na.png;OK;x;;\n")
    assert read_dataset(manifest) == [Record(tmp_path / "a.png", None, "good", "x", None)]
    for name in ("m.tsv", "m.txt", "M.TSV"):
        (tmp_path / name).write_text("path\tlabel\na.png\tOK\n")
        assert [record.label for record in read_dataset(tmp_path / name)] == ["good"]


@pytest.mark.skipif(os.sep != "/", reason="there are drives on Windows")
def test_a_drive_of_windows_in_a_manifest(tmp_path):
    with pytest.raises(
        DatasetError,
        match=r"line 2: 'C:\\\\a\.png' begins with a drive of Windows, which is not here",
    ):
        read_dataset(csv_of(tmp_path, "path\nC:\\a.png\n"))


# ---- groups ----


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"part(\d+)", ["1", "1", "2"]),
        (r"^lot[^/]*", ["lot_a", "lot_a", "lot_b"]),
        (r"(?P<lot>lot_.)/part", ["lot_a", "lot_a", "lot_b"]),
    ],
)
def test_groups_from_the_path(tmp_path, pattern, groups):
    root = touch(tmp_path, "lot_a/part1_left.png", "lot_a/part1_right.png", "lot_b/part2_left.png")
    assert [record.group for record in read_dataset(root, pattern)] == groups


def test_groups_from_the_path_take_the_place_of_the_column(tmp_path):
    manifest = csv_of(tmp_path, "path,group\nlot1/a.png,x\nlot2/b.png,x\n")
    assert [record.group for record in read_dataset(manifest)] == ["x", "x"]
    assert [record.group for record in read_dataset(manifest, r"lot\d")] == ["lot1", "lot2"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            r"lot(\d)",
            r"^--group-by 'lot\(\\\\d\)' does not match 'b\.png': every path must name its group$",
        ),
        (r"(x)|.", r"does not match 'b\.png'"),
        ("(", r"^--group-by '\(' found, a regular expression expected: missing \)"),
    ],
)
def test_a_path_without_a_group_is_named(tmp_path, pattern, message):
    root = touch(tmp_path, "b.png", "lot1/a.png")
    with pytest.raises(DatasetError, match=message):
        read_dataset(root, pattern)


# ---- what is for training, what for testing ----


def record(split: str | None, label: str | None) -> Record:
    return Record(Path("a.png"), split, label, "a.png", None)


RECORDS = st.builds(
    record, st.sampled_from(["train", "test", None]), st.sampled_from(["good", "crack", None])
)


@given(st.lists(RECORDS))
def test_training_sees_normal_images_only_and_nothing_of_the_test(records):
    tested = labelled_test(records)
    try:
        trained = normal_training(records)
    except DatasetError:
        trained = []
    assert {r.label for r in trained} <= {"good", None}
    assert None not in {r.label for r in tested}
    if any(r.split for r in records):
        assert {r.split for r in trained} <= {"train"} and {r.split for r in tested} <= {"test"}


def test_without_splits_everything_is_for_both():
    records = [record(None, "good"), record(None, None), record(None, "crack")]
    assert normal_training(records) == records[:1]  # nobody said of the second one that it is good
    assert normal_training([record(None, None)] * 2) == [record(None, None)] * 2
    assert labelled_test(records) == [records[0], records[2]]


def test_images_without_a_split_are_for_neither_if_others_have_one():
    records = [
        record("train", "good"),
        record(None, "good"),
        record("test", "crack"),
        record("test", None),
    ]
    assert normal_training(records) == records[:1]
    assert labelled_test(records) == [records[2]]


def test_no_normal_training_image():
    with pytest.raises(
        DatasetError, match=r"^no normal training image: test/good, train/crack found, train/good"
    ):
        normal_training([record("train", "crack"), record("test", "good")])
    with pytest.raises(DatasetError, match=r"^no normal training image: nothing found"):
        normal_training([])
