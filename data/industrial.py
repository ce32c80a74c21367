"""Industrial benchmark sets in their official folders: writes a manifest for each category.

    MVTec AD     DIR/bottle/{train,test,ground_truth}/...
    VisA         DIR/split_csv/1cls.csv and DIR/candle/Data/{Images,Masks}/...
    BTAD         DIR/01/{train/ok,test/ok,test/ko,ground_truth/ko}
    MVTec AD 2   DIR/can/{train/good,validation/good,test_public/{good,bad,ground_truth/bad}}

The images stay where they are; where to get them, and under which licence, is in data/README.md.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from anomaly.errors import DatasetError
from anomaly.files.csv_cells import csv_text
from anomaly.imaging.find import find_images

Row = tuple[str, str, str, str]  # path, split, label, mask


def write_manifests(kind: str, folder: Path, out: Path) -> dict[str, Path]:
    """Writes OUT/<category>.csv (path, split, label, mask) for each category of a set in FOLDER and
    returns them by category; ``kind``: a name of SETS. DatasetError where there is none.
    """
    out = out.absolute()
    found = {category: rows for category, rows in SETS[kind](folder.absolute()) if rows}
    if not found:
        raise DatasetError(
            f"{folder}: no category of {kind} found, the folders as it is published expected "
            "(see data/industrial.py)"
        )
    out.mkdir(parents=True, exist_ok=True)
    for category, rows in found.items():
        text = csv_text([("path", "split", "label", "mask"), *rows])
        (out / f"{category}.csv").write_text(text, encoding="utf-8", newline="")
    return {category: out / f"{category}.csv" for category in found}


def mvtec(folder: Path) -> Iterator[tuple[str, list[Row]]]:
    """Yields each category of MVTec AD (Bergmann et al., CVPR 2019) with its rows."""
    for category in categories(folder, "train/good"):
        yield category.name, labelled(category, "test", category / "ground_truth")


def btad(folder: Path) -> Iterator[tuple[str, list[Row]]]:
    """Yields each product of BTAD (Mishra et al., ISIE 2021) with its rows; ok: good, ko: not."""
    for category in categories(folder, "train/ok"):
        yield category.name, labelled(category, "test", category / "ground_truth")


def mvtec_2(folder: Path) -> Iterator[tuple[str, list[Row]]]:
    """Yields each category of MVTec AD 2 (Heckler-Kram et al., 2025) with its rows.

    Its validation images are good ones, and among those to train on; of the test sets the public
    one alone has labels.
    """
    for category in categories(folder, "train/good"):
        rows = labelled(category, "test_public", category / "test_public" / "ground_truth")
        more = images(category / "validation" / "good")
        yield category.name, [*((str(path), "train", "good", "") for path in more), *rows]


def visa(folder: Path) -> Iterator[tuple[str, list[Row]]]:
    """Yields each category of VisA (Zou et al., ECCV 2022) with its rows, by the published split
    1cls.
    """
    table = folder / "split_csv" / "1cls.csv"
    if not table.is_file():
        raise DatasetError(f"{table}: no such file, the split that VisA is published with expected")
    found: dict[str, list[Row]] = {}
    with open(table, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            label = "good" if row["label"] == "normal" else row["label"]
            mask = str(folder / row["mask"]) if row["mask"] else ""
            line = (str(folder / row["image"]), row["split"], label, mask)
            found.setdefault(row["object"], []).append(line)
    yield from sorted(found.items())


def categories(folder: Path, training: str) -> list[Path]:
    """Returns the folders in one that hold images to train on, by name."""
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    return sorted(path for path in folder.iterdir() if (path / training).is_dir())


def labelled(category: Path, test: str, masks: Path) -> list[Row]:
    """Returns the rows of train/<label> and <test>/<label>; masks are named <stem> or <stem>_mask,
    as any kind of file.
    """
    rows = []
    for split, folder in (("train", category / "train"), ("test", category / test)):
        for label in sorted(path for path in folder.iterdir() if path.is_dir() and path != masks):
            drawn = {path.stem.removesuffix("_mask"): path for path in images(masks / label.name)}
            named = "good" if label.name in ("good", "ok") else label.name
            rows += [
                (str(path), split, named, str(drawn.get(path.stem, ""))) for path in images(label)
            ]
    return rows


def images(folder: Path) -> list[Path]:
    """Returns the images in a folder, none where it is not there."""
    return find_images(folder) if folder.is_dir() else []


SETS: dict[str, Callable[[Path], Iterator[tuple[str, list[Row]]]]] = {
    "MVTec AD": mvtec,
    "VisA": visa,
    "BTAD": btad,
    "MVTec AD 2": mvtec_2,
}
