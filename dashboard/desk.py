"""What the server holds for all its pages and routes: one store, one key, the pictures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from anomaly.plant.settings import Plant, read_plant
from anomaly.review import Detector, Store
from anomaly.statistics.calibration import Calibration
from anomaly.statistics.drift import ScoreWatch, Series, watch
from anomaly.statistics.lights import Light
from dashboard.access import Key
from dashboard.detectors import DetectorFiles
from dashboard.images import Pictures
from dashboard.jobs import JobDesk
from dashboard.settings import Settings

MAX_KEPT_RESULTS = 6  # results that are kept; each a few MB at 100,000 images


Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Known:
    """A detector with its calibration read from the card."""

    detector: Detector
    calibration: Calibration | None

    @property
    def what(self) -> str:
        """What the guarantee counts."""
        return "image" if self.detector.unit_rule is None else "unit"

    @property
    def short(self) -> str:
        """Name, version and the beginning of the digest."""
        return f"{self.detector.name} {self.detector.version} ({self.detector.digest[:8]})"


@dataclass(frozen=True)
class Desk:
    """Threads may share it."""

    settings: Settings
    key: Key
    store: Store
    files: DetectorFiles
    pictures: Pictures
    plant: Plant
    jobs: JobDesk | None = None  # where the server was started with --jobs
    _known: dict[str, Known] = field(default_factory=dict)
    _kept: dict[tuple[object, ...], Any] = field(default_factory=dict)

    @classmethod
    def open(cls, settings: Settings) -> Desk:
        """Returns the desk of a server; AnomalyError where the database cannot be opened."""
        store = Store(settings.database, create=False)
        files = DetectorFiles(store, [Path(place) for place in settings.detectors])
        pictures, jobs = Pictures(store, files), JobDesk.of(settings)
        if jobs is not None:
            jobs.wake()
        plant = read_plant(Path(settings.plant) if settings.plant else None)
        return cls(settings, settings.key, store, files, pictures, plant, jobs)

    def detector(self, digest: str) -> Known:
        """Returns a detector of the store. Its card never changes once it is there, so it is read
        once.
        """
        known = self._known.get(digest)
        if known is None:
            detector = self.store.detector(digest)
            known = Known(detector, detector.calibration)
            if detector.card is not None:
                self._known[digest] = known
        return known

    def detector_of(self, run: int) -> Known:
        """Returns the detector that scored a run."""
        return self.detector(self.store.run(run).detector)

    def scores(self, run: int) -> NDArray[np.float32]:
        """Returns the scores of a run's judged images."""
        return self._keep(("scores", run), lambda: self.store.scores(run))

    def watched(self, detector: str, depth: int) -> tuple[list[Series], list[ScoreWatch]]:
        """Returns the scores of all runs of a detector in the order of time, for each line, and
        what is found of them.
        """
        calibration = self.detector(detector).calibration

        def make() -> tuple[list[Series], list[ScoreWatch]]:
            found = self.store.series(detector, depth=depth)
            return found, watch(found, calibration)

        # a card may come later than its first run
        return self._keep(("series", self._runs(detector), depth, calibration is None), make)

    def lights(self, detector: str, days: int) -> list[Light]:
        """Returns a light for each line and each of the last days of a detector."""
        calendar, names = self.plant.calendar, self.plant.names
        return self._keep(
            ("lights", self._runs(detector), days),
            lambda: self.store.lights(detector, days, shifts=calendar, names=names),
        )

    def _runs(self, detector: str) -> tuple[tuple[int, int], ...]:
        """The runs of a detector with their images: a service's grow."""
        return tuple((run.id, run.images) for run in self.store.runs() if run.detector == detector)

    def with_common_images(self, run: int) -> list[int]:
        """Returns the other runs that judged an image of this run too, the newest first."""
        runs = tuple((one.id, one.images) for one in self.store.runs())
        return self._keep(("common", run, runs), lambda: self.store.with_common_images(run))

    def _keep(self, key: tuple[object, ...], make: Callable[[], Kept]) -> Kept:
        """Runs never change, so what was read of one is kept, of the last few."""
        found: Kept | None = self._kept.get(key)  # of the type that its key stands for
        if found is None:
            found = make()
            for old in list(self._kept)[: 1 - MAX_KEPT_RESULTS]:
                self._kept.pop(old, None)
            self._kept[key] = found
        return found


@functools.cache
def open_desk() -> Desk:
    """Returns the desk of this process: routes and pages run in the same one."""
    return Desk.open(Settings.from_environment())
