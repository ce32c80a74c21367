"""Pictures beside a score table: copies of flagged images, heatmaps, overlays.

A name begins with the number of the image's file among the inputs, counted from 0 (its row, where
no file has several pages), so that no two images share one and nothing in an image's own name leads
out of the folder: ``00000042-plate_7.png``, of a page ``00000042-plates-page2.jpg``. A mark in each
folder says that its pictures are no images to judge.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from anomaly.errors import AnomalyError
from anomaly.files.atomic import whole_file
from anomaly.imaging.decode import Decoded
from anomaly.imaging.find import mark_ours
from anomaly.imaging.listing import MARK
from anomaly.inputs.source import File, Source
from anomaly.scorer import Result, Scorer

OURS = re.compile(r"\d{8,}-.*|\.\d{8,}-.*\.tmp")
SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "WEBP": ".webp",
    "GIF": ".gif",
}
SUFFIXES |= {"PPM": ".ppm", "DIB": ".dib", "MPO": ".jpg"}
MAX_STEM_CHARACTERS = 50  # characters, of up to 4 bytes
SIDE = 1024  # pixels of an overlay's longer side at most: it is for the eye


@dataclass(frozen=True)
class Pictures:
    """The folders to write into, each None where it is not wanted.

    ``flagged``: flagged images and those for review as they are (``link``: links to those that are
    files); ``heatmaps``: float32 TIFF at the model's resolution, of every image that has one;
    ``overlays``: JPEG for the eye.
    """

    flagged: Path | None = None
    heatmaps: Path | None = None
    overlays: Path | None = None
    link: bool = False

    @property
    def folders(self) -> list[Path]:
        return [
            folder for folder in (self.flagged, self.heatmaps, self.overlays) if folder is not None
        ]

    def to_json(self) -> dict[str, str | bool | None]:
        """Returns what a run depends on."""
        names = ("flagged", "heatmaps", "overlays")
        found: dict[str, str | bool | None] = {
            name: _absolute(getattr(self, name)) for name in names
        }
        return found | {"link": self.link}

    def check(self, scorer: Scorer) -> None:
        """Raises AnomalyError where they cannot be written: before the work, not after it."""
        if self.flagged and scorer.card.calibration is None:
            raise AnomalyError(
                "--flagged: this detector ranks only and flags nothing; leave it out, or set a "
                "threshold first"
            )
        if len({os.path.realpath(folder) for folder in self.folders}) < len(self.folders):
            raise AnomalyError(
                "--flagged, --heatmaps, --overlays: one folder found twice, a folder for each "
                "expected"
            )
        for folder in self.folders:
            if folder.exists() and not folder.is_dir():
                raise AnomalyError(
                    f"{folder}: a file found, a folder to write pictures into expected"
                )
            if not folder.parent.is_dir():
                raise AnomalyError(
                    f"{folder.parent}: no such folder; make it first, or choose another name for "
                    f"{folder.name}"
                )

    def check_apart(self, inputs: Iterable[str]) -> None:
        """Raises AnomalyError where an input is one of the folders itself. In one below an input
        they are left out.
        """
        places = {os.path.realpath(given): given for given in inputs if os.path.isdir(given)}
        for name in ("flagged", "heatmaps", "overlays"):
            folder = getattr(self, name)
            if folder is not None and (given := places.get(os.path.realpath(folder))):
                raise AnomalyError(
                    f"--{name} {folder}: is the input {given} itself; another folder expected, "
                    "inside it or not"
                )

    def begin(self, force: bool) -> None:
        """Makes the folders, for a new run; one that holds anything is an AnomalyError. ``force``
        removes our pictures.
        """
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
            for name in sorted(set(os.listdir(folder)) - {MARK}):
                if not (force and OURS.fullmatch(name)):
                    found = f"{folder}: {name} found, an empty folder expected"
                    raise AnomalyError(
                        f"{found}: choose another, or --force, which removes the pictures of an "
                        "earlier run"
                    )
            mark_ours(folder)
            for name in set(os.listdir(folder)) - {MARK}:
                (folder / name).unlink()

    def go_on(self, rows: int | None = None) -> None:
        """Removes what a killed run left half written, and pictures of images that have no row,
        where ``rows`` are counted.
        """
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
            # else it may hold images to judge
            if all(OURS.fullmatch(name) for name in os.listdir(folder)):
                mark_ours(folder)
            for name in os.listdir(folder):
                if OURS.fullmatch(name) and (
                    name[0] == "." or (rows is not None and int(name.partition("-")[0]) >= rows)
                ):
                    (folder / name).unlink()

    def save(
        self,
        number: int,
        source: Source,
        data: bytes,
        image: Decoded,
        result: Result,
        scorer: Scorer,
        page: int | None = None,
    ) -> None:
        """Writes what is wanted of one image that was scored; again over what is there.

        Of a page the whole file is kept, once, however many of its pages were flagged.
        """
        if self.flagged and (result.is_anomaly or result.review):
            self._keep(
                self.flagged / _name(number, source, SUFFIXES.get(image.format, "")), source, data
            )
        if result.heatmap is None:
            return
        if self.heatmaps:
            from PIL import Image

            with whole_file(self.heatmaps / _name(number, source, ".tif", page)) as file:
                Image.fromarray(result.heatmap).save(file, "TIFF")
        if self.overlays:
            with whole_file(self.overlays / _name(number, source, ".jpg", page)) as file:
                _save_overlay(file, image, result, scorer)

    def _keep(self, path: Path, source: Source, data: bytes) -> None:
        if self.link and isinstance(source, File):
            with suppress(FileNotFoundError):
                path.unlink()
            # Windows allows links to some users only, and some shares have none: then it is copied
            with suppress(OSError):
                path.symlink_to(os.path.abspath(source.name))
                return
        with whole_file(path) as file:
            file.write(data)


NO_PICTURES = Pictures()


def colour_anchors(scorer: Scorer, result: Result) -> tuple[float, float]:
    """Returns the values that heatmap colours go by: a typical good image and the threshold.

    A detector that only ranks has neither; the median and the maximum of this heatmap stand in.
    """
    anchors = scorer.card.heatmap_anchors
    if anchors is not None:
        return anchors
    heatmap = np.zeros(1) if result.heatmap is None else result.heatmap
    return float(np.median(heatmap)), float(heatmap.max())


def _save_overlay(file: BinaryIO, image: Decoded, result: Result, scorer: Scorer) -> None:
    from PIL import Image

    from anomaly.imaging.overlay import overlay, shrink

    assert result.heatmap is not None
    picture = overlay(shrink(image.pixels, SIDE), result.heatmap, *colour_anchors(scorer, result))
    Image.fromarray(picture).save(file, "JPEG", quality=90)


def _name(number: int, source: Source, suffix: str, page: int | None = None) -> str:
    member = source.name.split("::")[0]
    stem = os.path.splitext(re.split(r"[/\\]", member)[-1])[0]
    plain = re.sub(r"[^\w.-]", "_", stem)[:MAX_STEM_CHARACTERS]
    return f"{number:08d}-{plain}{'' if page is None else f'-page{page}'}{suffix}"


def _absolute(folder: Path | None) -> str | None:
    return None if folder is None else os.path.abspath(folder)
