"""`anomaly calibrate`: a new threshold from good images, without torch. The weights stay as they
are.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from anomaly.detector.calibration_nodes import import_onnx
from anomaly.detector.card import Card
from anomaly.detector.file import CalibrationImages, find_detector, read_card, recalibrate
from anomaly.detector.guarantee import Guarantee
from anomaly.detector.unit_rule import UnitRule
from anomaly.detector.versions import Identity, note_version
from anomaly.errors import CalibrationError, ImageError
from anomaly.imaging.listing import passed_text
from anomaly.inputs.copies import Looks, regrouped
from anomaly.inputs.dataset import Record, Say, normal_training, read_dataset
from anomaly.inputs.used_images import (
    IMAGES,
    LEARNT,
    divided,
    is_listing,
    listing_of,
    note_calibration,
    read_listing,
)
from anomaly.quality.before_after import refuse_worse, worse
from anomaly.quality.next_file import free_version
from anomaly.quality.portable import write_portable
from anomaly.scorer import Result, Scorer
from anomaly.scoring.units import by_unit, whole_units
from anomaly.statistics.calibration import Calibration, calibrate
from anomaly.statistics.groups import one_per_group, worst_per_unit


class Review(TypedDict):
    """What a Calibration is asked for as its review threshold."""

    review_rate: float | None
    review_score: float | None


class Asked(NamedTuple):
    """What the thresholds are to keep; None: what the detector has already.

    ``false_alarm_rate``: of the threshold. ``review_rate``: of the review threshold (0: none), or
    ``review_score``: that threshold itself.
    """

    false_alarm_rate: float | None = None
    review_rate: float | None = None
    review_score: float | None = None

    def review_of(self, old: Calibration | None) -> Review:
        """Returns what a Calibration is asked for as its review threshold."""
        rate, score = self.review_rate, self.review_score
        if rate is None and score is None and old is not None:
            rate, score = old.review_rate, old.review_score
        return Review(review_rate=rate or None, review_score=score)


@dataclass(frozen=True)
class GoodImages:
    """Good images in a folder or manifest, and which of them are not independent.

    ``good``: names of the folders or labels of good images. ``group_by``: of each group one image
    is drawn by ``seed``. ``by_unit``: of each unit, named by the expression, the worst of its
    ``views`` views (None: however many it has). ``independent``: images that look alike show
    different parts, only equal pixels are copies.
    """

    place: Path
    good: Sequence[str] = ()
    group_by: str | None = None
    seed: int = 0
    by_unit: str | None = None
    views: int | None = None
    independent: bool = False

    def of(self, card: Card) -> GoodImages:
        """Returns what holds for a detector: where nothing was asked for, its own rule of units."""
        if self.by_unit is not None and self.group_by is not None:
            raise CalibrationError(
                "--by-unit and --group-by found, one of them expected: units are the groups"
            )
        rule = card.training.by_unit
        if self.by_unit is not None or rule is None or self.group_by is not None:
            return self
        same = rule.least if rule.least == rule.most else None
        return replace(self, by_unit=rule.pattern, views=self.views or same)


def recalibrate_on(
    run: Path,
    images: GoodImages,
    *,
    out: Path | None,
    asked: Asked,
    portable: bool = False,
    accept_worse: bool = True,
    known: Iterable[Identity] = (),
    say: Say | None = None,
) -> tuple[Card, Path, list[str]]:
    """Writes a detector whose threshold is set by good images; returns its card, its path and what
    was left out.

    Scores come from the file itself, on the CPU at batch 1, one for each group. Images that trained
    this detector are left out, as far as the run folder tells, and so are their copies: a guarantee
    made on them is false. ``portable``: the file is written in the form that is exact in OpenVINO
    too. Without ``accept_worse`` a guarantee that gets worse (see ``before_after.worse``) raises
    CalibrationError, and nothing is written. ``known``: detectors elsewhere, whose versions are not
    given again. ``say`` gets a line on what is read as good and what is not. Raises
    CalibrationError, DatasetError, DetectorError.
    """
    import_onnx()
    path = find_detector(run)
    with tempfile.TemporaryDirectory() as folder:
        source = path
        if portable:
            source = Path(folder) / path.name
            write_portable(path, source)
        scorer = Scorer(source, device="cpu")
        version, target = free_version(scorer.card, path, out, known)
        found = propose(scorer, path, images, asked, say)
        if not accept_worse:
            refuse_worse(found.before, found.after)
        write_proposal(found, source, path, target, version)
    return read_card(target), target, found.good.left_out


@dataclass(frozen=True, eq=False)
class Proposal:
    """A threshold that good images would set, and what it would guarantee; nothing is written."""

    good: GoodScores
    calibration: Calibration
    before: Guarantee
    after: Guarantee

    @property
    def worse(self) -> list[str]:
        """What of the guarantee would get worse, in words."""
        return worse(self.before, self.after)


def propose(
    scorer: Scorer, path: Path, images: GoodImages, asked: Asked, say: Say | None = None
) -> Proposal:
    """Returns the threshold that good images would set for the detector of ``path``, which
    ``scorer`` runs. Raises CalibrationError, DatasetError.
    """
    good = score_good(scorer, path, images, say)
    old = scorer.card.calibration
    target_rate = asked.false_alarm_rate or (None if old is None else old.target_rate)
    calibration = replace(calibrate(good.scores, target_rate), **asked.review_of(old))
    after = Guarantee(calibration, what="image" if good.rule is None else "unit")
    return Proposal(good, calibration, Guarantee.of(scorer.card), after)


def write_proposal(
    found: Proposal, source: Path, path: Path, target: Path, version: str, by: str | None = None
) -> None:
    """Writes a detector with a proposed threshold to ``target``; ``source``: the file to copy,
    ``path``: the detector that it comes from. ``by``: who did it (default: the user).
    """
    good, card = found.good, read_card(path)
    # before it is there: rather one too many
    note_version(card.name, version, path.parent, target.parent)
    highest = [good.paths[i].name for i in np.argsort(-good.scores, kind="stable")[:5]]
    recalibrate(
        source,
        found.calibration,
        target,
        CalibrationImages(highest, good.images, len(good.scores), good.rule, good.largest),
        version=version,
        parent=card.digest,
        accepted=found.worse,
        by=by,
    )
    note_calibration(path, target, good.judged)


@dataclass(frozen=True, eq=False)
class GoodScores:
    """Scores of good images that a detector was not trained on, one for each group: float32 (n,),
    as for its threshold.

    ``largest``: the largest value of each one's heatmap, float32 (n,). ``rule``: of units, where
    the score is that of the worst view of each. ``paths``: of these n images; ``outside``: whether
    each is unlike the training images, bool (n,); ``images``: how many were scored in all
    (``judged``: their paths); ``left_out``: a line for each that was not.
    """

    scores: NDArray[np.float32]
    largest: NDArray[np.float32]
    outside: NDArray[np.bool_]
    paths: list[Path]
    images: int
    left_out: list[str]
    rule: UnitRule | None = None
    judged: Sequence[Path] = ()


def score_good(
    scorer: Scorer, detector: Path, images: GoodImages, say: Say | None = None
) -> GoodScores:
    """Returns the scores of good images; CalibrationError where none can be used.

    ``say`` gets a line on what is read as good and what is not.
    """
    images = images.of(scorer.card)
    no_views: list[str] = []
    passed = Counter[str]()
    dataset = read_dataset(images.place, images.group_by, passed, images.good, say=say)
    found = normal_training(dataset, say)
    if images.by_unit is not None:
        found, no_views = by_unit(found, images.by_unit, images.views)
    listing = listing_of(detector) or detector.with_name(IMAGES)
    records, left_out = without_training_images(found, listing)
    results, kept, looks, unreadable = _judged(scorer, records)
    left_out += unreadable
    grouped, copied = _joined(scorer, listing, kept, looks, images)
    usable, gone = _usable(kept, found, copied, whole=images.by_unit is not None)
    left_out += gone
    if passed:
        no_views = [f"no images: {passed_text(passed)}", *no_views]
    if not usable:
        raise CalibrationError(
            f"no good image of {images.place} can be used ({(left_out or ['none found'])[0]}): "
            "add new ones"
        )
    results = [results[i] for i in usable]
    kept, grouped = ([one[i] for i in usable] for one in (kept, grouped))
    left_out += _counted_once(kept, grouped)
    values, drawn, rule = _drawn(results, kept, grouped, images)
    return GoodScores(
        values,
        np.array([largest_value(results[i]) for i in drawn], np.float32),
        np.array([results[i].status == "outside" for i in drawn]),
        [kept[i].path for i in drawn],
        len(kept),
        [*no_views, *left_out],
        rule,
        [r.path for r in kept],
    )


def _judged(
    scorer: Scorer, records: Sequence[Record]
) -> tuple[list[Result], list[Record], Looks, list[str]]:
    """Returns the results of what can be judged, its records and looks, and a line for each of the
    rest.
    """
    results: list[Result] = []
    kept: list[Record] = []
    looks, lines = Looks(scorer.card.size), []
    for record in records:
        try:
            image = scorer.decode(record.path)
            results.append(scorer.judge(image))
            kept.append(record)
            looks.add(image.pixels)
        except ImageError as error:
            lines.append(str(error))
    return results, kept, looks, lines


def largest_value(result: Result) -> float:
    """Returns the largest value of a result's heatmap; NaN where there is none."""
    return math.nan if result.heatmap is None else float(result.heatmap.max())


