"""What the routes work with: detectors, workers, keys, metrics, the way to the review database."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anomaly.errors import RequestError
from anomaly.serve.access import Keys
from anomaly.serve.detectors import Detectors, Served
from anomaly.serve.log import say
from anomaly.serve.metrics import Metrics
from anomaly.serve.workers import SPARE_SECONDS, Workers

if TYPE_CHECKING:
    from anomaly.review.outbox import Outbox


@dataclass
class Service:
    """What the routes work with. ``max_bytes``: of a request's body; ``outbox``: to the review
    database.
    """

    detectors: Detectors
    workers: Workers
    keys: Keys = field(default_factory=Keys)
    max_bytes: int = 32 << 20
    outbox: Outbox | None = None
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(lambda: self.workers.inside)
        if (outbox := self.outbox) is not None:
            self.metrics.watch_outbox(lambda: outbox.stored, lambda: outbox.dropped)
        for name in self.detectors.names:
            self.metrics.watch(self.detector(name))

    def close(self) -> None:
        """Waits for the jobs that were taken, not for ever, and for the findings that they left."""
        if running := self.workers.close():
            seconds = f"{self.workers.seconds + SPARE_SECONDS:g} s"
            say(
                f"not done within {seconds}: they end with the process",
                logging.WARNING,
                running=running,
            )
        if self.outbox is not None:
            self.outbox.close()

    def detector(self, name: str | None, version: str | None = None) -> Served:
        """Returns a detector by its name, the only one where none is named; RequestError 404
        or 422.
        """
        names = self.detectors.names
        if name is None and len(names) != 1:
            raise RequestError(
                422, f"no detector named, one of {', '.join(names)} expected: /score?detector=NAME"
            )
        served = self.detectors.get(names[0] if name is None else name)
        if served is None:
            raise RequestError(
                404, f"detector {name!r} is not served here; there are {', '.join(names)}"
            )
        if version not in (None, served.scorer.card.version):
            raise RequestError(
                404,
                f"version {version!r} is not served here, version {served.scorer.card.version!r} "
                "is",
            )
        return served

    def refresh(self) -> None:
        """Loads what has changed on the disk."""
        for served, error in self.detectors.refresh():
            self.metrics.reloads.labels(served.name, "failed" if error else "loaded").inc()
            if error is None:
                self.metrics.watch(served)
                say(
                    "detector loaded anew",
                    detector=served.name,
                    identity=served.scorer.card.identity,
                )
            else:
                say("the old detector stays", logging.ERROR, detector=served.name, error=str(error))
