"""A project file: several products on one line, each with its detector. Which one judges an image
is told by its path.

    [[product]]
    pattern = 'poly/'       # a regular expression, searched in the path (with / between folders)
    detector = "runs/poly"  # a run folder or a detector file, from the project file's folder

An image that no pattern matches is an error, never good; one that several match stops the run,
because the file is wrong.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly.detector.unit_rule import UnitRule
from anomaly.errors import AnomalyError
from anomaly.files.regular_files import read_small_text
from anomaly.scorer import Scorer

MAX_BYTES = 1 << 20  # bytes of a project's file
KEYS = {"name", "pattern", "detector"}


@dataclass(frozen=True)
class Product:
    """One product: the paths of its images, and who judges them."""

    name: str
    pattern: re.Pattern[str]
    scorer: Scorer

    @property
    def rule(self) -> UnitRule | None:
        """How a path names its unit, where the detector guarantees per unit."""
        return self.scorer.card.training.by_unit


@dataclass(frozen=True)
class Project:
    """The products of a project file, in its order."""

    file: Path
    products: tuple[Product, ...]

    def product_of(self, path: str) -> Product | None:
        """Returns the one product that an image shows, None where no pattern matches; AnomalyError
        where several do.
        """
        found = [
            product for product in self.products if product.pattern.search(path.replace("\\", "/"))
        ]
        if len(found) > 1:
            names = " and ".join(product.name for product in found)
            raise AnomalyError(
                f"{self.file}: {path} matches the products {names}, one expected: make their "
                "patterns narrower"
            )
        return found[0] if found else None

    def unit_of(self, path: str) -> str:
        """Returns what belongs together: the unit of an image whose product has units, else the
        image itself.
        """
        product = self.product_of(path)
        if product is None or product.rule is None:
            return path
        return f"{product.name}\0{product.rule.unit_of(path)}"

    def to_json(self) -> list[list[str]]:
        """What the rows of a table depend on."""
        return [
            [product.name, product.pattern.pattern, product.scorer.card.identity]
            for product in self.products
        ]


def read_project(file: Path, *, device: str, max_pixels: int, key: Path | None = None) -> Project:
    """Returns a project with its detectors opened (one thread each); AnomalyError where the file or
    one of them is wrong.

    ``key``: a public key by which every detector must be signed.
    """
    try:
        content = tomllib.loads(read_small_text(file, MAX_BYTES))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise AnomalyError(
            f"{file}: not a TOML file ({' '.join(str(error).split())}): mend it"
        ) from error
    given = content.get("product")
    if set(content) != {"product"} or not isinstance(given, list) or not given:
        found = ", ".join(map(repr, content)) or "nothing"
        raise AnomalyError(
            f"{file}: {found} found, one or more tables [[product]] expected and nothing else"
        )
    opened: dict[Path, Scorer] = {}
    given_to = {"device": device, "max_pixels": max_pixels, "key": key}
    products = tuple(
        _product(file, number, facts, opened, given_to) for number, facts in enumerate(given, 1)
    )
    names = [product.name for product in products]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise AnomalyError(
            f"{file}: two products named {twice} found: give each a name of its own (name = ...)"
        )
    return Project(file, products)


def _product(
    file: Path, number: int, facts: Any, opened: dict[Path, Scorer], given: dict[str, Any]
) -> Product:
    where = f"{file}: product {number}"
    if (
        not isinstance(facts, dict)
        or not set(facts) <= KEYS
        or not {"pattern", "detector"} <= set(facts)
    ):
        found = ", ".join(map(str, facts)) if isinstance(facts, dict) else type(facts).__name__
        raise AnomalyError(
            f"{where}: {found or 'nothing'} found, pattern and detector expected, and name if "
            "wanted"
        )
    wrong = next(
        (
            key
            for key, value in facts.items()
            if not isinstance(value, str) or not value.isprintable()
        ),
        None,
    )
    if wrong is not None:
        raise AnomalyError(f"{where}: {wrong} is {facts[wrong]!r}, one line of text expected")
    try:
        pattern = re.compile(facts["pattern"])
    except (re.error, RecursionError) as error:
        raise AnomalyError(
            f"{where}: pattern {facts['pattern']!r} found, a regular expression expected: {error}"
        ) from error
    place = file.parent / facts["detector"]
    try:
        if place not in opened:
            opened[place] = Scorer(place, threads=1, **given)
    except AnomalyError as error:
        raise AnomalyError(f"{where}: {error}") from error
    return Product(facts.get("name") or opened[place].card.name, pattern, opened[place])
