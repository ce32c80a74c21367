"""What Prometheus reads: requests, waiting, images by result, scores, the share flagged, and
whether scores have drifted.

Scores are counted in (score - m) / (threshold - m): 0 is a typical good image and 1 the threshold,
for every detector.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from anomaly.scorer import Result
from anomaly.serve.detectors import Served
from anomaly.statistics.calibration import Calibration, named_rate
from anomaly.statistics.change_point import follow

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SCORES = (-2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.5, 2.0, 5.0, 10.0, 100.0)
WINDOW = 1000  # images that the share flagged and the drift are taken from


class Recent:
    """The last scores of one detector, finite ones of images that were judged."""

    def __init__(self, calibration: Calibration | None) -> None:
        self.calibration = calibration
        self.scores: deque[float] = deque(maxlen=WINDOW)

    def flagged_share(self) -> float:
        """Returns the share of them that is above the threshold, NaN for none."""
        scores = list(self.scores)
        return (
            float(self.calibration.is_anomaly(scores).mean())
            if self.calibration and scores
            else math.nan
        )

    def drift(self) -> float:
        """Returns log10 of the highest evidence over the window that scores changed
        (``anomaly.statistics.change_point``), at least 0.

        While nothing changes, 5 or more has a chance of at most 1 in 100 for a window of 1,000
        images.
        """
        scores = np.array(self.scores, np.float32)
        if self.calibration is None or not len(scores):
            return 0.0
        evidence = follow(self.calibration.scores, scores, np.random.default_rng(0)).evidence
        return math.log10(max(float(evidence.max()), 1.0))


class Metrics:
    """The figures of one service."""

    def __init__(self, inside: Callable[[], float]) -> None:
        self.registry = registry = CollectorRegistry()
        of_detector = ["detector"]
        self.requests = Counter(
            "anomaly_requests",
            "Requests answered",
            ["route", "detector", "code"],
            registry=registry,
        )
        self.seconds = Histogram(
            "anomaly_request_seconds",
            "From a request's first byte to its answer",
            ["route", "detector"],
            buckets=SECONDS,
            registry=registry,
        )
        self.waited = Histogram(
            "anomaly_wait_seconds",
            "From a body's last byte to a free thread",
            buckets=SECONDS,
            registry=registry,
        )
        Gauge(
            "anomaly_requests_inside", "Requests being read, waiting or judged", registry=registry
        ).set_function(inside)
        self.images = Counter("anomaly_images", "Images", ["detector", "result"], registry=registry)
        self.scores = Histogram(
            "anomaly_score",
            "Scores; 0 is a typical good image, 1 the threshold",
            of_detector,
            buckets=SCORES,
            registry=registry,
        )
        self.share = Gauge(
            "anomaly_flagged_share",
            f"Share flagged of the last {WINDOW}",
            of_detector,
            registry=registry,
        )
        self.guaranteed_rate = Gauge(
            "anomaly_guaranteed_rate",
            "Guaranteed share of good images that is flagged",
            of_detector,
            registry=registry,
        )
        self.estimated_rate = Gauge(
            "anomaly_estimated_rate",
            "Estimated share of good images that is flagged, where none is guaranteed",
            of_detector,
            registry=registry,
        )
        self.drift = Gauge(
            "anomaly_drift_evidence",
            f"log10 of the evidence that the last {WINDOW} scores have changed; 5 is rare",
            of_detector,
            registry=registry,
        )
        self.reloads = Counter(
            "anomaly_reloads", "Detectors loaded anew", ["detector", "outcome"], registry=registry
        )
        self.refused = Counter(
            "anomaly_connections_refused", "Refused or closed early", ["reason"], registry=registry
        )
        self._recent: dict[str, Recent] = {}

    def refuse(self, reason: str) -> None:
        """Counts a connection that was refused or closed before it had a request."""
        self.refused.labels(reason).inc()

    def watch_connections(self, open_ones: Callable[[], float]) -> None:
        """Shows how many connections are open."""
        Gauge(
            "anomaly_connections", "Connections that are open", registry=self.registry
        ).set_function(open_ones)

    def watch_outbox(self, stored: Callable[[], float], dropped: Callable[[], float]) -> None:
        """Shows how many findings reached the review database, and how many did not."""
        Gauge(
            "anomaly_findings_stored", "Findings in the review database", registry=self.registry
        ).set_function(stored)
        Gauge("anomaly_findings_dropped", "Findings given up", registry=self.registry).set_function(
            dropped
        )

    def watch(self, served: Served) -> None:
        """Starts or, after a reload, starts again the window of a detector."""
        calibration = served.scorer.card.calibration
        recent = self._recent[served.name] = Recent(calibration)
        self.share.labels(served.name).set_function(recent.flagged_share)
        self.drift.labels(served.name).set_function(recent.drift)
        rates = named_rate(calibration.rate, calibration.kind) if calibration else {}
        for name, gauge in (
            ("guaranteed_rate", self.guaranteed_rate),
            ("estimated_rate", self.estimated_rate),
        ):
            value = rates.get(name)
            gauge.labels(served.name).set(math.nan if value is None else value)

    def count(self, served: Served, result: Result) -> None:
        """Counts one image."""
        said = result.status if result.status != "ok" else result.result or result.status
        self.images.labels(served.name, said).inc()
        if result.status != "ok" or result.score is None:
            return
        self._recent[served.name].scores.append(result.score)
        calibration = served.scorer.card.calibration
        if calibration is not None and calibration.threshold > calibration.median:
            unit = float(calibration.threshold) - float(calibration.median)
            self.scores.labels(served.name).observe(
                (result.score - float(calibration.median)) / unit
            )

    def text(self) -> bytes:
        """Returns everything in Prometheus's text format."""
        return generate_latest(self.registry)
