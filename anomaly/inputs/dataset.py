"""Reads what belongs together: which image is normal, which is for training, which come from the
same part.

Three forms of a data set:

    a folder of images      all normal; if it has a folder `good` (or OK, pass, gut ...: `labels`),
                            the folders beside it name defects (`folders` says how far)
    the layout of MVTec AD  train/good, test/good, test/<defect>, and masks
                            ground_truth/<defect>/<stem>_mask.png
    a manifest              .csv, .tsv, .txt or .parquet with `path` (relative to the manifest), and
                            where known `split` ("train" or "test"), `label` ("good" or another word
                            for it, or a defect), `group` and `mask` (else looked for in
                            ground_truth/<label> beside the manifest)
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from anomaly.errors import DatasetError, RuntimeMissing
from anomaly.files.csv_cells import unguarded
from anomaly.files.delimited import existing_path, foreign_drive, plain_text, read_delimited
from anomaly.files.parquet_files import TooLarge, read_parquet
from anomaly.files.regular_files import open_regular
from anomaly.imaging.listing import Passed, passed_text
from anomaly.inputs.folders import SPLITS, Placed, counted, placed_images
from anomaly.inputs.labels import GOOD, folded, is_named, kind_of, sides_of

COLUMNS = ("path", "split", "label", "group", "mask")
ROWS = 10_000  # of a Parquet manifest, held at a time
Say = Callable[[str], None]


@dataclass(frozen=True)
class Record:
    """One image of a data set.

    ``label`` is "good" for a normal image and otherwise names the defect; ``split`` is "train",
    "test" or None; images of one ``group`` are not independent of each other; ``mask`` is the
    picture of the defect's pixels. ``named``: the folder or label as its owner named it, which
    decided on ``label``.
    """

    path: Path
    split: str | None
    label: str | None
    group: str
    mask: Path | None
    named: str = field(default="", compare=False)


def read_dataset(
    images: Path,
    group_by: str | None = None,
    passed: Passed | None = None,
    good: Sequence[str] = (),
    *,
    plain: str | None = GOOD,
    say: Say | None = None,
) -> list[Record]:
    """Returns the records of a folder or manifest, in a fixed order (that of the manifest, else by
    path).

    ``group_by`` is a regular expression whose first group (or the whole match) in the path,
    relative to the folder or as it stands in the manifest, names the group. Without it, and without
    a column `group`, each image is its own group, named by that path. Images that are not there are
    kept: scoring them gives rows that say so. ``passed`` counts, by kind, what folders hold besides
    images; without it `say` gets a line on these.

    ``good``: names of folders or labels that stand for good images, instead of the words known for
    it. ``plain``: the label of images of a folder of which no name says more; unless it is "good",
    names that leave it in doubt are not refused. ``say`` gets a line for images that are not read.
    """
    pattern, said = _pattern(group_by), passed is not None  # by who counts
    passed = Counter() if passed is None else passed
    if images.is_dir():
        found = list(placed_images(images, good, passed=passed, plain=plain, say=say))
        records = [_placed(images, one, pattern) for one in found]
        if say is not None and passed and not said:
            say(f"passed over: {passed_text(passed)}")
    elif images.suffix.lower() in (".csv", ".tsv", ".txt", ".parquet") and images.exists():
        records = _with_labels(
            images, list(_manifest(images, pattern)), good, refuse=plain is not None
        )
    elif images.exists():
        raise DatasetError(
            f"{images}: a file found, a folder of images or a .csv, .tsv, .txt or .parquet "
            "manifest expected"
        )
    else:
        raise DatasetError(f"{images}: no such folder or manifest: check the path")
    if not records:
        beside = f" ({passed_text(passed)} found)" if passed else ""
        raise DatasetError(
            f"{images}: no images found{beside}, rows or files ending in .jpg, .png, .bmp, .tif, "
            ".webp expected"
        )
    return records


def normal_training(records: Iterable[Record], say: Say | None = None) -> list[Record]:
    """Returns the normal images of the split "train"; of all records if none has a split.
    `DatasetError` if none.

    Images without a label are normal only where no image of the split is labelled good. ``say``
    gets a line on what was taken and what was not, by folder or label.
    """
    records = list(records)
    of_split = _of_split(records, "train")
    taken = (GOOD,) if any(r.label == GOOD for r in of_split) else (GOOD, None)
    chosen = [r for r in of_split if r.label in taken]
    if not chosen:
        found = sorted({f"{r.split or 'no split'}/{r.label or 'no label'}" for r in records})
        shown = ", ".join(found[:10]) or "nothing"
        raise DatasetError(
            f"no normal training image: {shown} found, train/good (or no split, label good) "
            "expected"
        )
    if None in taken and any(r.label is not None for r in of_split):
        raise DatasetError(
            f"labels found: {_named(r for r in of_split if r.label is not None)}, and "
            f"{len(chosen)} images without a label, which may be good or not: label the good ones "
            "good"
        )
    if say is not None:
        _say_chosen(say, chosen, records)
    return chosen


def labelled_test(records: Iterable[Record], say: Say | None = None) -> list[Record]:
    """Returns the labelled images of the split "test"; of all records if none has a split. May be
    empty.

    ``say`` gets a line on what is read as good, what as a defect, and what is left out.
    """
    records = list(records)
    chosen = [r for r in _of_split(records, "test") if r.label is not None]
    if say is not None and chosen:
        _say_chosen(say, [r for r in chosen if r.label == GOOD], chosen, "read as defects")
        left = [r for r in records if r not in chosen]
        if left:
            say(f"not evaluated: {_named(left)}")
    return chosen


def _of_split(records: list[Record], split: str) -> list[Record]:
    whole = all(r.split is None for r in records)
    return [r for r in records if whole or r.split == split]


def _say_chosen(
    say: Say,
    good: Sequence[Record],
    records: Sequence[Record],
    others: str = "not read as good, left out",
) -> None:
    """Says which folders or labels were taken as good, and which were not; nothing of a folder
    without any.
    """
    if any(record.named for record in good):
        say(f"read as good: {_named(good)}")
    elif not good:
        say(
            "read as good: no image, as no folder or label says so (--good NAME): false alarms "
            "stay unknown"
        )
    taken = {id(record) for record in good}
    rest = [record for record in records if id(record) not in taken]
    if rest:
        say(f"{others}: {_named(rest)}")


def _named(records: Iterable[Record]) -> str:
    """Returns the folders or labels of images with their counts, the most frequent first."""
    return counted(Counter(record.named or "without a label" for record in records).most_common())


# ---- groups ----


def _pattern(group_by: str | None) -> re.Pattern[str] | None:
    try:
        return None if group_by is None else re.compile(group_by)
    except re.error as error:
        raise DatasetError(
            f"--group-by {group_by!r} found, a regular expression expected: {error}"
        ) from error


def _group(path: str, given: str | None, pattern: re.Pattern[str] | None) -> str:
    if pattern is None:
        return given or path
    match = pattern.search(path)
    group = match[1 if pattern.groups else 0] if match else None
    if group is None:
        raise DatasetError(
            f"--group-by {pattern.pattern!r} does not match {path!r}: every path must name its "
            "group"
        )
    return group


# ---- folders ----


def _placed(root: Path, found: Placed, pattern: re.Pattern[str] | None) -> Record:
    below = found.path.relative_to(root)
    label = found.label
    mask = None
    if label not in (None, GOOD):
        mask = _mask(root, label, below.relative_to(Path(*found.folder)), Path(*found.folder[:-1]))
    named = "/".join(found.folder)
    # a plain folder: what lies in each of its folders
    if not found.folder and len(below.parts) > 1:
        named = below.parts[0]
    elif not found.folder and label == GOOD:
        named = ""
    return Record(
        found.path, found.split, label, _group(below.as_posix(), None, pattern), mask, named
    )


def _mask(root: Path, label: str | None, image: Path, above: Path = Path()) -> Path | None:
    """Returns the mask of ``image`` (relative to its label's folder, which lies in ``above``) if
    there is one.
    """
    if label in (None, GOOD):
        return None
    names = (f"{image.stem}_mask.png", f"{image.stem}.png")
    places = (
        root / "ground_truth" / str(label),
        root / "ground_truth" / above / str(label),
        root / above / "ground_truth" / str(label),
    )
    found = (place / image.parent / name for place in places for name in names)
    return next((path for path in found if path.is_file()), None)


# ---- manifests ----

Row = dict[str, str | None]


def _manifest(path: Path, pattern: re.Pattern[str] | None) -> Iterator[Record]:
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path)
    first: dict[str, str] = {}  # where each path stood first
    for where, row in rows:
        record = _record(path.parent, row, f"{path}, {where}", pattern)
        same = os.path.normpath(record.path)
        if same in first:
            raise DatasetError(
                f"{path}, {where}: {row['path']!r} stands in {first[same]} already: remove one of "
                "them"
            )
        first[same] = where
        yield record


def _record(root: Path, row: Row, where: str, pattern: re.Pattern[str] | None) -> Record:
    path, split, label = (
        row["path"],
        (row.get("split") or "").strip() or None,
        _label(row.get("label")),
    )
    if not path:
        raise DatasetError(f"{where}: no path found, one expected in every row")
    if split is not None and folded(split) not in SPLITS:
        raise DatasetError(f"{where}: split {split!r} found, 'train', 'test' or nothing expected")
    if foreign := foreign_drive(path):
        raise DatasetError(f"{where}: {foreign}")
    path = existing_path(root, path)
    given = row.get("mask")
    mask = root / existing_path(root, given) if given else None
    named = "/".join(filter(None, (split, label))) if label else ""
    split = None if split is None else folded(split)
    return Record(root / path, split, label, _group(path, row.get("group"), pattern), mask, named)


def _label(cell: str | None) -> str | None:
    return plain_text(cell).strip() or None if cell else None


def _with_labels(
    manifest: Path, records: list[Record], good: Sequence[str], *, refuse: bool
) -> list[Record]:
    """Returns the records of a manifest with "good" for every label that stands for it."""
    labels = sorted({record.label for record in records if record.label is not None})
    names = _good_labels(manifest, records, labels, good, refuse)
    if good and GOOD not in names:  # named otherwise, "good" is the name of a defect
        records = [replace(r, label=f"not {good[0]}") if r.label == GOOD else r for r in records]
    known = [replace(r, label=GOOD) if r.label in names else r for r in records]
    return [
        r if r.mask else replace(r, mask=_mask(manifest.parent, r.label, Path(r.path.name)))
        for r in known
    ]


def _good_labels(
    manifest: Path,
    records: Sequence[Record],
    labels: Sequence[str],
    given: Sequence[str],
    refuse: bool,
) -> set[str]:
    found = (
        counted(Counter(r.label for r in records if r.label is not None).most_common())
        or "no labels"
    )
    lost = [name for name in given if not any(is_named(label, [name]) for label in labels)]
    if lost:
        raise DatasetError(f"{manifest}: --good {lost[0]} names no label; found: {found}")
    if given:
        return {label for label in labels if is_named(label, given)}
    # A and B are classes here
    kinds = {label: kind_of(label) or kind_of(f"class {label}") for label in labels}
    good, _, doubt, unknown = sides_of(kinds)
    untold = [label for label in unknown if kinds[label] == "unclear" or "bad" in kinds.values()]
    if refuse and (doubt or (untold and not good)):
        raise DatasetError(
            f"{manifest}: labels {found} found, which do not tell good from bad: name the label of "
            "good images, --good NAME"
        )
    return set(good)


def _check_columns(path: Path, found: list[str]) -> None:
    if "path" not in found:
        shown = ", ".join(repr(name) for name in found[:20]) or "none"
        raise DatasetError(f"{path}: columns {shown} found, 'path' expected among them")
    twice = next((name for name in COLUMNS if found.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(f"{path}: column {twice!r} found twice, once expected")


def _csv_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yields where a row stands and its cells. Names that are not UTF-8 come through as the file
    system has them.
    """
    try:
        with open_regular(path, DatasetError) as file:
            header, rows = read_delimited(file, COLUMNS)
            _check_columns(path, header)
            for number, cells in rows:
                if not any(cells):  # Excel writes rows that were emptied
                    continue
                where = f"line {number}"
                if len(cells) != len(header):
                    raise DatasetError(
                        f"{path}, {where}: {len(cells)} cells found, {len(header)} expected"
                    )
                cells_of = zip(header, map(unguarded, cells), strict=True)
                yield where, {name: cell for name, cell in cells_of if name in COLUMNS}
    except (csv.Error, OSError, UnicodeError) as error:
        raise DatasetError(f"{path}: cannot be read as CSV ({error})") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise RuntimeMissing.extra("pyarrow", "batch", "a Parquet manifest") from error
    try:
        with open_regular(path, DatasetError) as file:
            found = pyarrow.parquet.read_schema(file).names
            _check_columns(path, found)
            columns = [name for name in COLUMNS if name in found]
            for number, row in enumerate(read_parquet(pyarrow, file, columns, ROWS, columns), 1):
                yield f"row {number}", {name: _text(value) for name, value in row.items()}
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, TooLarge) as error:
        raise DatasetError(
            f"{path}: cannot be read as Parquet ({' '.join(str(error).split())[:200]})"
        ) from error


def _text(value: object) -> str | None:
    if value is None or value != value:  # pandas writes NaN where a text is missing
        return None
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)
