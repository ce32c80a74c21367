from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.inputs.archives import TarMember
from anomaly.inputs.remote import Remote
from anomaly.inputs.source import Held, Source
from anomaly.inputs.sources import list_sources
from tests.attacks.corpus import encoded, picture
from tests.inputs.test_sources import said

PNG = encoded(picture(), "PNG")
MEMBERS = {
    "b.png": PNG,
    "a/1.JPG": PNG + b"1",
    "a/1.txt": b"text",
    "a/.hidden.png": b"",
    "__MACOSX/._b.png": b"",
    "../up.png": PNG,
    "=1+1.png": PNG,
    "not\n one line.png": PNG,
}
LISTED = ["b.png", "a/1.JPG", "../up.png", "=1+1.png", "not\n one line.png"]
TARS = {".tar": "", ".tar.gz": "gz", ".tgz": "gz", ".tar.bz2": "bz2", ".tar.xz": "xz"}


def write_zip(
    path: Path, members: dict[str, bytes] = MEMBERS, kind: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.mkdir("folder.png")
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, members: dict[str, bytes] = MEMBERS, compression: str = "") -> Path:
    with tarfile.open(path, f"w:{compression}") as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def listed(archive: Path, limit: int = 1 << 20) -> list[Source]:
    return list(list_sources([archive], limit=limit))


def outcomes(archive: Path, limit: int = 1 << 20) -> dict[str, str]:
    return {source.name.split("::")[0]: said(source, limit) for source in listed(archive, limit)}


def write(path: Path) -> Path:
    return (
        write_zip(path)
        if path.suffix == ".zip"
        else write_tar(path, compression=TARS["".join(path.suffixes)])
    )


@pytest.mark.parametrize("suffix", [".zip", *TARS])
def test_images_of_an_archive_in_its_order(tmp_path: Path, suffix: str) -> None:
    archive = write(tmp_path / f"x{suffix}")
    protocol = "zip" if suffix == ".zip" else "tar"
    found = listed(archive)
    assert [source.name for source in found] == [
        f"{protocol}://{name}::{archive}" for name in LISTED
    ]
    with ThreadPoolExecutor(4) as pool:  # in any order, at the same time, and by another process
        again = (pickle.loads(pickle.dumps(source)) for source in found[::-1])  # noqa: S301
        read = list(pool.map(lambda source: source.read(1 << 20), again))
    assert read[::-1] == [MEMBERS[name] for name in LISTED]
    again = list(list_sources([found[0].name, found[1].name]))  # what stands in the table
    assert again == [Remote(found[0].name), Remote(found[1].name)]
    if suffix != ".tgz":  # fsspec does not take it for compressed
        assert [source.read(1 << 20) for source in again] == [PNG, PNG + b"1"]


def test_only_a_compressed_tar_brings_its_bytes(tmp_path: Path) -> None:
    assert {type(source) for source in listed(write(tmp_path / "x.tar"))} == {TarMember}
    assert {type(source) for source in listed(write(tmp_path / "x.tgz"))} == {Held}
    (tmp_path / "y.tar").write_bytes((tmp_path / "x.tgz").read_bytes())  # named wrongly
    assert {type(source) for source in listed(tmp_path / "y.tar")} == {Held}


@pytest.mark.parametrize("suffix", [".zip", *TARS])
def test_an_archive_without_images_damaged_or_not_there_has_a_row(
    tmp_path: Path, suffix: str
) -> None:
    archive = tmp_path / f"x{suffix}"
    assert outcomes(archive) == {str(archive): "missing"}
    for content in (b"", b"no archive", PNG):
        archive.write_bytes(content)
        assert outcomes(archive) == {str(archive): "damaged"}
    write_zip(archive, {}) if suffix == ".zip" else write_tar(
        archive, {"a.txt": b"1"}, TARS[suffix]
    )
    assert outcomes(archive) == {str(archive): "empty"}


