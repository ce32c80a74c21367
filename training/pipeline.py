"""`anomaly train`: normal images -> maps -> model -> one ONNX file with its calibration. The whole
way on one screen.
"""

from __future__ import annotations

from collections.abc import Callable

from anomaly.detector.card import Card
from training.detector import calibrate, export, report
from training.learn_defects import learn_defects
from training.learnt import choose
from training.options import TrainOptions
from training.processes import rank
from training.reading import read, represent, split
from training.trained import fit


def train(options: TrainOptions, say: Callable[[str], None]) -> Card | None:
    """Trains, calibrates and writes RUN; returns the detector's card (None in the helping processes
    of torchrun).

    ``say`` gets warnings and news, a line each. Raises DatasetError, CalibrationError,
    TrainingError.
    """
    found = read(options, say)
    represented = represent(found)
    divided = split(represented)  # afterwards: copies are found by what the images look like
    chosen = choose(divided)
    fitted = fit(chosen)
    if rank() > 0:  # under torchrun the first process finishes the detector
        return None
    calibrated = calibrate(learn_defects(fitted))
    exported = export(calibrated)
    return report(exported)
