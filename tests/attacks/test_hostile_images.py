from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anomaly.errors import ImageError
from anomaly.imaging.decode import Decoded, DecodeRule, decode
from anomaly.imaging.find import find_images
from anomaly.imaging.listing import is_image_name
from tests.attacks.corpus import OK, encoded, files, picture, write_corpus

KINDS = {
    "missing",
    "unreadable",
    "empty",
    "not an image",
    "truncated",
    "damaged",
    "unsupported",
    "too large",
}
KINDS |= {"not finite", "not a file", "several pages"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict[Path, str]:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def outcome(source: Path | bytes) -> str:
    try:
        decoded = decode(source)
    except ImageError as error:
        assert "\n" not in str(error)
        return error.kind
    return f"ok {decoded.width}x{decoded.height}"


def test_every_odd_image_has_the_outcome_that_was_expected(corpus):
    expected = {path.name: kind for path, kind in corpus.items()}
    assert {path.name: outcome(path) for path in corpus} == expected
    assert set(expected.values()) - {"not a file", "unreadable", "missing"} <= KINDS | {
        OK, "ok 32x48", "ok 1x1", "ok 1x20000", "ok 20000x1"
    }  # fmt: skip


def test_a_search_of_the_corpus_finds_every_file_once_and_ends(corpus):
    folder = next(iter(corpus)).parent
    no_files = {folder / "folder.png", folder / "never_there.png"}
    listed = {path for path in corpus if is_image_name(path.name)} - no_files
    assert find_images(folder) == sorted(listed, key=str)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_the_corpus_needs_little_memory_and_time(corpus):
    """In a process of its own: the bombs would take gigabytes and minutes if they went off."""
    program = (
        "import sys; from pathlib import Path; from anomaly.imaging.decode import decode\n"
        "from anomaly.errors import ImageError\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: decode(path)\n"
        "    except ImageError: pass\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    started = time.perf_counter()
    command = [sys.executable, "-c", program, str(next(iter(corpus)).parent)]
    peak = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert int(peak) < 300_000  # KB; getrusage would count the parent's memory before the start
    assert time.perf_counter() - started < 30


def test_a_pipe_with_a_waiting_writer_is_not_touched(tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(ImageError, match="is a pipe or a device") as refused:
        decode(pipe)
    assert refused.value.kind == "not a file"


def test_a_file_that_vanishes_and_comes_back_is_missing_or_whole(tmp_path):
    path, aside = tmp_path / "part.png", tmp_path / "aside"
    path.write_bytes(encoded(picture(), "PNG"))
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            path.rename(aside)
            aside.rename(path)

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        outcomes = {outcome(path) for _ in range(500)}
    finally:
        stop.set()
        other.join()
    assert outcomes <= {OK, "missing"}


def test_a_file_that_is_being_written_is_whole_or_an_error(tmp_path):
    path = tmp_path / "part.bmp"
    content = encoded(picture(), "BMP")
    for length in range(0, len(content) + 1, 97):
        path.write_bytes(content[:length])
        assert outcome(path) in {OK, "empty", "truncated", "not an image"}


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_what_may_not_be_read_is_unreadable(tmp_path):
    path = tmp_path / "locked.png"
    path.write_bytes(encoded(picture(), "PNG"))
    path.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65534)  # root may read everything
        try:
            assert outcome(path) == "unreadable"
        finally:
            os.seteuid(0)
    else:
        assert outcome(path) == "unreadable"


def test_a_name_with_a_zero_byte_is_unreadable():
    with pytest.raises(
        ImageError, match=r"^a\\x00\.png: cannot be read \(embedded null byte\)"
    ) as refused:
        decode("a\0.png")
    assert refused.value.kind == "unreadable"


# ---- random and mutated files ----

FILES = [
    content
    for name, content, expected in files()
    if 0 < len(content) < 20_000 and "cut" not in name
]
BEGINNINGS = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"RIFF\x40\0\0\0WEBP",
    b"",
]


def check_is_decoded_or_refused(data: bytes) -> None:
    try:
        decoded = decode(data, max_pixels=4_000_000)
    except ImageError as error:
        assert error.kind in KINDS
        assert str(error).startswith("image: ") and "\n" not in str(error) and len(str(error)) < 300
        return
    assert isinstance(decoded, Decoded)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.shape == (decoded.height, decoded.width, 3)
    assert decoded.bits in (8, 10, 12, 14, 16)
    assert not decoded.grey or (decoded.pixels == decoded.pixels[..., :1]).all()


@given(st.sampled_from(BEGINNINGS), st.binary(max_size=300))
@example(b"BM", b"\0" * 12 + b"\x28\0\0\0" + b"\xff" * 60)
def test_random_bytes(beginning, rest):
    check_is_decoded_or_refused(beginning + rest)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A file with a few of its pieces overwritten, taken out, doubled or put in."""
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)) | st.integers(0, min(len(data), 64)))
        length = draw(st.integers(0, 16))
        piece = draw(
            st.binary(max_size=8)
            | st.just(bytes(data[at : at + length]))
            | st.just(b"\xff" * length)
        )
        data[at : at + draw(st.sampled_from([0, len(piece), length]))] = piece
    return bytes(data)


@given(mutated())
def test_mutated_files(data):
    check_is_decoded_or_refused(data)


@given(mutated(), st.integers(1, 64))
def test_mutated_files_at_reduced_scale(data, size):
    try:
        decoded = decode(
            data, DecodeRule(reduced=True, bits=12), max_pixels=4_000_000, reduce_to=size
        )
    except ImageError:
        return
    height, width = decoded.pixels.shape[:2]
    assert height >= min(size, decoded.height) and width >= min(size, decoded.width)
