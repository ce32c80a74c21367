"""Good images to compare others with: `good_images.zip` in a run folder, written by training.

A detector's file gives out no features, so the good image nearest to another one is found by what
both look like at 24 x 24 pixels, brightness and contrast aside: the same pose, the same place in
the picture.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anomaly.errors import DetectorError
from anomaly.files.atomic import write_atomically
from anomaly.imaging.overlay import shrink
from anomaly.imaging.pillow import Pixels

FILE = "good_images.zip"  # in a run folder
FACTS, LOOKS = "facts.json", "looks.bin"  # in that file
MAX_IMAGES = 100  # images
SIDE = 960  # pixels a side of each at most
LOOK = 24  # pixels a side by which images are compared
HELPFUL = 0.5  # share of good images that an expected picture has to explain to be of help


@dataclass(frozen=True)
class GoodImages:
    """Good images as JPEG (n,) with their ``names``, and their ``looks``, float32 (n, 1728).

    ``explained``: the share of the good images' variance that the detector's expected picture
    explains, 1 at most; None where there is no expected picture.
    """

    names: list[str]
    data: list[bytes]
    looks: npt.NDArray[np.float32]
    explained: float | None

    @classmethod
    def read(cls, file: Path) -> GoodImages:
        """Returns what training wrote; DetectorError where it is missing or damaged."""
        try:
            with zipfile.ZipFile(file) as archive:
                facts = json.loads(archive.read(FACTS))
                data = [archive.read(f"{at:03}.jpg") for at in range(len(facts["names"]))]
                small = np.frombuffer(archive.read(LOOKS), np.uint8)
            looks = normalised(small.reshape(len(data), -1))
            return cls([str(name) for name in facts["names"]], data, looks, facts["explained"])
        except FileNotFoundError as error:
            raise DetectorError(f"no {FILE} beside the detector: train again to get it") from error
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise DetectorError(f"{file}: damaged ({error}): copy it again") from error

    @property
    def expected_helps(self) -> bool:
        """Whether the expected picture shows good images as they are, so that a difference says
        something.
        """
        return self.explained is not None and self.explained >= HELPFUL

    def nearest(self, pixels: Pixels, besides: str = "") -> int:
        """Returns which of the images looks most like ``pixels`` (h, w, 3); the one named
        ``besides`` is left out, where there are others.
        """
        apart = np.square(self.looks - normalised(look_of(pixels)[None])).sum(1)
        own = np.array([name == besides for name in self.names])
        return int(np.where(own & ~own.all(), np.inf, apart).argmin())


def look_of(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Returns what an image (h, w, 3) looks like, uint8 (1728,)."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((LOOK, LOOK), Image.Resampling.BOX)).ravel()


def normalised(looks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Returns looks (n, 1728) without brightness and contrast: mean 0, standard deviation 1."""
    values = looks.astype(np.float32)
    values -= values.mean(1, keepdims=True)
    return np.asarray(values / np.maximum(values.std(1, keepdims=True), 1e-6), np.float32)


def explained_share(pixels: Pixels, expected: Pixels) -> float:
    """Returns the share of an image's variance that the picture ``expected`` (h, w, 3) explains, 1
    at most; compared at the latter's size.
    """
    from PIL import Image

    height, width = expected.shape[:2]
    seen = np.asarray(
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX), np.float64
    )
    spread = np.square(seen - seen.mean((0, 1))).mean()
    return float(1 - np.square(seen - expected).mean() / max(float(spread), 1e-6))


def write_good_images(
    file: Path, images: Iterable[tuple[str, Pixels]], explained: float | None
) -> None:
    """Writes good images (name, pixels) for ``GoodImages.read``."""
    from PIL import Image

    packed, looks = io.BytesIO(), b""
    names: list[str] = []
    with zipfile.ZipFile(packed, "w") as archive:
        for name, pixels in images:
            jpeg = io.BytesIO()
            Image.fromarray(shrink(pixels, SIDE)).save(jpeg, "JPEG", quality=88)
            archive.writestr(zipfile.ZipInfo(f"{len(names):03}.jpg"), jpeg.getvalue())
            names.append(name)
            looks += look_of(pixels).tobytes()
        archive.writestr(zipfile.ZipInfo(LOOKS), looks)
        facts = json.dumps({"names": names, "explained": explained})
        archive.writestr(zipfile.ZipInfo(FACTS), facts)
    write_atomically(file, packed.getvalue())
