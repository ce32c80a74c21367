"""What a run came to, in counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anomaly.scorer import Scorer
from anomaly.scoring.run_files import ERROR, TYPE
from anomaly.scoring.units import UnitsSummary


@dataclass(frozen=True)
class Summary:
    """What a finished table holds. ``errors``: number of images by kind. ``flagged`` is None
    without a threshold.

    ``expected`` and ``ordinary_up_to``: how many of the ``ok`` images would be flagged if all were
    good, on average and at most (95 %); None also where the guarantee is per unit, which ``units``
    counts. ``review``: how many lie between the two thresholds, so that a person has to look, None
    where there is one threshold; ``review_expected`` and ``review_up_to``: the same of them and the
    flagged ones together. ``types``: of both, how many are likely of each type of known defects.
    ``resumed``: rows of an earlier run, which ``seconds`` and
    ``images_per_second`` leave out.
    ``products``: of a project, the same of each. ``per_unit``: the guarantee is one for units.
    ``passed_over``: what folders and archives hold besides images, by kind. ``moved``: rows of them
    that are no longer in ``out``, because another program moved or emptied it.
    ``again``: scored again, because what was kept of them, or an image, had been changed since.
    ``reading`` (with decoding) and ``judging``: seconds of all threads together that went into
    either.
    """

    out: Path
    images: int
    ok: int
    outside: int
    errors: dict[str, int]
    flagged: int | None
    expected: float | None
    ordinary_up_to: int | None
    resumed: int
    seconds: float
    reading: float
    judging: float
    units: UnitsSummary | None = None
    products: tuple[tuple[str, Summary], ...] = ()
    per_unit: bool = False
    passed_over: dict[str, int] = field(default_factory=dict)
    moved: int = 0
    again: int = 0
    review: int | None = None
    review_expected: float | None = None
    review_up_to: int | None = None
    types: dict[str, int] = field(default_factory=dict)

    @property
    def flagged_in_all(self) -> int:
        """Number of units flagged, and of images where the guarantee is per image."""
        images = [one.flagged or 0 for _, one in self.by_product if not one.per_unit]
        return sum(images) + (self.units.flagged if self.units else 0)

    @property
    def review_in_all(self) -> int:
        """Number of units for review, and of images where the guarantee is per image."""
        images = [one.review or 0 for _, one in self.by_product if not one.per_unit]
        return sum(images) + ((self.units.review or 0) if self.units else 0)

    @property
    def without_result(self) -> int:
        """Number of units without a result, and of images where the guarantee is per image, or
        that are of no product.
        """
        images = [one.not_judged for _, one in self.by_product if not one.per_unit]
        of_none = self.images - sum(one.images for _, one in self.by_product)
        return sum(images) + of_none + (self.units.not_judged if self.units else 0)

    @property
    def by_product(self) -> Sequence[tuple[str, Summary]]:
        """The summary of each product by its name; of one detector the whole as ``flagged``."""
        return self.products or (("flagged", self),)

    @property
    def not_judged(self) -> int:
        """Number of images without a result: unlike the training images, or not readable."""
        return self.outside + sum(self.errors.values())

    @property
    def images_per_second(self) -> float:
        return (self.images - self.resumed) / self.seconds if self.seconds > 0 else 0.0


def summary_of(
    scorer: Scorer,
    out: Path,
    counts: Counter[str],
    rows: int,
    resumed: int,
    seconds: float,
    reading: float,
    judging: float,
) -> Summary:
    """Returns the summary of a table of so many rows, whose ``counts`` are the sum of what
    ``counted`` returned.
    """
    calibration, ok = scorer.card.calibration, counts["ok"]
    per_image = calibration if scorer.card.training.by_unit is None else None
    review = None if calibration is None else calibration.review
    review_per_image = None if per_image is None else review
    return Summary(
        out=out,
        images=rows,
        ok=ok,
        outside=counts["outside"],
        errors={
            name.removeprefix(ERROR): n for name, n in counts.items() if name.startswith(ERROR)
        },
        flagged=None if calibration is None else counts["flagged"],
        expected=None if per_image is None else per_image.expected(ok),
        ordinary_up_to=None if per_image is None else per_image.ordinary_up_to(ok),
        resumed=resumed,
        seconds=seconds,
        reading=reading,
        judging=judging,
        per_unit=calibration is not None and per_image is None,
        review=None if review is None else counts["review"],
        review_expected=None if review_per_image is None else review_per_image.expected(ok),
        review_up_to=None if review_per_image is None else review_per_image.ordinary_up_to(ok),
        types={name.removeprefix(TYPE): n for name, n in counts.items() if name.startswith(TYPE)},
    )
