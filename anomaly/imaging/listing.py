"""What a folder or archive holds: images, what may be one, and the rest, which is counted by kind.

The suffix of an image decides, so that a million of them are listed without opening a file:

    suffix of an image             listed, the formats too that are not read here: each gets its row
    under which a program writes   counted (.part, .tmp)
    another one, or none           the first bytes decide: an image called .txt is one
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

READ_SUFFIXES = frozenset(
    (
        ".jpg .jpeg .jpe .jfif .jfi .jif .pjpeg .pjp .mpo .png .apng .bmp .dib .tif .tiff .webp "
        ".gif .pgm .ppm .pbm .pnm"
    ).split()
)
# Images all the same, of formats that are not read: nobody may take them for inspected.
NOT_READ = frozenset(
    (
        ".heic .heif .hif .heics .heifs .avif .avifs .jxl .jp2 .j2k .j2c .jpc .jpf .jpx .jpm .jph "
        ".jhc .jxr .wdp .hdp .jls .dng .nef .nrw .cr2 .cr3 .crw .arw .srf .sr2 .orf .ori .rw2 .raf "
        ".pef .srw .x3f .iiq .3fr .fff .erf .mrw .mef .mos .kdc .dcr .dcs .rwl .gpr .cap .raw .dcm "
        ".dicom .psd .psb .exr .tga .pcx .pam .pfm .dds .qoi .ico .cur .icns .sgi .rgb .xcf .xbm "
        ".xpm .jng .mng .bpg .flif .btf .tf8 .svs .ndpi .lsm .czi .nd2 .fits"
    ).split()
)
# A program is still writing them: they are images once they have their own names.
UNFINISHED_SUFFIXES = frozenset(
    ".part .partial .tmp .temp .crdownload .download .filepart .swp .lock".split()
)
# Beside images in buckets there may be as many of these, and each look into one would be a request.
SIDECARS = frozenset(
    ".txt .json .jsonl .csv .tsv .xml .yaml .yml .md .html .log .parquet .npy .zip .tar .gz".split()
)
HEAD = 132  # bytes that tell what a file is: DICOM has its mark behind 128 others
# a file that says of its folder: written by this program, no images to judge
MARK = ".anomaly-output"
MAX_SUFFIX_CHARACTERS = 10
# What ends with #3 in a manifest may be its third row.
PAGE = re.compile(
    r"(?P<file>.+?)(?<!\.csv)(?<!\.parquet)#(?P<page>[1-9]\d{0,4})", re.DOTALL | re.IGNORECASE
)
MOST_KINDS, KINDS_SAID = 500, 12

# How files of the formats that are read begin. They are those of `pillow.READERS`.
HEADS: dict[str, re.Pattern[bytes]] = {
    name: re.compile(head, re.DOTALL)
    for name, head in {
        "JPEG": rb"\xff\xd8\xff",
        "PNG": rb"\x89PNG\r\n\x1a\n",
        "BMP": rb"BM.{12}[\x0c(48@l|]\0\0\0",
        "TIFF": rb"II[*+]\0|MM\0[*+]",
        "WEBP": rb"RIFF.{4}WEBP",
        "GIF": rb"GIF8[79]a",
        "PPM": rb"P[1-6]\s[\s\d#]",
        "DIB": rb"\x28\0\0\0.{8}\x01\0[\x01\x04\x08\x10\x18\x20]\0",
    }.items()
}
NOT_READ_HEADS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (name, re.compile(head, re.DOTALL))
    for name, head in (
        ("AVIF", rb".{4}ftypavi[fs]"),
        (
            "a camera's raw format",
            rb".{4}ftypcrx |FUJIFILMCCD-RAW|II(RO|RS|U\0)|MMOR|II\x1a\0\0\0HEAP|FOVb|\0MRM",
        ),
        ("HEIC", rb".{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1)"),
        ("JPEG XL", rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a"),
        ("JPEG 2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
        ("JPEG XR", rb"II\xbc[\0\1]"),
        ("DICOM", rb".{128}DICM"),
        ("Photoshop", rb"8BPS"),
        ("OpenEXR", rb"v/1\x01"),
        ("Radiance HDR", rb"#\?(RADIANCE|RGBE)"),
        ("PAM or PFM", rb"P7\n|P[Ff]\n"),
        ("DDS", rb"DDS \x7c\0\0\0"),
        ("QOI", rb"qoif"),
        ("an icon", rb"icns"),
        ("GIMP's own format", rb"gimp xcf"),
        ("BPG", rb"BPG\xfb"),
        ("MNG", rb"\x8aMNG|\x8bJNG"),
        ("FITS", rb"SIMPLE  ="),
        ("a microscope's format", rb"ZISRAWFILE|\xda\xce\xbe\x0a"),
    )
)

Passed: TypeAlias = "Counter[str]"  # kind -> how many were passed over

HIDDEN, HIDDEN_FOLDER, OURS, AGAIN = (
    "hidden file",
    "hidden folder",
    "folder written by anomaly",
    "folder listed before",
)
MASK, NO_SUFFIX, EMPTY, DANGLING = "mask", "file without suffix", "empty file", "link to nothing"
DEVICE, UNREADABLE, NUMBERED, ODD = (
    "pipe or device",
    "unreadable file",
    "numbered suffix",
    "other suffix",
)
SEVERAL_PAGES = {
    HIDDEN: "hidden files",
    HIDDEN_FOLDER: "hidden folders",
    OURS: "folders written by anomaly",
    AGAIN: "folders listed before",
    MASK: "masks",
    NO_SUFFIX: "files without suffix",
    EMPTY: "empty files",
    DANGLING: "links to nothing",
    DEVICE: "pipes or devices",
    UNREADABLE: "unreadable files",
    NUMBERED: "numbered suffixes",
    ODD: "other suffixes",
}


def is_image_name(name: str) -> bool | None:
    """Returns whether a file of this name is an image; None where only its first bytes can tell."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in READ_SUFFIXES or suffix in NOT_READ:
        return True
    return (
        False
        if suffix in UNFINISHED_SUFFIXES or name.endswith("~") or name.lower() == "thumbs.db"
        else None
    )