@pytest.mark.parametrize("suffix", [".zip", *TARS])
def test_what_an_archive_that_was_cut_off_still_holds(tmp_path: Path, suffix: str) -> None:
    archive = write(tmp_path / f"x{suffix}")
    content = archive.read_bytes()
    for tenth in range(1, 10):
        archive.write_bytes(content[: len(content) * tenth // 10])
        found = list(outcomes(archive).items())
        whole = list(takewhile(lambda item: item[1].isdigit(), found))
        assert whole == [
            (f"{'zip' if suffix == '.zip' else 'tar'}://{name}", str(len(MEMBERS[name])))
            for name in LISTED[: len(whole)]
        ]
        # of a tar only zeros may be missing
        assert {kind for _, kind in found[len(whole) :]} in (
            {"damaged"},
            {"truncated", "damaged"},
        ) or len(whole) == len(LISTED)


def test_a_zip_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    assert said(listed(write_zip(tmp_path / "x.zip", {"a.png": b"1"}))[0]) == "1"
    assert said(listed(write_zip(tmp_path / "x.zip", {"a.png": b"123"}))[0]) == "3"


@pytest.mark.parametrize(
    "kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_zip_bombs_are_refused_by_what_they_claim_and_stopped_at_it(
    tmp_path: Path, kind: int
) -> None:
    archive = write_zip(tmp_path / "x.zip", {"bomb.png": bytes(50_000_000), "good.png": PNG}, kind)
    assert outcomes(archive) == {"zip://bomb.png": "too large", "zip://good.png": str(len(PNG))}
    content = bytearray(archive.read_bytes())
    # the directory: behind the entry of folder.png
    at = content.index(b"PK\1\2", content.index(b"PK\1\2") + 1)
    struct.pack_into("<I", content, at + 24, 1000)  # now it claims to be small
    archive.write_bytes(bytes(content))
    assert outcomes(archive) == {"zip://bomb.png": "damaged", "zip://good.png": str(len(PNG))}


def test_a_zip_member_may_have_no_name(tmp_path: Path) -> None:  # found by the fuzzer
    archive = write_zip(tmp_path / "x.zip", {"b": b"", "a.png": b"1"})
    content = bytearray(archive.read_bytes())
    # the directory: behind the entry of folder.png
    at = content.index(b"PK\1\2", content.index(b"PK\1\2") + 1)
    struct.pack_into("<HH", content, at + 28, 0, 1)  # its one letter is now something else
    archive.write_bytes(bytes(content))
    assert outcomes(archive) == {"zip://a.png": "1"}


def test_zip_members_that_are_damaged_or_encrypted(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "x.zip", {"a.png": PNG, "b.png": PNG}, zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    content[content.index(PNG) + 50] ^= 1
    archive.write_bytes(bytes(content))
    assert outcomes(archive) == {"zip://a.png": "damaged", "zip://b.png": str(len(PNG))}
    with zipfile.ZipFile(archive) as opened:
        entry = opened.getinfo("b.png").header_offset
    content[entry + 6] |= 1  # "encrypted", as the member says and as the directory does
    content[content.rindex(b"PK\1\2") + 8] |= 1
    archive.write_bytes(bytes(content))
    assert outcomes(archive)["zip://b.png"] == "unsupported"


@pytest.mark.parametrize("suffix", TARS)
def test_tar_bombs(tmp_path: Path, suffix: str) -> None:
    archive = write_tar(
        tmp_path / f"x{suffix}",
        {"a.png": PNG, "bomb.png": bytes(5_000_000), "b.png": PNG},
        TARS[suffix],
    )
    found = outcomes(archive)
    if suffix == ".tar":
        assert found == {
            "tar://a.png": str(len(PNG)),
            "tar://bomb.png": "too large",
            "tar://b.png": str(len(PNG)),
        }
    else:  # what lies behind can only be reached through the bomb
        assert found == {"tar://a.png": str(len(PNG)), str(archive): "too large"}


def test_links_and_devices_in_a_tar_have_rows(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for kind in (
            tarfile.SYMTYPE,
            tarfile.LNKTYPE,
            tarfile.FIFOTYPE,
            tarfile.CHRTYPE,
            tarfile.DIRTYPE,
        ):
            header = tarfile.TarInfo(f"{kind.decode()}.png")
            header.type, header.linkname = kind, "/etc/passwd"
            archive.addfile(header)
    assert outcomes(tmp_path / "x.tar") == dict.fromkeys(
        ["tar://2.png", "tar://1.png", "tar://6.png", "tar://3.png"], "not a file"
    )


def header(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = (
        (b"\x80" + size.to_bytes(11, "big"))
        if size >= 0
        else (size + (1 << 96)).to_bytes(12, "big")
    )
    raw[148:156] = b" " * 8
    raw[148:155] = b"%06o\0" % sum(raw)
    return bytes(raw)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
def test_endless_headers_of_a_tar_are_not_read(
    tmp_path: Path, kind: bytes, pack: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "x.tar").write_bytes(
        pack(header("a.png", tarfile.REGTYPE, 0) + header("x", kind, 1 << 40) + bytes(100_000))
    )
    assert list(outcomes(tmp_path / "x.tar").values()) == ["0", "damaged"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_tar_does_not_go_round_in_circles(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    first = header("a.png", tarfile.REGTYPE, 0)
    (tmp_path / "x.tar").write_bytes(
        pack(first + header("b.png", tarfile.REGTYPE, -1024) + bytes(2048))
    )
    assert list(outcomes(tmp_path / "x.tar").values()) == ["0", "damaged"]
    record = b"15 size=-1024\n"
    extended = header("x", tarfile.XHDTYPE, len(record)) + record.ljust(512, b"\0")
    (tmp_path / "x.tar").write_bytes(
        pack(first + extended + header("b.png", tarfile.REGTYPE, 0) + bytes(2048))
    )
    assert list(outcomes(tmp_path / "x.tar").values()) == ["0", "damaged"]


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
@settings(max_examples=60)
@given(data=st.data())
def test_any_damage_to_an_archive_ends_in_rows(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    archive = tmp_path_factory.mktemp("damaged") / f"x{suffix}"
    content = bytearray(write(archive).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    archive.write_bytes(bytes(content))
    assert outcomes(archive)
