"""What a search takes for an image, and that it counts and names all the rest."""

from __future__ import annotations

import io
import os
import socket
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from anomaly.errors import DatasetError
from anomaly.imaging.find import find_images, mark_ours, walk_images
from anomaly.imaging.listing import (
    HEADS,
    MARK,
    Passed,
    count,
    format_not_read,
    is_image_head,
    is_image_name,
    kind_of,
    passed_text,
    wanted,
)
from anomaly.inputs.dataset import read_dataset
from anomaly.inputs.sources import list_sources

FORMATS = {"JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "DIB"}


def encoded(format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 90, 10)).save(file, format)
    return file.getvalue()


def listed(*inputs: Path | str) -> tuple[list[str], Passed]:
    """The last parts of what is listed, and what is passed over."""
    passed = Counter[str]()
    found = [
        source.name.split("::")[0].split("/")[-1]
        for source in list_sources(list(map(str, inputs)), passed=passed)
    ]
    return found, passed


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_a_file_of_every_format_that_is_read_is_found_without_a_suffix(
    format: str, tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(encoded(format))
    (tmp_path / "image.001").write_bytes(encoded(format))
    assert listed(tmp_path) == (["image", "image.001"], Counter())
    assert [name for name, head in HEADS.items() if head.match(encoded(format))] == [format]


@pytest.mark.parametrize(
    ("head", "format"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
        (b"\0\0\0\x18ftypmif1" + bytes(20), "HEIC"),
        (b"\0\0\0\x1cftypavif" + bytes(20), "AVIF"),
        (b"\0\0\0\x18ftypcrx " + bytes(20), "a camera's raw format"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's raw format"),
        (encoded("JPEG2000"), "JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"8BPS\0\1", "Photoshop"),
        (b"#?RADIANCE\n", "Radiance HDR"),
    ],
)
def test_an_image_of_another_format_is_known_by_its_first_bytes(
    head: bytes, format: str, tmp_path: Path
) -> None:
    assert format_not_read(head) == format and is_image_head(head)
    (tmp_path / "image").write_bytes(head)
    assert listed(tmp_path) == (["image"], Counter())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(
            (f"a{suffix}", True)
            for suffix in (
                ".jpg .JPEG .jfif .jpe .dib .pgm .PPM .gif .jp2 .heic .avif .DNG .dcm"
            ).split()
        ),
        *((f"a{suffix}", None) for suffix in ".txt .JSON .csv .zip .db .onnx".split()),
        *((f"a{suffix}", False) for suffix in ".part .TMP .crdownload".split()),
        ("a.png~", False),
        ("Thumbs.db", False),
        ("a.png.bak", None),
        ("a", None),
        ("a.123", None),
        ("a.jpg.json", None),
        ("", None),
    ],
)
def test_a_name_decides_or_leaves_it_to_the_content(name: str, expected: bool | None) -> None:
    assert is_image_name(name) is expected


def test_only_names_that_do_not_decide_are_looked_into() -> None:
    def never() -> bytes:
        raise AssertionError("looked into")

    passed = Counter[str]()
    assert [wanted(name, never, passed) for name in ("a.png", "b.part", ".c", "d.HEIC")] == [
        True,
        False,
        False,
        True,
    ]
    assert passed == {".part": 1, "hidden file": 1}


@pytest.mark.parametrize("name", ["a.txt", "b.json", "c.pdf", "d.zip", "e.db", "f.mp4", "g.bak"])
def test_an_image_under_another_suffix_is_one(name: str, tmp_path: Path) -> None:
    for other in (name, "z.png"):
        (tmp_path / other).write_bytes(encoded("PNG"))
    assert listed(tmp_path) == ([name, "z.png"], Counter())
    (tmp_path / name).write_bytes(b"text")
    assert listed(tmp_path) == (["z.png"], Counter({kind_of(name): 1}))


def test_kinds_are_few_and_said_most_first() -> None:
    passed = Counter[str]()
    for name in ("a.txt", "b.TXT", "c", "d.001", "e.002", "f.\n", "g.averylongsuffixindeed", "h.ü"):
        count(passed, kind_of(name))
    expected = "2 .txt, 2 numbered suffixes, 2 other suffixes, 1 .ü, 1 file without suffix"
    assert passed_text(passed) == expected
    for number in range(5000):
        count(passed, f".x{number}")
    assert len(passed) <= 501 and sum(passed.values()) == 5008
    assert passed_text(passed).endswith(" other kinds")
    assert passed_text({}) == ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images in a folder with everything else that a folder may hold."""
    folder = tmp_path / "photos"
    (folder / "up" / ".hidden").mkdir(parents=True)
    for name in ("a.PNG", "up/b"):
        (folder / name).write_bytes(encoded("PNG"))
    for name in (
        "1.txt",
        "2.txt",
        "up/3.txt",
        "list.json",
        "sub.zip",
        "Thumbs.db",
        ".DS_Store",
        "readme",
    ):
        (folder / name).write_bytes(b"text")
    (folder / "up" / ".hidden" / "c.png").write_bytes(encoded("PNG"))
    (folder / "nothing").write_bytes(b"")
    ours = folder / "overlays"
    ours.mkdir()
    (ours / "00000000-a.jpg").write_bytes(encoded("JPEG"))
    mark_ours(ours)
    return folder


REST = {
    ".txt": 3,
    ".json": 1,
    ".zip": 1,
    ".db": 1,
    "hidden file": 1,
    "file without suffix": 1,
    "empty file": 1,
}
REST |= {"folder written by anomaly": 1}


def test_a_folder(folder: Path) -> None:
    expected = Counter({**REST, "hidden folder": 1})
    assert listed(folder) == (["a.PNG", "b"], expected)
    passed = Counter[str]()
    assert [path.name for path in find_images(folder, passed)] == [
        "a.PNG",
        "b",
    ] and passed == expected
    passed = Counter[str]()
    assert [record.path.name for record in read_dataset(folder, None, passed)] == [
        "a.PNG",
        "b",
    ] and passed == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes on Windows")
def test_pipes_sockets_and_links_to_nothing_are_counted_and_not_area_opening(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    os.mkfifo("pipe")
    os.symlink("never there", "link")
    os.symlink("pipe", "link to a pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        passed = Counter[str]()
        assert list(walk_images(".", passed)) == []
    assert passed == {"pipe or device": 3, "link to nothing": 1}
    if sys.platform == "linux" and os.path.exists("/dev/zero"):
        os.symlink("/dev/zero", "zero")
        assert list(walk_images(".", passed)) == [] and passed["pipe or device"] == 7
    os.mkfifo("pipe.png")  # with an image's suffix it has its row, which says what it is
    assert list(walk_images(".")) == ["pipe.png"]


def test_a_folder_that_links_lead_to_twice_is_counted(folder: Path) -> None:
    os.symlink(folder / "up", folder / "up" / "again")
    found, passed = listed(folder)
    assert found == ["a.PNG", "b"] and passed["folder listed before"] == 1


def test_a_folder_without_images_says_what_it_holds(folder: Path) -> None:
    (folder / "a.PNG").unlink()
    (folder / "up" / "b").unlink()
    with pytest.raises(
        DatasetError,
        match=r"no image in this folder; .* \(3 \.txt, 1 \.db, .*1 hidden folder.* found\)$",
    ):
        listed(folder)
    with pytest.raises(DatasetError, match=r"no images found \(3 \.txt, "):
        read_dataset(folder)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_an_archive(folder: Path, suffix: str) -> None:
    archive = folder.parent / f"photos{suffix}"
    paths = sorted(
        path for path in folder.rglob("*") if path.is_file() and ".hidden" not in path.parts
    )
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in paths:
                file.write(path, path.relative_to(folder))
        assert listed(archive) == (["a.PNG", "b"], Counter(REST))
        return
    with tarfile.open(archive, "w:gz" if suffix.endswith("gz") else "w") as tar:
        for path in [path for path in paths if "overlays" not in path.parts]:
            tar.add(path, path.relative_to(folder))
    expected = {kind: n for kind, n in REST.items() if kind != "folder written by anomaly"}
    assert listed(archive) == (["a.PNG", "b"], Counter(expected))
    *_, last = list_sources([archive])
    assert last.read(1 << 20) == encoded("PNG")


def test_a_bucket(folder: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs the extra batch")
    files = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            files.pipe(
                f"/bucket-of-listing/{path.relative_to(folder).as_posix()}", path.read_bytes()
            )
    try:
        assert listed("memory://bucket-of-listing") == (
            ["a.PNG", "b"],
            Counter({**REST, "hidden folder": 1}),
        )
    finally:
        files.rm("/bucket-of-listing", recursive=True)


def test_our_own_folders_are_searched_only_where_they_are_named(folder: Path, monkeypatch) -> None:
    ours = "folder written by anomaly"
    assert listed(folder / "overlays") == (["00000000-a.jpg"], Counter())
    for pattern in ("photos/*", "photos/**/*.jpg", "photos/o*/*.jpg"):
        found, passed = [], Counter[str]()
        try:
            found, passed = listed(folder.parent / pattern)
        except DatasetError as error:
            assert "nothing matches" in str(error)
        assert "00000000-a.jpg" not in found
        assert passed[ours] == (1 if passed else 0)
    assert listed(folder.parent / "photos/overlays/*.jpg") == (["00000000-a.jpg"], Counter())


def test_our_own_folders_are_no_classes_of_defects(tmp_path: Path) -> None:
    for name in ("good/a.png", "scratch/b.png", "overlays/00000000-a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded("PNG"))
    mark_ours(tmp_path / "overlays")
    (tmp_path / "notes.txt").write_text("x")
    passed = Counter[str]()
    assert {record.label for record in read_dataset(tmp_path, None, passed)} == {"good", "scratch"}
    assert passed == {"folder written by anomaly": 1, ".txt": 1}
    (tmp_path / "beside").write_bytes(encoded("PNG"))
    with pytest.raises(DatasetError, match="beside: an image beside the folder good has no label"):
        read_dataset(tmp_path)


def test_the_mark_is_a_hidden_name() -> None:
    assert MARK.startswith(".")
