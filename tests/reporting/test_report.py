"""What a report shows; and reports for the tests of its figures, drawings, pictures and page."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np

from anomaly.detector.card import Card
from anomaly.detector.training_facts import TrainingFacts
from anomaly.imaging.decode import DecodeRule
from anomaly.reporting.guarantee import guarantee_text
from anomaly.reporting.page import page
from anomaly.reporting.report import GalleryItem, Report
from anomaly.statistics.calibration import Rate, calibrate

RNG = np.random.default_rng(0)
CALIBRATION = calibrate(np.linspace(0.2, 0.6, 199))
GREY = np.full((40, 60, 3), 128, np.uint8)
CARD = Card(
    name="tiles",
    version="2",
    digest="00ff",
    model="linear",
    space="features",
    size=256,
    score="largest value of the heatmap",
    decode=DecodeRule(alpha="white"),
    calibration=CALIBRATION,
    training=TrainingFacts(
        images=600,
        groups=599,
        sets={"fit": 400, "calibration": 199},
        seed=0,
        command="train",
    ),
    golden={},
    licences={"weights": "Apache-2.0"},
    quality=None,
    parent=None,
    weights="",
)


def interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


FIGURES: dict[str, Any] = {
    "image_auroc": interval(0.941, 0.92, 0.96),
    "average_precision": interval(0.9, 0.8, 0.95),
    "false_alarms": {
        "guaranteed_rate": 0.01,
        "estimated_rate": None,
        "upper_bound": 0.023,
        "n": 302,
        "flagged": 4,
        "ordinary_up_to": 8,
    },
    "recall": Rate.of(87, 120).to_json(),
    "pixel_auroc": 0.97,
    "aupro": 0.88,
    "n_normal": 302,
    "n_anomalous": 120,
    "per_class": {
        "blowhole": {
            "image_auroc": interval(0.97, 0.9, 0.99),
            "recall": Rate.of(50, 60).to_json(),
            "n": 60,
        },
        "crack": {
            "image_auroc": interval(0.91, 0.8, 0.95),
            "recall": Rate.of(37, 60).to_json(),
            "n": 61,
        },
        "fray": {"image_auroc": None, "recall": None, "n": 0},
    },
}


def item(
    path: str = "test/crack/1.png", caption: str = "crack. FLAGGED.", **changes: Any
) -> GalleryItem:
    heatmap = np.full((8, 8), 0.4, np.float32)
    return dataclasses.replace(GalleryItem(path, caption, GREY, GREY, heatmap, 0.4, 0.6), **changes)


def full(**changes: Any) -> Report:
    report = Report(
        title="tiles on test",
        card=CARD,
        guarantee=guarantee_text(CALIBRATION, 600),
        figures=FIGURES,
        figures_text="ranking (AUROC)  0.941",
        roc=([0, 0, 0.1, 1], [0, 0.5, 0.9, 1]),
        scores={
            "good": RNG.normal(0.4, 0.1, 302),
            "crack": RNG.normal(0.7, 0.2, 60),
            "blowhole": [0.5, 0.9],
        },
        threshold=float(CALIBRATION.threshold),
        median=float(CALIBRATION.median),
        p_values=np.arange(1, 201) / 200,
        galleries={"misses": [item()], "most anomalous": [item("a.png", "good.", expected=None)]},
        curves={"training images": [3.0, 2.0, 1.0], "held-out good images": [3.1, 2.2, 1.3]},
        notes=["non-commercial: do not ship this detector"],
    )
    return dataclasses.replace(report, **changes)


class Page(HTMLParser):
    """What a browser finds in a page: tags with attributes, and text."""

    VOID = frozenset(("meta", "img", "path", "rect", "line", "circle", "polyline", "polygon"))

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def section(source: str, name: str) -> str:
    """Returns the text of one section."""
    return Page(re.search(rf'<section id="{name}".*?</section>', source, re.DOTALL)[0]).text  # type: ignore[index]


def test_a_full_report_has_every_section() -> None:
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page(full()))
    assert headings == [
        "What it does",
        "What is guaranteed",
        "Pictures",
        "Kinds of defects",
        "Scores",
        "Ranking",
        "Is the guarantee kept?",
        "Training",
        "The detector",
    ]


def test_a_report_of_a_training_alone_leaves_out_what_there_is_not() -> None:
    source = page(
        Report(
            "tiles", dataclasses.replace(CARD, calibration=None), "rank only: guarantees nothing"
        )
    )
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", source) == ["What is guaranteed", "The detector"]
    assert section(source, "guarantee") == "What is guaranteed rank only: guarantees nothing"


def test_the_guarantee_keeps_its_words() -> None:
    text = guarantee_text(CALIBRATION, 600, highest=["good/0412.jpg", "good/0077.jpg"])
    found = section(page(full(guarantee=text)), "guarantee")
    assert found == "What is guaranteed " + " ".join(text.split())