def format_not_read(head: bytes) -> str | None:
    """Returns the name of an image format that is not read here, by a file's first bytes; None for
    all others.
    """
    return next((name for name, pattern in NOT_READ_HEADS if pattern.match(head)), None)


def is_image_head(head: bytes) -> bool:
    """Returns whether a file begins as an image does, also one of a format that is not
    read here.
    """
    return (
        any(pattern.match(head) for pattern in HEADS.values()) or format_not_read(head) is not None
    )


def wanted(name: str, head: Callable[[], bytes | str], passed: Passed) -> bool:
    """Returns whether a file is to be listed, and else counts it.

    ``head`` returns its first bytes, or the kind of what has none; it is called only where the name
    does not decide.
    """
    if name.startswith("."):
        count(passed, HIDDEN)
        return False
    decided = is_image_name(name)
    if decided:
        return True
    found = head() if decided is None else kind_of(name)
    if isinstance(found, str):
        count(passed, found)
        return False
    if found and is_image_head(found):
        return True
    count(passed, kind_of(name) if found else EMPTY)
    return False


def kind_of(name: str) -> str:
    """Returns under what a file that is no image is counted: its suffix, as far as that is one."""
    suffix = os.path.splitext(name)[1].lower()
    if len(suffix) < 2:
        return NO_SUFFIX
    if suffix[1:].isdecimal():
        return NUMBERED
    plain = len(suffix) <= MAX_SUFFIX_CHARACTERS and re.fullmatch(r"\.[\w~+-]+", suffix) is not None
    return suffix if plain and suffix.isprintable() else ODD


def count(passed: Passed, kind: str) -> None:
    """Counts one more of a kind; kinds beyond the first few hundred count together."""
    passed[kind if kind in passed or len(passed) < MOST_KINDS else ODD] += 1


def passed_text(passed: Passed | dict[str, int]) -> str:
    """Returns what was passed over in words, the most first: "3 .txt, 1 .json, 2 hidden files"."""
    kinds = sorted(passed.items(), key=lambda item: (-item[1], item[0]))
    said = [
        f"{n:,} {kind if n == 1 else SEVERAL_PAGES.get(kind, kind)}"
        for kind, n in kinds[:KINDS_SAID]
    ]
    rest = sum(n for _, n in kinds[KINDS_SAID:])
    return ", ".join(
        [*said, f"{rest:,} of {len(kinds) - KINDS_SAID} other kinds"] if rest else said
    )


# ---- names of pages ----


def page_name(file: str, page: int | None) -> str:
    """Returns what a page is called; None: the only one of its file."""
    return file if page is None else f"{file}#{page}"


def file_and_page(name: str) -> tuple[str, int | None]:
    """Returns the file of a name, and the page of it where the name is one of a page."""
    match = PAGE.fullmatch(name)
    return (match["file"], int(match["page"])) if match else (name, None)
