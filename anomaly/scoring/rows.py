"""Images -> rows of the score table, in threads."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache, partial
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

from anomaly.detector.slow_images import now_judging
from anomaly.detector.unit_rule import UnitRule
from anomaly.errors import AnomalyError, ImageError
from anomaly.files.table import (
    COUNTED,
    Row,
    printable,
    shortest,
    utc_text,
)
from anomaly.imaging.decode import Decoded
from anomaly.imaging.listing import page_name
from anomaly.inputs.source import Source
from anomaly.inputs.stamps import stamp_of
from anomaly.scorer import Result, Scorer
from anomaly.scoring.pictures import Pictures
from anomaly.scoring.products import Project
from anomaly.scoring.run_files import ERROR, OF, TYPE, says_when_unwritable

_shortest = lru_cache(16)(shortest)  # of thresholds, which each row has
HELD_BYTES = 1 << 24  # of decoded pixels that a thread holds before it judges them


WHEN_IT_IS_BACK = (
    "what was finished is kept: run the same command again to go on when it is back, or with "
    "--keep-going to give such images error rows"
)


@dataclass(frozen=True)
class Work:
    """What is done with every image."""

    scorer: Scorer
    keep_going: bool
    pictures: Pictures
    out: Path
    project: Project | None = None  # then its products' scorers judge

    def product_of(self, name: str) -> tuple[str, Scorer | None]:
        """Returns the product that an image of that name shows and who judges it, nobody where it
        is of no product.
        """
        if self.project is None:
            return "", self.scorer
        product = self.project.product_of(name)
        return ("", None) if product is None else (product.name, product.scorer)

    def pages(
        self, scorer: Scorer | None, name: str, data: bytes
    ) -> Iterator[tuple[int | None, Decoded | ImageError]]:
        """Returns the pages that the scorer judges; ImageError where the name tells no product, or
        no chunk.
        """
        if scorer is None:
            file = "the project" if self.project is None else self.project.file.name
            raise ImageError("of no product", f"its path matches no product of {file}")
        rule = self.rules.get(scorer.card.identity)
        if rule is not None:
            rule.unit_of(name)
        return scorer.decode_pages(data)

    @cached_property
    def rules(self) -> dict[str, UnitRule | None]:
        return {
            scorer.card.identity: scorer.card.training.by_unit
            for scorer in scorers(self.scorer, self.project)
        }


def scorers(scorer: Scorer, project: Project | None) -> list[Scorer]:
    """Returns all who judge."""
    return [scorer] if project is None else [product.scorer for product in project.products]


@dataclass(frozen=True)
class Scored:
    """One file's rows (one for each page), what is counted of them, and the seconds that each half
    of the work took.
    """

    name: str
    rows: tuple[Row, ...]
    counted: list[str]
    reading: float
    judging: float
    stamp: str = ""


@dataclass(frozen=True)
class Read:
    """One image; ``data``: its file, where it may be wanted again; ``page``: of its file, None for
    the only one.
    """

    number: int
    source: Source
    sha256: str | None
    data: bytes
    image: Decoded | ImageError
    seconds: float
    product: str = ""
    scorer: Scorer | None = None  # None: the image is of no product
    page: int | None = None
    stamp: str = ""

    @property
    def name(self) -> str:
        """What the image is called in the table."""
        return page_name(printable(self.source.name), self.page)


def score_sources(work: Work, sources: Sequence[tuple[int, Source]]) -> list[Scored]:
    """Reads some images, then judges them, all in one thread.

    Where image after image is read and judged, decoder and model throw each other's data out of the
    processor's cache: with a small model and small images that took a third more time.
    """
    scored: list[tuple[int, Scored]] = []
    held: list[Read] = []
    for number, source in sources:
        for read in read_pages(work, number, source):
            held.append(read if work.pictures.flagged else replace(read, data=b""))
            if (
                sum(one.image.pixels.nbytes for one in held if isinstance(one.image, Decoded))
                > HELD_BYTES
            ):
                scored += _judge(work, held)
                held = []
    return list(_files(scored + _judge(work, held)))


def _files(pages: Iterable[tuple[int, Scored]]) -> Iterator[Scored]:
    """Puts the pages of each file, which follow one another, together: its rows are safe together
    or not at all.
    """
    for _, numbered in groupby(pages, key=itemgetter(0)):
        first, *rest = (one for _, one in numbered)
        yield Scored(
            first.name,
            first.rows + tuple(row for one in rest for row in one.rows),
            first.counted + [name for one in rest for name in one.counted],
            first.reading + sum(one.reading for one in rest),
            first.judging + sum(one.judging for one in rest),
            first.stamp,
        )


def read_pages(work: Work, number: int, source: Source) -> Iterator[Read]:
    """Reads a file once, for its digest and the pixels of each page, which are decoded as they are
    asked for.
    """
    began = time.perf_counter()
    sha256, data, name = None, b"", printable(source.name)
    product, scorer = work.product_of(name)
    pages: Iterable[tuple[int | None, Decoded | ImageError]]
    # before it is read: a change in between is then noticed when the run goes on
    stamp = stamp_of(source)
    try:
        data = source.read(largest_file(work.scorer))
        sha256 = hashlib.sha256(data).hexdigest()
        pages = work.pages(scorer, name, data)
    except ImageError as error:
        if error.kind == "unreachable" and not work.keep_going:
            raise AnomalyError(f"{name}: {error}; {WHEN_IT_IS_BACK}") from error
        pages = [(None, error)]
    for page, image in pages:
        yield Read(
            number,
            source,
            sha256,
            data,
            image,
            time.perf_counter() - began,
            product,
            scorer,
            page,
            stamp,
        )
        began = time.perf_counter()


def largest_file(scorer: Scorer) -> int:
    """Returns how many bytes an image file may have: an uncompressed one of the most pixels, and
    some metadata.
    """
    return 8 * scorer.max_pixels + (1 << 24)


def _judge(work: Work, held: Sequence[Read]) -> list[tuple[int, Scored]]:
    """Returns the rows of pages, each with the number of its file."""
    scored: list[tuple[int, Scored]] = []
    for scorer, reads in groupby(held, lambda read: read.scorer or work.scorer):
        while some := list(islice(reads, scorer.at_most_together)):
            began = time.perf_counter()
            now_judging(some[0].name)
            results = judged(scorer, [read.image for read in some])
            rows = [recorded(work, *one) for one in zip(some, results, strict=True)]
            seconds = (time.perf_counter() - began) / len(some)
            for row, read, result in zip(rows, some, results, strict=True):
                names = counted(result)
                if read.product:
                    names += [f"{name}{OF}{read.product}" for name in names]
                scored.append(
                    (
                        read.number,
                        Scored(read.source.name, (row,), names, read.seconds, seconds, read.stamp),
                    )
                )
    return scored


def judged(scorer: Scorer, images: Sequence[Decoded | ImageError]) -> list[Result]:
    """Returns what the scorer says of images that were read, or the errors that they
    have instead.
    """
    # Decoded from bytes, an image is called "image" in the message; its path stands in the row
    # already.
    return [
        replace(result, error=result.error.removeprefix("image: ")) if result.error else result
        for result in map(_checked, scorer.judge_all(images))
    ]


def recorded(work: Work, read: Read, result: Result) -> Row:
    """Writes an image's pictures and returns its row."""
    if work.pictures.folders and isinstance(read.image, Decoded):
        with says_when_unwritable(work.out):
            save = partial(
                work.pictures.save, read.number, read.source, read.data, read.image, result
            )
            save(read.scorer or work.scorer, read.page)
    return _row(read.scorer, read.name, read.sha256, result)


