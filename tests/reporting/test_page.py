"""The page of a report: nothing from outside becomes markup, nothing is loaded, it stays small."""

from __future__ import annotations

import dataclasses
import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from anomaly.detector.training_facts import Ranges, TrainingFacts
from anomaly.errors import RuntimeMissing
from anomaly.reporting.page import page, templates, write_report
from tests.reporting.test_report import CALIBRATION, CARD, FIGURES, RNG, Page, full, item

ATTACKS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "</style><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "javascript:alert(1)",
    "{title} {0} {body.__class__}",
    "&lt;script&gt; &amp;",
    "<!-- ",
    "]]>",
    "line\nbreak\r\ttab\0zero\u202egnp.exe",
    "\udcff\ud800",
    "x" * 100_000,
]


@pytest.mark.parametrize("text", ATTACKS, ids=range(len(ATTACKS)))
def test_nothing_from_outside_becomes_markup(tmp_path: Path, text: str) -> None:
    facts = dict.fromkeys(("command", "target", "group_by"), text)
    facts |= {"sets": {text: 1}, "versions": {text: text}, "ranges": {text: text}, text: text}
    card = dataclasses.replace(
        CARD,
        **dict.fromkeys(("name", "version", "model", "space", "score", "parent", "digest"), text),
        training=TrainingFacts.from_json(facts),
        licences={text: text},
    )
    figures = FIGURES | {"per_class": {text: FIGURES["per_class"]["crack"]}, "detector": text}
    report = full(
        title=text,
        card=card,
        guarantee=f"{text}\nlimit   {text}",
        figures=figures,
        figures_text=text,
        scores={text: [1.0, 2.0], "good": [1.0]},
        galleries={text: [item(text, text)]},
        curves={text: [1.0, 2.0]},
        notes=[text],
    )
    write_report(tmp_path / "r.html", report)
    found, plain = Page((tmp_path / "r.html").read_text("utf-8")), Page(page(full()))
    assert {tag for tag, _ in found.tags} <= {tag for tag, _ in plain.tags} | {"p"}
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:image/jpeg;base64,").startswith(
            "data:image/jpeg;base64,"
        )  # type: ignore[union-attr]
        assert attributes.get("href", "#").startswith("#")  # type: ignore[union-attr]
        assert tag != "style" or attributes == {}
    assert len(found.all("img")) == 3 and len(found.all("script")) == 0
    assert not set(found.text) & set("\0\u202e\r")


def test_nothing_is_loaded_from_anywhere() -> None:
    source = page(full())
    assert not re.findall(r"https?://|@import|url\(|<script|<link|<iframe", source)
    policy = [
        a["content"]
        for a in Page(source).all("meta")
        if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_the_page_can_be_used_without_eyes() -> None:
    found = Page(page(full()))
    assert found.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in found.all("img"))
    assert all(
        a.get("aria-label") if a.get("role") == "img" else a.get("aria-hidden")
        for a in found.all("svg")
    )
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))
    assert {a.get("scope") for a in found.all("th")} == {"col", "row"}
    assert {a["href"] for a in found.all("a")} <= {f"#{a['id']}" for a in found.all("section")}


def test_a_report_of_10_000_images_stays_small(tmp_path: Path) -> None:
    noise = RNG.integers(0, 256, (640, 640, 3), np.uint8)  # of all pictures the largest as JPEG
    items = [
        item(f"{i}/{'x' * 5000}.png", "y" * 5000, original=noise, expected=noise)
        for i in range(10_000)
    ]
    many = {f"kind {i} {'z' * 200}": FIGURES["per_class"]["crack"] for i in range(10_000)}
    scores = RNG.normal(0.4, 0.1, 10_000)
    ranges = Ranges.from_json({str(i): i for i in range(100_000)})
    report = full(
        galleries={"misses": items, "false alarms": items, "most anomalous": items, "other": items},
        figures=FIGURES | {"per_class": many},
        figures_text="line\n" * 1_000_000,
        scores={name: scores[i : i + 2] for i, name in enumerate(many)} | {"good": scores},
        p_values=CALIBRATION.p_value(scores),
        roc=(np.linspace(0, 1, 10_000), np.linspace(0, 1, 10_000)),
        curves={str(i): scores for i in range(100)},
        notes=["note " * 1000] * 10_000,
        card=dataclasses.replace(CARD, training=dataclasses.replace(CARD.training, ranges=ranges)),
    )
    write_report(tmp_path / "r.html", report)
    assert 1_000_000 < (tmp_path / "r.html").stat().st_size < 8_000_000
    found = Page((tmp_path / "r.html").read_text("utf-8"))
    assert 50 < len(found.all("img")) < 4 * 24 * 3
    assert "more without pictures" in found.text


def test_a_report_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_report(
            path, full(galleries={"misses": [item(original=np.zeros((2, 2), np.complex64))]})
        )
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_without_jinja_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    templates.cache_clear()
    with pytest.raises(RuntimeMissing, match=r"needs Jinja2.*anomaly\[evaluate\]"):
        write_report(tmp_path / "r.html", full())
    assert not list(tmp_path.iterdir())
