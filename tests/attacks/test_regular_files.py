"""Small files beside images and detectors that are devices, pipes, folders or gigabytes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from anomaly.commands.main import main
from anomaly.detector.file import read_card
from anomaly.detector.signature import check_signature, sign, signature_of
from anomaly.errors import AnomalyError, DatasetError
from anomaly.files.regular_files import open_regular, read_small, read_small_text
from anomaly.files.table import COLUMNS, read_table
from anomaly.inputs.manifests import manifest_sources
from anomaly.scoring.products import read_project
from anomaly.serve.access import read_keys
from dashboard.access import read_roles
from training.checkpoint import load_checkpoint


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def gigabytes(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk


ODD: dict[str, Callable[[Path], None]] = {
    "pipe": pipe,
    "device": device,
    "folder": folder,
    "gigabytes": gigabytes,
}


def excluded(path: Path) -> None:
    from training.options import TrainOptions
    from training.sets import find_images

    images = path.with_name("images")
    images.mkdir()
    (images / "a.png").write_bytes(b"")
    find_images(TrainOptions(images=images, out=path.with_name("out"), exclude=path))


def listed(path: Path) -> None:
    from anomaly.inputs.used_images import read_listing

    read_listing(path)


def noted(path: Path) -> None:
    """The notes of checks in a run folder, read and added to."""
    from anomaly.quality.audit import note_check, read_checks

    run = path.with_name("noted")
    shutil.copytree(RUN[0], run)
    card = read_card(run)
    (run / "checks.jsonl").unlink(missing_ok=True)  # what other tests noted in the shared run
    path.rename(run / "checks.jsonl")
    if (run / "checks.jsonl").stat().st_size < 1 << 40:
        with pytest.raises((AnomalyError, OSError)):  # which the command line says in one line
            note_check(run, "", card, {})
    read_checks(run / "checks.jsonl")


RUN: list[Path] = []


@pytest.fixture(autouse=True)
def the_run(run: Path) -> None:
    RUN[:] = [run]


READERS: dict[str, Callable[[Path], object]] = {
    "a project": lambda path: read_project(path, device="cpu", max_pixels=1),
    "keys": read_keys,
    "roles": read_roles,
    "a list of images to exclude": excluded,
    "images.csv": listed,
    "a public key": lambda path: check_signature(path, b"", path),
    "a private key": lambda path: sign(path, path),
    "a checkpoint": lambda path: load_checkpoint(path),
    "checks.jsonl": noted,
    "bytes": lambda path: read_small(path, 1000),
    "text": lambda path: read_small_text(path, 1000),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("what", READERS)
def test_a_small_file_that_is_none_is_refused_in_one_line(
    what: str, odd: str, tmp_path: Path
) -> None:
    ODD[odd](tmp_path / "file")
    with pytest.raises(AnomalyError, match="expected") as caught:
        READERS[what](tmp_path / "file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("odd", ODD)
def test_a_signature_or_key_that_is_none_is_refused(odd: str, run: Path, tmp_path: Path) -> None:
    detector = tmp_path / "detector.onnx"
    shutil.copy(run / "detector.onnx", detector)
    key = tmp_path / "key.pub"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "k.pem"],
        check=True,
        capture_output=True,
    )
    subprocess.run(
        ["openssl", "pkey", "-in", tmp_path / "k.pem", "-pubout", "-out", key],
        check=True,
        capture_output=True,
    )
    ODD[odd](signature_of(detector))
    for given in (key, signature_of(detector)):
        assert main(["verify", str(detector), "--key", str(given), "--device", "cpu"]) == 1


def test_what_is_read_is_no_more_than_the_limit_however_long_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_small_text(tmp_path / "a", 11) == "a\nb\nc\n"
    assert read_small(tmp_path / "a", 10) == b"\xef\xbb\xbfa\r\nb\rc\n"
    with pytest.raises(AnomalyError, match="more than 9 bytes found"):
        read_small(tmp_path / "a", 9)
    (tmp_path / "b").write_bytes(b"ab\xff")
    with pytest.raises(AnomalyError, match=r"not UTF-8 \(byte 2\)"):
        read_small_text(tmp_path / "b", 8)
    with pytest.raises(AnomalyError, match="cannot be read"):
        open_regular(tmp_path / "none\0")


# --- tables ---
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("odd", ["pipe", "device", "folder"])
def test_a_table_or_manifest_that_is_no_file_is_refused(
    odd: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"table{suffix}"
    ODD[odd](path)
    with pytest.raises(AnomalyError, match="a file expected"):
        next(read_table(path))
    if suffix != ".jsonl":
        with pytest.raises(DatasetError, match="expected"):
            next(manifest_sources(str(path), 1000))


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b"{}", b'{"path": 1}', b"[]", b'"x"', b"{" + b" " * (1 << 21)]
)
def test_a_line_of_json_that_is_no_row_is_refused(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "table.jsonl").write_bytes(line + b"\n")
    with pytest.raises(AnomalyError, match="not a score table, or a damaged one") as caught:
        list(read_table(tmp_path / "table.jsonl"))
    assert "\n" not in str(caught.value) and len(COLUMNS) > 10