def _checked(result: Result) -> Result:
    """Returns the result, or an error where its score is not a finite number: nobody may take that
    for a result.
    """
    if result.status == "error" or (result.score is not None and math.isfinite(result.score)):
        return result
    message = f"the score is not a finite number ({result.score})"
    return Result(
        "error", width=result.width, height=result.height, error=message, kind="not finite"
    )


def _row(scorer: Scorer | None, name: str, sha256: str | None, result: Result) -> Row:
    x, y, width, height = result.box or (None, None, None, None)
    calibration = None if scorer is None else scorer.card.calibration
    return Row(
        path=name,
        sha256=sha256,
        width=result.width,
        height=result.height,
        score=None if result.score is None else shortest(result.score),
        p_value=result.p_value,
        threshold=None if calibration is None else _shortest(float(calibration.threshold)),
        review_threshold=None
        if calibration is None or calibration.review is None
        else _shortest(float(calibration.review.threshold)),
        is_anomaly=result.is_anomaly if result.status == "ok" else None,
        result=result.result,
        box_x=x,
        box_y=y,
        box_w=width,
        box_h=height,
        area=result.area,
        defect_type=result.defect_type,
        type_score=None if result.type_score is None else shortest(result.type_score),
        status=result.status,
        error=None if result.error is None else printable(result.error),
        detector="none" if scorer is None else scorer.card.identity,
        scored_at=utc_text(datetime.now(UTC)),
    )


def counted(result: Result) -> list[str]:
    """Returns what a summary counts of an image."""
    if result.status == "error":
        return [f"{ERROR}{result.kind}"]
    named = [] if result.defect_type is None else [f"{TYPE}{result.defect_type}"]
    return [result.status, *(name for name in COUNTED if name == result.result), *named]
