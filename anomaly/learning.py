"""Training and measuring a detector from Python: the class Detector. The command line calls the
same functions.
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from anomaly.errors import AnomalyError, DatasetError, RuntimeMissing, TrainingError
from anomaly.training_options import TrainingOptions, checked, given_names

if TYPE_CHECKING:
    from anomaly.detector.card import Card
    from anomaly.inputs.given_images import Given
    from anomaly.scorer import Result, Scorer, Source
    from anomaly.scoring.evaluation import Judged

Say = Callable[[str], None]
Place = str | os.PathLike[str]
Made = TypeVar("Made")


def say_by_log(line: str) -> None:
    """Hands news and warnings to the logger ``anomaly``, which prints them unless told not to."""
    logging.getLogger("anomaly").warning(line)


class Detector:
    """A trained detector: it scores images, is measured on labelled ones, and is saved.

        detector = Detector.train("photos/good", out="run")
        result = detector.score("photos/today/part.png")
        print(result.result, result.score, detector.threshold)

    ``train`` and ``load`` make one. ``scorer`` scores, ``card`` says all that is known of the
    detector. Higher scores are more anomalous.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    @classmethod
    def train(
        cls,
        images: Place | Iterable[Given],
        *,
        out: Place | None = None,
        groups: Sequence[object] | None = None,
        say: Say = say_by_log,
        **options: Unpack[TrainingOptions],
    ) -> Self:
        """Returns a detector that was trained on good images and calibrated, as by `anomaly train`.

        ``images``: a folder or manifest, or a list of paths, uint8 arrays (H, W), (H, W, 3) or
        (H, W, 4) and PIL images, whose sizes may be mixed. Arrays are kept as files in the run
        folder. ``out``: the run folder to write; without it the run lies in a temporary folder
        until ``save``. ``groups``: which part or lot each image of a list shows; images of one are
        not independent of each other. ``say`` gets news and warnings, a line each.
        ``options``: see TrainingOptions; ``seed`` makes a training repeatable.

        Needs the extra `train`. Raises DatasetError, CalibrationError, TrainingError,
        RuntimeMissing, and TypeError for an unknown option.
        """
        if out is not None:
            card = train_run(images, Path(out), groups, "anomaly.Detector.train", say, options)
            if card is None:
                raise TrainingError(
                    "more than one process found, one expected: under torchrun use anomaly train"
                )
            return cls.load(out, device=options.get("device", "auto"))
        return _in_a_folder_of_its_own(
            lambda run: cls.train(images, out=run, groups=groups, say=say, **options)
        )

    @classmethod
    def load(cls, run: Place, *, device: str = "auto", verify: bool = False) -> Self:
        """Returns the detector of a run folder or an .onnx file; see Scorer for the arguments.

        Raises DetectorError where the file is none, or is unsafe or damaged.
        """
        from anomaly.scorer import Scorer

        return cls(Scorer(run, device=device, verify=verify))

    @property
    def card(self) -> Card:
        """What the detector says of itself: its training, threshold and guarantee."""
        return self.scorer.card

    @property
    def threshold(self) -> float | None:
        """The score above which an image is flagged; None: the detector only ranks."""
        calibration = self.card.calibration
        return None if calibration is None else float(calibration.threshold)

    @overload
    def score(self, images: Source) -> Result: ...
    @overload
    def score(self, images: list[Source] | tuple[Source, ...]) -> list[Result]: ...
    def score(self, images: Any) -> Any:
        """Returns the Result of one image, or a list of them, in order, for a list or an array
        (N, H, W, 3); see Scorer.score.
        """
        return self.scorer.score(images)

    def evaluate(
        self,
        images: Place | Iterable[Given],
        labels: Sequence[str] | None = None,
        *,
        groups: Sequence[object] | None = None,
        group_by: str | None = None,
        good: str | Sequence[str] = (),
        report: Place | None = None,
        say: Say = say_by_log,
    ) -> Judged:
        """Returns how the detector does on labelled images, as `anomaly evaluate` does.

        ``images``: a folder in the train/test layout or a manifest, or a list as for ``train``
        with ``labels``, of each "good" or the name of its defect, and ``groups``. ``group_by``,
        ``good`` and ``report`` (an HTML file to write): as the command's flags. Images that trained
        or calibrated the detector are left out. ``to_json`` of what is returned has the figures,
        ``results`` the result of each image.

        Needs the extra `evaluate`. Raises DatasetError where no image has a label.
        """
        from anomaly.quality.evaluate import evaluate_labelled

        if labels is None and not isinstance(images, str | os.PathLike):
            raise DatasetError("a list of images without labels found, a label of each expected")
        with tempfile.TemporaryDirectory(prefix="anomaly-labelled-") as folder:
            return evaluate_labelled(
                self.scorer,
                _place_of(images, Path(folder), labels, groups),
                group_by,
                report=None if report is None else Path(report),
                good=given_names([good] if isinstance(good, str) else good),
                say=say,
            )

    def save(self, path: Place) -> Path:
        """Writes the detector and returns where: a name that ends in .onnx is that of the file
        alone, another one that of a new folder, which gets the whole run.

        The file is all that scoring needs. Raises AnomalyError where something is there already: a
        detector in use must not change under its name.
        """
        from anomaly.files.atomic import write_atomically
        from anomaly.imaging.find import is_ours

        path, source = Path(path), self.scorer.path
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise AnomalyError(f"{path} is there already, a new name expected")
        if path.suffix == ".onnx":
            write_atomically(path, source.read_bytes())
        elif source.name == "detector.onnx" and is_ours(str(source.parent)):
            shutil.copytree(source.parent, path, dirs_exist_ok=True)
        else:  # the file alone was loaded
            path.mkdir(parents=True, exist_ok=True)
            write_atomically(path / "detector.onnx", source.read_bytes())
        return path

    def __reduce__(self) -> tuple[Callable[[bytes], Detector], tuple[bytes]]:
        return _restored, (self.scorer.path.read_bytes(),)

    def __repr__(self) -> str:
        return f"<Detector {self.card.identity}, threshold {self.threshold}>"


