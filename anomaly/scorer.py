"""Scorer: images in, results out. The class that services embed, and the only user of ONNX
Runtime.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from anomaly.detector.explain import open_explain
from anomaly.detector.file import find_detector, read_checked
from anomaly.detector.golden import Golden
from anomaly.detector.golden_check import check_flags_around, check_golden_scores
from anomaly.detector.in_memory import decode_array, decode_pil
from anomaly.detector.inference import Deadlines, check_shape, run_session, run_watched
from anomaly.detector.outputs import OUTPUTS, check_outputs, check_types
from anomaly.detector.session import available_cores, import_runtime, open_session
from anomaly.detector.training_range import PIXELS_OUTSIDE, outside
from anomaly.detector.trial import Picture, Size, training_sizes, trial_seconds, try_out
from anomaly.errors import DetectorError, ImageError, RuntimeMissing
from anomaly.imaging.decode import Decoded, decode, decode_pages
from anomaly.imaging.region import hottest_region

if TYPE_CHECKING:
    from PIL import Image

    from anomaly.detector.slow_images import SlowImages

Pixels: TypeAlias = npt.NDArray[np.uint8]
Source: TypeAlias = "str | os.PathLike[str] | bytes | Pixels | Image.Image"
MAX_PIXELS = 100_000_000
BATCH, BATCH_BYTES, WORTH_IT = 16, 1 << 26, 5


@dataclass(frozen=True)
class Result:
    """One image's result.

    ``status`` is ``ok``, ``outside`` (unlike the training images: the result does not count) or
    ``error`` (could not be judged). ``score``: higher is more anomalous. ``p_value``: the share of
    good images that look at least this unusual, from the rank among the calibration scores.
    ``is_anomaly``: None unless status is ``ok`` and the detector has a threshold: an image that was
    not judged is never good. ``review``: whether the score lies between the detector's two
    thresholds, so that a person has to look (``result`` says it all in words).
    ``heatmap``: float32 (h, w), higher is more anomalous; see Card for its unit. ``box``: x, y,
    width, height of the hottest region in pixels of the original, ``area`` its pixels.
    ``reconstruction``: uint8 (h, w, 3), in pixel space only. ``defect_type``: of what is flagged or
    for review, the most likely type among the known defects that the detector has learnt from, or
    ``unknown type``; ``type_score``: how likely, 0 to 1. ``type_scores``: of each type with a name,
    in the order of ``Card.defect_types``, float32 (T,).
    """

    status: str
    score: float | None = None
    p_value: float | None = None
    is_anomaly: bool | None = None
    review: bool = False
    heatmap: npt.NDArray[np.float32] | None = None
    reconstruction: Pixels | None = None
    width: int | None = None
    height: int | None = None
    box: tuple[int, int, int, int] | None = None
    area: int | None = None
    error: str | None = None
    kind: str | None = None
    defect_type: str | None = None
    type_score: float | None = None
    type_scores: npt.NDArray[np.float32] | None = None

    @property
    def result(self) -> str | None:
        """``not flagged``, ``review`` (a person has to look), ``flagged`` or ``not judged``; None
        of a detector that only ranks.
        """
        if self.status != "ok":
            return "not judged"
        if self.is_anomaly is None:
            return None
        return "flagged" if self.is_anomaly else "review" if self.review else "not flagged"


class Scorer:
    """Scores images with a detector file.

        scorer = Scorer("detector.onnx")
        result = scorer.score("part.png")
        if result.result != "not flagged": ...          # flagged, for review or not judged

    ``device``: ``auto`` takes CUDA where it really works and else the CPU (``scorer.device`` says
    which); ``cuda`` fails where there is none. ``threads``: of one inference on the CPU (default:
    the cores this process may use). A file that this user has not met before is tried out first, in
    a process of its own (see anomaly.detector.trial). ``verify``: score the golden samples first
    and fail where this runtime gets them wrong. ``key``: a public key (PEM) by which the file must
    be signed. ``seconds``: of one inference; one that takes longer is ended between two of its
    steps and its image is an ImageError ``too slow``. ``at_once``: inferences that run at once
    (default: the cores); more wait. Threads may share a Scorer; a process that was forked makes its
    own.
    Raises DetectorError, RuntimeMissing.
    """

    def __init__(
        self,
        detector: str | os.PathLike[str],
        *,
        device: str = "auto",
        threads: int | None = None,
        verify: bool = False,
        key: str | os.PathLike[str] | None = None,
        max_pixels: int = MAX_PIXELS,
        seconds: float | None = None,
        at_once: int | None = None,
    ) -> None:
        self.path = find_detector(detector)
        data, self.card = read_checked(self.path)
        if key is not None:
            from anomaly.detector.signature import check_signature

            check_signature(self.path, data, key)
        self.max_pixels = max_pixels
        self._threads = threads or available_cores()
        golden = Golden.from_json(self.card.golden, self.card.calibration)
        sizes = training_sizes(self.card.training.ranges)
        _try_out(self.path, data, [sample[:4] for sample in golden.samples], self._threads, sizes)
        self._process = os.getpid()
        self._deadlines = None if seconds is None else Deadlines(seconds)
        self._free = threading.BoundedSemaphore(at_once or available_cores())
        self._session, self.device = open_session(data, device, self._threads)
        self._batches = (
            open_session(data, device, self._threads)[0] if self.device == "cuda" else self._session
        )
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._explain: Any = None
        self._slow: SlowImages | None = None
        self._slow_seconds = math.inf
        self._trial = trial_seconds(data)
        check_outputs(self.path, self._session, self.card)
        if verify:
            self.verify_golden()

    def watch(self, slow: SlowImages) -> None:
        """Lets ``slow`` say which images take far longer than the trial did, and end them;
        DetectorError for a bad setting.
        """
        from anomaly.detector.slow_images import limit_of

        self._slow, self._slow_seconds = slow, limit_of(self._trial)

    @property
    def outputs(self) -> dict[str, tuple[str, list[int]]]:
        """The graph's outputs: name -> (NumPy's name of its type, shape with -1 for any length)."""
        kinds = {"tensor(float)": "float32", "tensor(bool)": "bool", "tensor(uint8)": "uint8"}
        found = [output for output in self._session.get_outputs() if output.name in OUTPUTS]
        return {
            o.name: (kinds[o.type], [n if isinstance(n, int) else -1 for n in o.shape])
            for o in found
        }

    @overload
    def score(self, images: Source) -> Result: ...
    @overload
    def score(self, images: list[Source] | tuple[Source, ...]) -> list[Result]: ...
    def score(self, images: Any) -> Any:
        """Returns the Result of one image, or a list of them, in order, for a list.

        An image is a path, the bytes of a file, a PIL image or a uint8 array (H, W), (H, W, 3) or
        (H, W, 4); sizes may be mixed. One image that cannot be read raises ImageError; in a list it
        becomes a Result with status ``error``. So does a file of several pages or frames: nobody
        may take the result on one of them for that on all.
        """
        if isinstance(images, list | tuple) or (
            isinstance(images, np.ndarray) and images.ndim == 4
        ):
            together = self.at_most_together
            parts = (images[first : first + together] for first in range(0, len(images), together))
            return [
                result
                for part in parts
                for result in self.judge_all([self._decode_safely(image) for image in part])
            ]
        return self.judge(self.decode(images))

    def _decode_safely(self, image: Source) -> Decoded | ImageError:
        try:
            return self.decode(image)
        except ImageError as error:
            return error

    def decode(self, image: Source, page: int | None = None) -> Decoded:
        """Returns the pixels of one image by the detector's own decode rule; raises ImageError.

        ``page``: which one of a path's or file's pages, from 1 on; without it a file of several is
        an ImageError.
        """
        if isinstance(image, np.ndarray):
            return decode_array(image)
        if isinstance(image, str | bytes | os.PathLike):
            source = image if isinstance(image, bytes) else os.fspath(image)
            return decode(
                source,
                self.card.decode,
                max_pixels=self.max_pixels,
                reduce_to=self.card.size,
                page=page,
            )
        return decode_pil(image, self.card, self.max_pixels)

    def decode_pages(self, data: bytes) -> Iterator[tuple[int | None, Decoded | ImageError]]:
        """Yields the pages of a file's bytes with their numbers, from 1 on (None: it has one), or
        what is wrong with them.
        """
        return decode_pages(data, self.card.decode, self.max_pixels, reduce_to=self.card.size)

    @property
    def at_most_together(self) -> int:
        """How many images are worth judging in one call: on a CPU one, where batches
        were slower.
        """
        return BATCH if self.device == "cuda" else 1

    def judge(self, image: Decoded) -> Result:
        """Returns the result of a decoded image; ImageError where the runtime fails on it."""
        return self._result(image, self.run(image.pixels[None]), 0)

    def judge_all(self, images: Sequence[Decoded | ImageError]) -> list[Result]:
        """Returns the results of decoded images, in order; an error, the runtime's too, is a
        Result with status ``error``.

        On CUDA images of one size are judged together: a score may then differ from that of the
        image alone by rounding.
        """
        results: dict[int, Result] = {}
        alike: dict[tuple[int, ...], list[tuple[int, Decoded]]] = {}
        for number, image in enumerate(images):
            if isinstance(image, Decoded):
                alike.setdefault(image.pixels.shape, []).append((number, image))
            else:
                results[number] = Result("error", error=str(image), kind=image.kind)
        for shape, numbered in alike.items():
            together = self.at_most_together if BATCH * math.prod(shape) <= BATCH_BYTES else 1
            for first in range(0, len(numbered), together):
                numbers, some = zip(*numbered[first : first + together], strict=True)
                results.update(zip(numbers, self._judge_alike(some), strict=True))
        return [results[number] for number in range(len(images))]

    def _judge_alike(self, images: Sequence[Decoded]) -> list[Result]:
        """Returns the results of at most BATCH images of one size; where they cannot be judged
        together, of each alone.
        """
        if len(images) >= WORTH_IT:
            with contextlib.suppress(ImageError):
                filled = [image.pixels for image in images] + [images[-1].pixels] * (
                    BATCH - len(images)
                )
                outputs = self._run(self._batches, np.stack(filled))
                return [self._result(image, outputs, number) for number, image in enumerate(images)]
        results: list[Result] = []
        for image in images:
            try:
                results.append(self.judge(image))
            except ImageError as error:
                results.append(Result("error", error=str(error), kind=error.kind))
        return results

    def _result(self, image: Decoded, outputs: dict[str, npt.NDArray[Any]], number: int) -> Result:
        """Returns the result that a graph's raw outputs hold at ``number``."""
        # no -0.0
        score, heatmap = (
            np.float32(outputs["score"][number] + np.float32(0)),
            outputs["heatmap"][number],
        )
        if not np.isfinite(score) or not np.isfinite(heatmap).all():
            what = "heatmap" if np.isfinite(score) else "score"
            message = (
                f"the {what} is not finite: the detector or the runtime is damaged; run anomaly "
                "verify"
            )
            return Result(
                "error", width=image.width, height=image.height, error=message, kind="not finite"
            )
        calibration = self.card.calibration
        why = outside(self.card, image) or ("" if outputs["in_range"][number] else PIXELS_OUTSIDE)
        anchors = self.card.heatmap_anchors
        box, area = hottest_region(
            heatmap, image.width, image.height, None if anchors is None else anchors[0]
        )
        result = Result(
            status="outside" if why else "ok",
            score=float(score),
            p_value=float(calibration.p_value(score)) if calibration else None,
            is_anomaly=bool(calibration.is_anomaly(score)) if calibration and not why else None,
            review=bool(calibration.is_review(score)) if calibration and not why else False,
            heatmap=heatmap,
            reconstruction=outputs["reconstruction"][number]
            if "reconstruction" in outputs
            else None,
            width=image.width,
            height=image.height,
            box=box,
            area=area,
            error=why or None,
            kind="outside" if why else None,
        )
        if "type_scores" not in outputs:
            return result
        return self._named(result, outputs["type_scores"][number])

    def _named(self, result: Result, type_scores: npt.NDArray[np.float32]) -> Result:
        """Returns a result with the type of its defect, where it is flagged or for review."""
        check_types(type_scores, self.card)
        result = replace(result, type_scores=type_scores)
        named = self.card.defect_type(type_scores.tolist())
        if result.result not in ("flagged", "review") or named is None:
            return result
        return replace(result, defect_type=named[0], type_score=named[1])

    def run(self, images: Pixels) -> dict[str, npt.NDArray[Any]]:
        """Returns the graph's raw outputs by name for uint8 images (N, H, W, 3) of one size."""
        return self._run(self._session, images)

    def _run(self, session: Any, images: Pixels) -> dict[str, npt.NDArray[Any]]:
        if os.getpid() != self._process:
            raise RuntimeMissing(
                "a Scorer made before a fork found in the child process, where ONNX Runtime's "
                "threads are gone: make the Scorer in the child, or start processes by spawn"
            )
        with self._free:
            if self._slow is None:
                found = run_session(session, self._outputs, images, self._deadlines)
            else:
                found = run_watched(session, self._outputs, images, self._slow, self._slow_seconds)
        outputs = dict(zip(self._outputs, found, strict=True))
        for name, kind in OUTPUTS.items():
            if name in outputs:
                check_shape(name, outputs[name], len(images), kind[1])
        return outputs

    def explain(self, image: Source | Decoded) -> Pixels | None:
        """Returns the picture that the model expected to see, uint8 (h, w, 3), or None where there
        is none.

        In pixel space it is the graph's ``reconstruction``; else explain.onnx beside the detector
        makes it, if it was trained for these weights.
        """
        pixels = image.pixels if isinstance(image, Decoded) else self.decode(image).pixels
        if "reconstruction" in self._outputs:
            picture: Pixels = run_session(self._session, ["reconstruction"], pixels[None])[0][0]
            return picture
        if self._explain is None:
            self._explain = (
                open_explain(self.path.with_name("explain.onnx"), self.card.weights, self._threads)
                or False
            )
        if not self._explain:
            return None
        expected: Pixels = run_session(self._explain, ["reconstruction"], pixels[None])[0][0]
        return expected

    def verify_golden(self) -> float:
        """Returns the largest difference of the golden samples' scores, as a share of their
        tolerance (at most 1).

        A score more than a hundred times threshold - typical away from the typical one has a
        tolerance of 1e-5 of that. Raises DetectorError where this runtime does not give the scores
        that the card guarantees.
        """
        worst = check_golden_scores(self.path, self.card, self.run)
        if self.card.calibration is not None:
            check_flags_around(
                self.path, self.card.calibration, self._session.get_providers(), self._threads
            )
        return worst


def _try_out(
    path: Path, data: bytes, pictures: Iterable[Picture], threads: int, sizes: Sequence[Size]
) -> None:
    import_runtime()
    try:
        try_out(data, pictures, threads, sizes=sizes)
    except DetectorError as error:
        raise DetectorError(f"{path}: {error}") from error
