from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from anomaly.errors import DatasetError, ImageError
from anomaly.inputs.remote import Remote
from anomaly.inputs.source import File, Held, Refused, Source
from anomaly.inputs.sources import as_source, list_sources, shard


def picture(path: Path, grey: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 6), grey).save(path)
    return path


def names(*inputs: str | Path, **options: object) -> list[str]:
    return [source.name for source in list_sources(inputs, **options)]  # type: ignore[arg-type]


def said(source: Source, limit: int = 1 << 20) -> str:
    """Returns the kind of error that reading a source ends with, or how many bytes it has."""
    try:
        return str(len(source.read(limit)))
    except ImageError as error:
        assert "\n" not in str(error)
        return error.kind


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images three deep, a hidden one, one that is none, and a loop of links; work goes
    on in it.
    """
    for path in (
        "b/2.png",
        "b/10.JPG",
        "b/c/1.png",
        "b.png",
        "a/1.png",
        "b/.hidden.png",
        ".git/1.png",
    ):
        picture(tmp_path / path)
    (tmp_path / "a" / "notes.txt").write_text("hello")
    (tmp_path / "a" / "loop").symlink_to("..")
    (tmp_path / "a" / "to_itself.png").symlink_to("to_itself.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_masks_of_a_labelled_folder_are_no_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "test/hole/1.png",
        "test/good/2.png",
        "train/good/3.png",
        "ground_truth/hole/1_mask.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, f"{tmp_path}/", Path()):
        assert sorted(Path(s.name).name for s in list_sources([folder])) == [
            "1.png",
            "2.png",
            "3.png",
        ]
    assert [Path(s.name).name for s in list_sources([tmp_path / "ground_truth"])] == ["1_mask.png"]
    for file in (tmp_path / "test").rglob("*.png"):
        file.unlink()
    for folder in ("test/hole", "test/good", "test"):
        (tmp_path / folder).rmdir()
    assert len(list(list_sources([tmp_path]))) == 2  # a product of that name, say


def test_files_folders_and_manifests_come_in_order(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "a" / "1.png", 1), picture(tmp_path / "a" / "2.png", 2)
    (tmp_path / "list.csv").write_text("path\na/2.png\na/1.png\n")
    found = names(tmp_path / "none.png", tmp_path / "a", tmp_path / "list.csv")
    assert found == [str(path) for path in (tmp_path / "none.png", first, second, second, first)]


def test_a_folder_is_searched_in_the_order_of_its_paths(tree: Path) -> None:
    assert names(".") == ["a/1.png", "a/to_itself.png", "b.png", "b/10.JPG", "b/2.png", "b/c/1.png"]
    assert names(tree / "b") == sorted(
        str(tree / "b" / name) for name in ("10.JPG", "2.png", "c/1.png")
    )
    assert names("b/") == ["b/10.JPG", "b/2.png", "b/c/1.png"]


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r": no image in this folder; JPEG"):
        names(tmp_path)


def test_a_folder_is_listed_as_its_images_are_asked_for(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        picture(tmp_path / folder / "1.png")
    sources = list_sources([tmp_path])
    assert next(sources).name == str(tmp_path / "a" / "1.png")
    picture(tmp_path / "b" / "0.png")  # after the listing has begun
    assert [source.name for source in islice(sources, 2)] == [
        str(tmp_path / "b" / name) for name in ("0.png", "1.png")
    ]


def test_a_folder_that_cannot_be_listed_has_a_row(tree: Path) -> None:
    sources = list_sources(["b"])
    assert next(sources).name == "b/10.JPG"
    (tree / "b" / "c" / "1.png").unlink()
    (tree / "b" / "c").rmdir()
    (second, lost) = sources
    assert (second.name, lost.name, said(lost)) == ("b/2.png", "b/c/", "unreadable")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("b/*.png", ["b/2.png"]),
        ("[ab]/*.png", ["a/1.png", "a/to_itself.png", "b/2.png"]),
        ("**/1.png", ["a/1.png", "b/c/1.png"]),
        ("**/*.png", ["b.png", "a/1.png", "a/to_itself.png", "b/2.png", "b/c/1.png"]),
        ("b*", ["b/10.JPG", "b/2.png", "b/c/1.png", "b.png"]),  # folders are searched
        ("b/**/*", ["b/10.JPG", "b/2.png", "b/c/1.png"]),  # and not twice
        ("b/.h*", ["b/.hidden.png"]),
    ],
)
def test_patterns(tree: Path, pattern: str, found: list[str]) -> None:
    assert names(pattern) == found
    assert sorted(names(tree / pattern)) == sorted(str(tree / name) for name in found)


def test_a_pattern_that_matches_nothing_is_an_error_and_a_file_of_that_name_is_itself(
    tree: Path,
) -> None:
    with pytest.raises(DatasetError, match=r"\*\.webp: nothing matches this pattern"):
        names("*.webp")
    picture(tree / "[1].png")
    assert names("[1].png") == ["[1].png"]


@pytest.mark.parametrize(
    ("given", "end", "found"),
    [
        (b"a.png\nb c.png\r\n\n'd'.png", b"\n", ["a.png", "b c.png", "'d'.png"]),
        (b"a\n.png\0\0b\r\0c", b"\0", ["a\n.png", "b\r", "c"]),
        (b"not \xff.png\n", b"\n", [os.fsdecode(b"not \xff.png")]),
        (b"", b"\n", []),
    ],
)
def test_names_on_standard_input(given: bytes, end: bytes, found: list[str]) -> None:
    assert names("x.png", "-", end=end, stdin=io.BytesIO(given)) == ["x.png", *found]


def test_a_list_of_names_is_taken_as_it_comes() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as stream, open(writing, "wb", buffering=0) as writer:
        sources = list_sources(["-"], stdin=stream)  # type: ignore[arg-type]
        for name in ("a.png", "s3://bucket/b.png"):
            writer.write(f"{name}\n".encode())
            assert next(sources) == (Remote(name) if "://" in name else File(name))


def test_something_else_than_a_list_of_names_is_an_error() -> None:
    with pytest.raises(DatasetError, match="a name of more than 1,048,576 bytes found"):
        names("-", stdin=io.BytesIO(bytes(3 << 20)))


@pytest.mark.parametrize("of", [1, 3, 10])
def test_shards_hold_all_once(of: int) -> None:
    whole = [File(str(n)) for n in range(8)]
    shards = [list(shard(whole, number, of)) for number in range(1, of + 1)]
    assert sorted(source for one in shards for source in one) == whole
    assert shards[0][:2] == whole[: of + 1 : of]
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    path = picture(tmp_path / "1.png")
    source = as_source(path)
    assert source == File(str(path)) == as_source(source)
    assert source.read(10_000) == path.read_bytes()
    with pytest.raises(ImageError, match="bytes, at most 10 expected") as error:
        source.read(10)
    assert error.value.kind == "too large"
    assert said(Held("x", b"123"), 3) == "3" and said(Held("x", b"123"), 2) == "too large"
    assert said(File(os.path.join(tmp_path, "none.png"))) == "missing"


@pytest.mark.parametrize(
    "source", [File("a"), Held("a", b"b"), Refused("a", "missing", "not there"), Remote("s3://a/b")]
)
def test_sources_can_be_sent_to_another_process(source: Source) -> None:
    assert pickle.loads(pickle.dumps(source)) == source  # noqa: S301


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_a_million_names_cost_nothing_and_the_first_comes_at_once(tmp_path: Path) -> None:
    with open(tmp_path / "list.csv", "w") as file:
        file.write("path\n" + "".join(f"folder/{n:07}.png\n" for n in range(1_000_000)))
    program = (
        "import sys, time, resource; began = time.perf_counter(); from anomaly.inputs.sources "
        "import list_sources\n"
        "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "sources = list_sources([sys.argv[1]]); next(sources); print(time.perf_counter() - began); "
        "before = peak()\n"
        "print(1 + sum(1 for _ in sources), peak() - before)"
    )
    began = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "list.csv")],
        capture_output=True,
        text=True,
        check=True,
    )
    first, count, kilobytes = run.stdout.split()
    assert int(count) == 1_000_000 and int(kilobytes) < 5_000
    assert float(first) < (time.perf_counter() - began) / 2


def test_a_list_that_windows_wrote() -> None:
    def listed(data: bytes) -> list[str]:
        return [source.name for source in list_sources(["-"], stdin=io.BytesIO(data))]

    assert listed(b"\xef\xbb\xbfa.png\r\nb.png\r\n") == ["a.png", "b.png"]
    with pytest.raises(
        DatasetError, match="a list in UTF-16 found, UTF-8 expected: save the list as UTF-8"
    ):
        listed("a.png\r\nb.png\r\n".encode("utf-16"))