def _drawn(
    results: Sequence[Result], kept: Sequence[Record], grouped: Sequence[Record], images: GoodImages
) -> tuple[NDArray[np.float32], NDArray[np.int64], UnitRule | None]:
    """Returns one score for each group or unit, the indices of their images, and the rule of the
    units.
    """
    scores = np.array(
        [np.nan if result.score is None else result.score for result in results], np.float32
    )
    rule, worst = None, np.arange(len(kept))
    if images.by_unit is not None:
        rule = UnitRule.seen(images.by_unit, [r.group for r in kept])
        scores, worst = worst_per_unit(scores, [r.group for r in kept])
    names = [str(kept[i].path) for i in worst.tolist()]
    groups = [grouped[i].group for i in worst.tolist()]
    values, drawn = one_per_group(scores, groups, images.seed, names)
    return values, worst[drawn], rule


def _joined(
    scorer: Scorer, listing: Path, kept: Sequence[Record], looks: Looks, images: GoodImages
) -> tuple[list[Record], dict[Path, Path]]:
    """Returns the records with copies in one group, and of each that is a copy of a training image
    the latter's path.

    New images are compared with each other alone: beside training images that are all unlike them
    they would look alike.
    """
    groups = [r.group for r in kept]
    among = looks.copies(groups, same_only=images.independent)
    paths = [r.path for r in kept]
    for path in training_images(listing):
        with contextlib.suppress(ImageError):
            looks.add(scorer.decode(path).pixels)
            paths.append(path)
    everything = looks.copies([str(i) for i in range(len(paths))], same_only=images.independent)
    taught = {int(among.scene[i]): paths[j] for i, j, _ in everything.pairs if i < len(kept) <= j}
    copied = {
        r.path: taught[scene]
        for r, scene in zip(kept, among.scene.tolist(), strict=True)
        if scene in taught
    }
    return regrouped(kept, among, whole=images.by_unit is not None), copied


