"""Images inside and outside the training range."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly import Scorer
from anomaly.detector.training_facts import Ranges, TrainingFacts
from anomaly.detector.training_range import outside
from anomaly.errors import DetectorError
from anomaly.imaging.decode import Decoded
from data.synthetic import make
from tests.test_scorer import part


@pytest.fixture(scope="module")
def grey_scorer(grey_run: Path) -> Scorer:
    return Scorer(grey_run, device="cpu")


def grey(seed: int = 40, bits: int = 12) -> np.ndarray:
    return make("cell", seed, 48)[0][..., 0].astype(np.uint16) << (bits - 8)


def test_an_image_like_those_of_the_training_is_inside(grey_scorer: Scorer) -> None:
    result = grey_scorer.score(Image.fromarray(grey()))
    assert (result.status, result.error) == ("ok", None)
    assert result.is_anomaly is not None


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (
            Image.fromarray(grey()[:20]),
            (
                r"^48x20 found, width:height 2\.40, 1\.00 in the training images: check that it is "
                r"not turned, cut or of"
            ),
        ),
        (
            Image.fromarray(np.tile(grey(), (3, 3))),
            (
                r"^144x144 found, 20,736 pixels, 2,304 in the training images: check product and "
                r"camera$"
            ),
        ),
        (
            Image.fromarray(grey(bits=16)),
            r"^16 bits a channel found, 12 in the training images: check the camera's setting$",
        ),
        (
            Image.fromarray(grey(bits=8).astype(np.uint8)),
            r"^8 bits a channel found, 12 in the training images: check the camera's setting$",
        ),
        (
            Image.fromarray(grey() // 12),
            r"^brightness, contrast, colour, sharpness or direction unlike the training images",
        ),
        (Image.fromarray(grey()).transpose(Image.Transpose.ROTATE_90), None),
    ],
)
def test_an_image_unlike_those_of_the_training_gets_no_verdict(
    image: Image.Image, why: str | None, grey_scorer: Scorer
) -> None:
    result = grey_scorer.score(image)
    if why is None:  # a solar cell turned by 90 degrees has its fingers upright
        why = "direction unlike the training images"
    assert (result.status, result.is_anomaly, result.kind) == ("outside", None, "outside")
    assert result.score is not None and result.p_value is not None and result.heatmap is not None
    assert result.error is not None
    with pytest.raises(DetectorError, match=why):
        raise DetectorError(result.error)


def test_colour_among_grey_is_outside(grey_scorer: Scorer) -> None:
    card = replace(grey_scorer.card, training=TrainingFacts(ranges=Ranges(grey=True)))
    colour = Decoded(part(), 64, 64, 8, "RGB", grey=False, format="PNG")
    assert (
        outside(card, colour)
        == "a colour image found, only grey ones in the training images: check product and camera"
    )
    assert outside(card, replace(colour, grey=True)) == ""
    assert outside(replace(card, training=TrainingFacts()), colour) == ""
