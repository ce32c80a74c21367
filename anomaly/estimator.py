"""A detector as an estimator of scikit-learn, for images that are rows of an array. Needs the
extra `train`.
"""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly.errors import CalibrationError, DatasetError, RuntimeMissing, TrainingError
from anomaly.learning import Detector
from anomaly.training_options import Calibrate, Model, Space

try:
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise RuntimeMissing.extra("scikit-learn", "train", "the estimator") from error

FEWEST_IMAGES = 5  # as training needs them
SHORTEST_SIDE = 8  # pixels: of less, the checks of the training range see nothing
KINDS = (np.float32, np.uint8)  # of the values: all others become the first
# of an image that was not judged: below every other one, and a number that metrics take
LOWEST = float(np.finfo(np.float64).min)


class ImageAnomalyDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Outlier detector of images, trained on good ones only.

    Each row of X is an image, its values in the order of ``image.ravel()``. Values of uint8 are
    pixels; all others are taken as float32 on the scale of the training images, whatever their
    unit.

    Parameters
    ----------
    image_shape : tuple of int, default=None
        Height and width of an image, and 3 for colour (of uint8 only). None: a square where the
        number of values is that of one, else a single line. Sides of less than 8 pixels are
        enlarged.
    model, space, size, epochs, false_alarm_rate, calibrate
        As `anomaly train` has them: what is learnt, from what of the images, at how many pixels a
        side, for how many epochs; the target rate of good images that are flagged, and how good
        images set the threshold.
    random_state : int, RandomState instance or None, default=None
        Draws the seed of the training; an int makes it repeatable.

    Attributes
    ----------
    detector_ : Detector
        What was trained; ``detector_.save`` writes it, ``detector_.card`` has its guarantee.
    offset_ : float
        The negative threshold: ``decision_function = score_samples - offset_``.
    image_shape_ : tuple of int
        The shape of an image.
    n_features_in_ : int
        The number of values of an image.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from anomaly import ImageAnomalyDetector
    >>> images, digits = load_digits(return_X_y=True)
    >>> zeros = ImageAnomalyDetector(space="pixels", size=32, random_state=0)
    >>> zeros = zeros.fit(images[digits == 0])
    >>> zeros.predict(images[digits == 1][:3])
    array([-1, -1, -1])
    """

    def __init__(
        self,
        *,
        image_shape: tuple[int, ...] | None = None,
        model: Model = "auto",
        space: Space = "auto",
        size: int | None = None,
        epochs: int | None = None,
        false_alarm_rate: float | None = None,
        calibrate: Calibrate = "auto",
        random_state: Any = None,
    ) -> None:
        self.image_shape = image_shape
        self.model = model
        self.space = space
        self.size = size
        self.epochs = epochs
        self.false_alarm_rate = false_alarm_rate
        self.calibrate = calibrate
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains on good images (n, n_features) and returns self; ``y`` is not used. Raises
        ValueError where they cannot be learnt from.
        """
        X = validate_data(self, X, dtype=KINDS, ensure_min_samples=FEWEST_IMAGES)
        shape = self._shape_of(X)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        try:
            self.detector_ = Detector.train(
                _images(X, shape),
                say=logging.getLogger("anomaly").info,
                independent=True,  # as rows of X are
                expected_picture=self.space == "pixels",  # else one more network to fit
                model=self.model,
                space=self.space,
                size=self.size,
                epochs=self.epochs,
                false_alarm_rate=self.false_alarm_rate,
                calibrate=self.calibrate,
                seed=seed,
            )
        except (CalibrationError, DatasetError, TrainingError) as error:
            raise ValueError(str(error)) from error
        self.image_shape_ = shape
        self.offset_ = -float(self.detector_.threshold or 0.0)
        self._bytes = X.dtype == np.uint8
        return self

    def score_samples(self, X: Any) -> npt.NDArray[np.float64]:
        """Returns the negative scores (n,): lower is more anomalous.

        An image that was not judged, since it is unlike the training images or its values lie
        beyond theirs, gets the lowest finite number, and a warning says how many there are.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=KINDS, reset=False)
        if self._bytes and X.dtype != np.uint8:
            if not np.array_equal(X, X.astype(np.uint8)):
                raise ValueError(
                    "values other than whole numbers from 0 to 255 found, such ones expected: the "
                    "training images were uint8"
                )
            X = X.astype(np.uint8)
        results = self.detector_.score(_images(X, self.image_shape_))
        if unjudged := [result for result in results if result.status != "ok"]:
            warnings.warn(
                f"{len(unjudged)} of {len(results)} images were not judged, and count as "
                f"anomalous; the first: {unjudged[0].error}",
                stacklevel=2,
            )
        return np.array(
            [LOWEST if r.score is None or r.status != "ok" else -r.score for r in results]
        )

    def decision_function(self, X: Any) -> npt.NDArray[np.float64]:
        """Returns threshold - score (n,): negative where an image is flagged or was not judged."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> npt.NDArray[np.int64]:
        """Returns 1 for an image that is not flagged, -1 for one that is flagged or was not judged,
        int (n,).
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def _shape_of(self, X: npt.NDArray[Any]) -> tuple[int, ...]:
        count = X.shape[1]
        if self.image_shape is None:
            side = math.isqrt(count)
            return (side, side) if side * side == count else (1, count)
        shape = tuple(self.image_shape)
        if len(shape) not in (2, 3) or shape[2:] not in ((), (3,)) or math.prod(shape) != count:
            raise ValueError(
                f"image_shape={shape} found, (height, width) or (height, width, 3) of "
                f"{count} values expected"
            )
        if len(shape) == 3 and X.dtype != np.uint8:
            raise ValueError(f"image_shape={shape} with values of {X.dtype} found, uint8 expected")
        return shape


def _images(X: npt.NDArray[Any], shape: tuple[int, ...]) -> list[Any]:
    """Returns the rows as images: arrays of uint8, or pictures of float32; short sides have each
    pixel several times.
    """
    down, across = (math.ceil(SHORTEST_SIDE / side) for side in shape[:2])
    rows = [row.reshape(shape).repeat(down, 0).repeat(across, 1) for row in X]
    return rows if X.dtype == np.uint8 else [Image.fromarray(row) for row in rows]