def _usable(
    kept: Sequence[Record], found: Sequence[Record], copied: dict[Path, Path], whole: bool
) -> tuple[list[int], list[str]]:
    """Returns which of the records can set a threshold, by index, and a line for each of the
    others.

    With ``whole`` units a unit counts with all its views or not at all, and is left out where each
    of them is a copy.
    """
    copies = {r.group for r in kept if r.path in copied} - (
        {r.group for r in kept if r.path not in copied} if whole else set()
    )
    lines, usable = [], []
    complete = {r.path for r in (whole_units(kept, found) if whole else kept)}
    for i, record in enumerate(kept):
        if record.path in copied and (record.group in copies or not whole):
            lines.append(
                f"{record.path}: a copy or near-copy of {copied[record.path]}, on which this "
                "detector was trained"
            )
        elif record.path not in complete:
            lines.append(f"{record.path}: another view of its unit is left out")
        else:
            usable.append(i)
    return usable, lines


def _counted_once(kept: Sequence[Record], grouped: Sequence[Record]) -> list[str]:
    """Returns a line that says how many images or groups are copies of others, and how many are
    left; or none.
    """
    before, after = (len({r.group for r in one}) for one in (kept, grouped))
    if before == after:
        return []
    what = "images" if before == len(kept) else "groups"
    return [
        f"{before - after} of {before} good {what} are copies or near-copies of others: {after} "
        "groups count, one image of each (if they show different parts that only look alike: "
        "--independent)"
    ]


def training_images(listing: Path) -> list[Path]:
    """Returns the images that a detector was fitted or validated on, as its run folder tells, that
    are still there.
    """
    if not is_listing(listing):
        return []
    paths = (
        Path(row["path"])
        for row in read_listing(listing)
        if row.get("set") in LEARNT and row.get("path")
    )
    return [path for path in paths if path.is_file()]


def without_training_images(
    records: Sequence[Record], listing: Path
) -> tuple[list[Record], list[str]]:
    """Returns the records that were neither fitted nor validated on, by their bytes, and a line for
    each of the others.
    """
    if not is_listing(listing):
        return list(records), []
    kept, used = divided(records, listing, LEARNT)
    return kept, [
        f"{record.path}: this detector was trained on it, so it cannot set its threshold"
        for record in used
    ]
