"""Reads what belongs together: which image is normal, which is for training, which come from the same part.

Three forms of a data set:

    a folder of images      all normal; if it has a folder `good`, the folders beside it name defects
    the layout of MVTec AD  train/good, test/good, test/<defect>, and masks ground_truth/<defect>/<stem>_mask.png
    a manifest              .csv or .parquet with `path` (relative to the manifest), and where known `split`
                            ("train" or "test"), `label` ("good" or a defect), `group` and `mask` (else looked for
                            in ground_truth/<label> beside the manifest)
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anomaly import listing
from anomaly.errors import DatasetError, RuntimeMissing
from anomaly.images import find_images, head_of, is_ours
from anomaly.listing import Passed, count, passed_text, wanted

COLUMNS = ("path", "split", "label", "group", "mask")
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Record:
    """One image of a data set.

    ``label`` is "good" for a normal image and otherwise names the defect; ``split`` is "train", "test" or None;
    images of one ``group`` are not independent of each other; ``mask`` is the picture of the defect's pixels.
    """

    path: Path
    split: str | None
    label: str | None
    group: str
    mask: Path | None


def read_dataset(images: Path, group_by: str | None = None, passed: Passed | None = None) -> list[Record]:
    """Returns the records of a folder or manifest, in a fixed order (that of the manifest, else by path).

    ``group_by`` is a regular expression whose first group (or the whole match) in the path, relative to the folder
    or as it stands in the manifest, names the group. Without it, and without a column `group`, each image is its
    own group, named by that path. Images that are not there are kept: scoring them gives rows that say so. ``passed``
    counts, by kind, what folders hold besides images.
    """
    pattern, passed = _pattern(group_by), Counter() if passed is None else passed
    if images.is_dir():
        records = list(_folder(images, pattern, passed))
    elif images.suffix.lower() in (".csv", ".parquet") and images.exists():
        records = list(_manifest(images, pattern))
    elif images.exists():
        raise DatasetError(f"{images}: a file found, a folder of images or a .csv or .parquet manifest expected")
    else:
        raise DatasetError(f"{images}: no such folder or manifest: check the path")
    if not records:
        beside = f" ({passed_text(passed)} found)" if passed else ""
        raise DatasetError(f"{images}: no images found{beside}, rows or files ending in .jpg, .png, .bmp, .tif, .webp expected")
    return records


def normal_training(records: Iterable[Record]) -> list[Record]:
    """Returns the normal images of the split "train"; of all records if none has a split. `DatasetError` if none."""
    records = list(records)
    chosen = [r for r in _of_split(records, "train") if r.label in ("good", None)]
    if not chosen:
        found = sorted({f"{r.split or 'no split'}/{r.label or 'no label'}" for r in records})
        shown = ", ".join(found[:10]) or "nothing"
        raise DatasetError(f"no normal training image: {shown} found, train/good (or no split, label good) expected")
    return chosen


def labelled_test(records: Iterable[Record]) -> list[Record]:
    """Returns the labelled images of the split "test"; of all records if none has a split. May be empty."""
    return [r for r in _of_split(list(records), "test") if r.label is not None]


def _of_split(records: list[Record], split: str) -> list[Record]:
    whole = all(r.split is None for r in records)
    return [r for r in records if whole or r.split == split]


# ---- groups ----


def _pattern(group_by: str | None) -> re.Pattern[str] | None:
    try:
        return None if group_by is None else re.compile(group_by)
    except re.error as error:
        raise DatasetError(f"--group-by {group_by!r} found, a regular expression expected: {error}") from error


def _group(path: str, given: str | None, pattern: re.Pattern[str] | None) -> str:
    if pattern is None:
        return given or path
    match = pattern.search(path)
    group = match[1 if pattern.groups else 0] if match else None
    if group is None:
        raise DatasetError(f"--group-by {pattern.pattern!r} does not match {path!r}: every path must name its group")
    return group


# ---- folders ----


def _folder(root: Path, pattern: re.Pattern[str] | None, passed: Passed) -> Iterator[Record]:
    splits = [split for split in SPLITS if (root / split).is_dir()]
    if any((root / split / "good").is_dir() for split in splits):
        for split in splits:
            yield from _labelled(root, root / split, split, pattern, passed)
    elif splits:  # taken for a plain folder, its defects would pass for normal images
        raise DatasetError(f"{root}: folder {splits[0]} without {splits[0]}/good found, train/good expected: rename it")
    elif (root / "good").is_dir():
        yield from _labelled(root, root, None, pattern, passed)
    else:
        for path in find_images(root, passed):
            yield Record(path, None, "good", _group(path.relative_to(root).as_posix(), None, pattern), None)


def _labelled(root: Path, parent: Path, split: str | None, pattern: re.Pattern[str] | None, passed: Passed) -> Iterator[Record]:
    """Yields the images of a folder whose folders are labels."""
    for folder in sorted(parent.iterdir()):
        label = folder.name
        if folder == root / "ground_truth" or label == listing.MARK:
            continue
        if label.startswith(".") or (folder.is_dir() and is_ours(str(folder))):
            count(passed, listing.OURS if label[0] != "." else listing.HIDDEN_FOLDER if folder.is_dir() else listing.HIDDEN)
            continue
        if folder.is_dir():
            for path in find_images(folder, passed):
                group = _group(path.relative_to(root).as_posix(), None, pattern)
                yield Record(path, split, label, group, _mask(root, label, path.relative_to(folder)))
        elif wanted(label, partial(head_of, str(folder)), passed):
            raise DatasetError(f"{folder}: an image beside the folder good has no label: move it into a folder")


def _mask(root: Path, label: str | None, image: Path) -> Path | None:
    """Returns the mask of ``image`` (relative to its label's folder) if there is one."""
    if label in (None, "good"):
        return None
    beside = root / "ground_truth" / str(label) / image.parent
    names = (f"{image.stem}_mask.png", f"{image.stem}.png")
    return next((beside / name for name in names if (beside / name).is_file()), None)


# ---- manifests ----

Row = dict[str, str | None]


def _manifest(path: Path, pattern: re.Pattern[str] | None) -> Iterator[Record]:
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _parquet_rows(path)
    first: dict[str, str] = {}  # where each path stood first
    for where, row in rows:
        record = _record(path.parent, row, f"{path}, {where}", pattern)
        same = os.path.normpath(record.path)
        if same in first:
            raise DatasetError(f"{path}, {where}: {row['path']!r} stands in {first[same]} already: remove one of them")
        first[same] = where
        yield record


def _record(root: Path, row: Row, where: str, pattern: re.Pattern[str] | None) -> Record:
    path, split, label = row["path"], row.get("split") or None, row.get("label") or None
    if not path:
        raise DatasetError(f"{where}: no path found, one expected in every row")
    if split not in (None, *SPLITS):
        raise DatasetError(f"{where}: split {split!r} found, 'train', 'test' or nothing expected")
    given = row.get("mask")
    mask = root / given if given else _mask(root, label, Path(Path(path).name))
    return Record(root / path, split, label, _group(path, row.get("group"), pattern), mask)


def _check_columns(path: Path, found: list[str]) -> None:
    if "path" not in found:
        shown = ", ".join(repr(name) for name in found[:20]) or "none"
        raise DatasetError(f"{path}: columns {shown} found, 'path' expected among them")
    twice = next((name for name in found if found.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(f"{path}: column {twice!r} found twice, once expected")


def _csv_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yields where a row stands and its cells. Names that are not UTF-8 come through as the file system has them."""
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            _check_columns(path, header)
            for cells in lines:
                where = f"line {lines.line_num}"
                if cells and len(cells) != len(header):
                    raise DatasetError(f"{path}, {where}: {len(cells)} cells found, {len(header)} expected")
                if cells:
                    yield where, dict(zip(header, cells, strict=True))
    except (csv.Error, OSError) as error:
        raise DatasetError(f"{path}: cannot be read as CSV ({error})") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise RuntimeMissing.extra("pyarrow", "batch", "a Parquet manifest") from error
    try:
        found = pyarrow.parquet.read_schema(path).names
        _check_columns(path, found)
        table = pyarrow.parquet.read_table(path, columns=[name for name in COLUMNS if name in found])
        rows = table.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())[:200]})") from error
    for number, row in enumerate(rows, 1):
        yield f"row {number}", {name: _text(value) for name, value in row.items()}


def _text(value: object) -> str | None:
    if value is None or value != value:  # pandas writes NaN where a text is missing
        return None
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)