def _in_a_folder_of_its_own(make: Callable[[str], Made]) -> Made:
    """Returns what is made in a temporary folder, which goes with it."""
    folder = tempfile.mkdtemp(prefix="anomaly-run-")
    try:
        made = make(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
    return made


def _restored(data: bytes) -> Detector:
    """Returns the detector of a file's bytes, such as those that a pickled one holds."""

    def make(folder: str) -> Detector:
        path = Path(folder) / "detector.onnx"
        path.write_bytes(data)
        return Detector.load(path)

    return _in_a_folder_of_its_own(make)


def train_run(
    images: Place | Iterable[Given],
    out: Path,
    groups: Sequence[object] | None,
    command: str,
    say: Say,
    options: TrainingOptions,
) -> Card | None:
    """Trains into the run folder ``out`` and returns the detector's card (None in the helping
    processes of torchrun). ``command``: what the card says of how it was made.
    """
    training, making = import_training(), import_training("options")
    if not isinstance(images, str | os.PathLike):
        making.check_out(options_for(out / "images", out, command, options))
        making.make_run(out)
    place = _place_of(images, out, None, groups)
    card: Card | None = training.train(options_for(place, out, command, options), say)
    return card


def options_for(images: Path, out: Path, command: str, options: TrainingOptions) -> Any:
    """Returns what a training is asked for, as the package training has it. Raises TypeError for a
    name that is no option, TrainingError for a value that is none.
    """
    given = checked(options)
    return import_training("options").TrainOptions(images=images, out=out, command=command, **given)


def import_training(module: str = "pipeline") -> Any:
    """Returns a module of training, the one with ``train`` unless another is named. Raises
    RuntimeMissing where torch is not installed.
    """
    try:
        return importlib.import_module(f"training.{module}")
    except ImportError as error:
        if error.name and error.name.split(".")[0] in ("anomaly", "training"):
            raise
        raise RuntimeMissing.extra(error.name or "torch", "train", "training") from error


def _place_of(
    images: Place | Iterable[Given],
    folder: Path,
    labels: Sequence[str] | None,
    groups: Sequence[object] | None,
) -> Path:
    """Returns the folder or manifest that was given, or one that is written for a list."""
    if isinstance(images, str | os.PathLike):
        if labels is not None or groups is not None:
            raise AnomalyError(
                "labels or groups found beside a folder or manifest, a list of images expected: "
                "name them in the manifest's columns"
            )
        return Path(images)
    from anomaly.inputs.given_images import write_given

    return write_given(folder, images, labels=labels, groups=groups)
