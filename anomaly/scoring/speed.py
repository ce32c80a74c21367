"""How fast a detector scores: what was measured, and what bounds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Bench:
    """What was measured. ``decode``, ``model``, ``end_to_end``: images a second, all threads
    together.

    ``decode`` reads files and decodes them, ``model`` runs the graph on decoded pixels,
    ``end_to_end`` is what `anomaly score` does. ``one_image``: milliseconds from a path to a
    result for one image at a time (the graph on all cores), percentiles over ``calls`` calls.
    ``start_up``: seconds from starting the program to a table of one row. ``loaded``, ``peak``:
    megabytes that a process holds with the detector loaded, and while it scores.
    """

    detector: str
    device: str
    threads: int
    images: int
    sizes: str
    decode: float
    model: float
    end_to_end: float
    one_image: dict[str, float]
    calls: int
    start_up: float
    loaded: float
    peak: float

    @property
    def bound(self) -> float:
        """Images a second that decoding and the model allow: on a CPU they share the cores, on a
        GPU the slower one.
        """
        return (
            1 / (1 / self.decode + 1 / self.model)
            if self.device == "cpu"
            else min(self.decode, self.model)
        )

    @property
    def reached(self) -> float:
        """End to end as a share of the bound. (Above 1 where reading or computing overlaps with
        something else.)
        """
        return self.end_to_end / self.bound

    @property
    def bounded_by(self) -> str:
        return "decoding" if self.decode < self.model else "the model"

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as plain data."""
        return {
            **asdict(self),
            "bound": self.bound,
            "reached": self.reached,
            "bounded_by": self.bounded_by,
        }
