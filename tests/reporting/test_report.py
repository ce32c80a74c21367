from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from anomaly.imaging.overlay import grid, overlay, save_png, shrink, stretched
from anomaly.reporting.report import GalleryItem, Report, page, write_report
from anomaly.reporting.wording import guarantee_text
from anomaly.statistics.calibration import Rate, calibrate

RNG = np.random.default_rng(0)
CALIBRATION = calibrate(np.linspace(0.2, 0.6, 199))
GREY = np.full((40, 60, 3), 128, np.uint8)
CARD: dict[str, Any] = {
    "name": "tiles",
    "version": "2",
    "digest": "00ff",
    "model": "linear",
    "space": "features",
    "size": 256,
    "score": "largest value of the heatmap",
    "decode": {"alpha": "white"},
    "calibration": CALIBRATION.to_json(),
    "licences": {"weights": "Apache-2.0"},
    "parent": None,
    "training": {
        "images": 600,
        "groups": 599,
        "sets": {"fit": 400, "calibration": 199},
        "seed": 0,
        "command": "train",
    },
}


def interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


FIGURES: dict[str, Any] = {
    "image_auroc": interval(0.941, 0.92, 0.96),
    "average_precision": interval(0.9, 0.8, 0.95),
    "false_alarms": {
        "guaranteed_rate": 0.01,
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
        Report("tiles", {"name": "tiles", "version": "1"}, "rank only: guarantees nothing")
    )
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", source) == ["What is guaranteed", "The detector"]
    assert section(source, "guarantee") == "What is guaranteed rank only: guarantees nothing"


def test_the_figures_say_counts_first() -> None:
    assert section(page(full()), "figures") == (
        "What it does "
        "Good images flagged 4 of 302 expected 3, up to 8 is ordinary ✓ as guaranteed "
        "Defects flagged 87 of 120 72 %; 95 %: 64 to 80 % 33 missed "
        "Ranking (AUROC) 0.941 95 %: 0.920 to 0.960 1 is perfect, 0.5 is chance "
        "Average precision 0.900 95 %: 0.800 to 0.950 1 is perfect "
        "Where it is (AUPRO) 0.880 pixel AUROC 0.970 "
        "302 good and 120 defective images were judged. "
        "The same in words ranking (AUROC) 0.941"
    )


def test_a_broken_guarantee_is_said() -> None:
    alarms = FIGURES["false_alarms"] | {"flagged": 9}
    said = section(page(full(figures=FIGURES | {"false_alarms": alarms})), "figures")
    assert (
        "9 of 302 expected 3, up to 8 is ordinary ✗ more than chance explains: these are "
        "unlike the images"
    ) in said


def test_without_a_threshold_nothing_is_claimed() -> None:
    card = CARD | {"calibration": None}
    figures = FIGURES | {"false_alarms": None, "recall": None}
    source = page(full(card=card, figures=figures, threshold=None, median=None, p_values=None))
    assert (
        "Good images flagged \N{EN DASH} no threshold, or no good images Defects flagged "
        "unknown no threshold"
    ) in section(source, "figures")
    assert 'id="calibration"' not in source
    assert "above the threshold" not in source and "threshold none: rank only" in section(
        source, "detector"
    )


def test_the_guarantee_keeps_its_words() -> None:
    text = guarantee_text(CALIBRATION, 600, highest=["good/0412.jpg", "good/0077.jpg"])
    found = section(page(full(guarantee=text)), "guarantee")
    assert found == "What is guaranteed " + " ".join(text.split())


def test_the_worst_class_comes_first() -> None:
    assert section(page(full()), "classes").split("Flagged ", 1)[1] == (
        "crack 61 0.910 95 %: 0.800 to 0.950 37 of 60 62 %; 95 %: 48 to 74 % "
        "blowhole 60 0.970 95 %: 0.900 to 0.990 50 of 60 83 %; 95 %: 71 to 92 % "
        "fray 0 \N{EN DASH} \N{EN DASH}"
    )


def test_scores_are_counted_at_the_threshold() -> None:
    scores = {"good": [0.1, 0.5, 0.5, 0.50001], "crack": [0.5, 9.0, np.inf, np.nan], "empty": []}
    source = page(full(scores=scores, threshold=0.5))
    labels = [
        a["aria-label"] for a in Page(source).all("svg") if str(a.get("class")).startswith("strip")
    ]
    assert labels == [
        "Scores of 4 images, good: 1 above the threshold",
        "Scores of 2 images, crack: 1 above the threshold",
    ]


@pytest.mark.parametrize("scores", [[0.5], [0.5, 0.5], [-1e30, 1e30], [0.0, 0.0], [1e-40, 2e-40]])
def test_odd_scores_are_drawn(scores: list[float]) -> None:
    source = page(full(scores={"good": scores}, threshold=scores[0]))
    drawn = re.search(r'<section id="scores".*?</section>', source, re.DOTALL)
    assert drawn is not None and not re.search(r"\b(nan|inf)\b", drawn[0])


def test_the_calibration_band_holds_uniform_p_values_and_not_others() -> None:
    kept = section(page(full(p_values=np.arange(1, 201) / 200)), "calibration")
    assert "the curve is outside at 0 (by chance alone" in kept
    broken = section(page(full(p_values=np.full(200, 1 / 200))), "calibration")
    assert int(re.search(r"outside at (\d+) ", broken)[1]) > 50  # type: ignore[index]


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
    card = dict.fromkeys(CARD, text) | {
        "calibration": CALIBRATION.to_json() | {text: text},
        "licences": {text: text},
        "training": dict.fromkeys(CARD["training"], text)
        | {"sets": {text: text}, "versions": {text: text}, "ranges": {text: text}},
        "decode": {text: text},
    }
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
    report = full(
        galleries={"misses": items, "false alarms": items, "most anomalous": items, "other": items},
        figures=FIGURES | {"per_class": many},
        figures_text="line\n" * 1_000_000,
        scores={name: scores[i : i + 2] for i, name in enumerate(many)} | {"good": scores},
        p_values=CALIBRATION.p_value(scores),
        roc=(np.linspace(0, 1, 10_000), np.linspace(0, 1, 10_000)),
        curves={str(i): scores for i in range(100)},
        notes=["note " * 1000] * 10_000,
        card=CARD
        | {"training": CARD["training"] | {"ranges": {str(i): i for i in range(100_000)}}},
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


def test_an_image_that_was_not_judged_has_no_heatmap() -> None:
    found = section(
        page(full(galleries={"not inspected": [item(heatmap=None, expected=None)]})), "pictures"
    )
    assert found.endswith("original not available heatmap test/crack/1.png crack. FLAGGED.")


# ---- pictures ----


def test_a_normal_image_stays_as_it_is() -> None:
    calm = np.full((8, 8), 0.4, np.float32)  # a typical good image all over
    assert np.array_equal(overlay(GREY, calm, 0.4, 0.6), GREY)
    assert np.array_equal(overlay(GREY, calm - 5, 0.4, 0.6), GREY)


def test_the_threshold_is_yellow_twice_is_red_and_the_edge_is_drawn() -> None:
    heatmap = np.full((40, 60), 0.4, np.float32)
    heatmap[:, 20:] = 0.6
    heatmap[:, 40:] = 0.8
    colours = overlay(GREY, heatmap, 0.4, 0.6)[5, [5, 18, 25, 50]].tolist()
    assert colours == [[128, 128, 128], [20, 28, 36], [189, 173, 91], [202, 79, 57]]


@given(
    arrays.arrays(np.float32, (6, 6), elements=st.floats(-2, 2, width=32)),
    st.floats(-2, 2, width=32),
)
def test_a_colour_does_not_depend_on_the_rest_of_the_image(
    heatmap: np.ndarray, value: float
) -> None:
    heatmap[:3, :3] = value
    alone = overlay(GREY[:6, :6], np.full((6, 6), value, np.float32), 0.0, 1.0)
    edges_away = overlay(GREY[:6, :6], heatmap, 0.0, 1.0)[0, 0]
    assert edges_away.tolist() in (alone[0, 0].tolist(), [20, 28, 36])


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_not_a_number_is_high(odd: float) -> None:
    hot = overlay(GREY, np.full((8, 8), odd, np.float32), 0.4, 0.6)
    assert np.array_equal(hot, overlay(GREY, np.full((8, 8), 1e6, np.float32), 0.4, 0.6))


def test_equal_calibration_scores_do_not_break_the_colours() -> None:
    heatmap = np.full((40, 60), 0.5, np.float32)
    heatmap[:, 30:] = 0.75
    laid = overlay(GREY, heatmap, 0.5, 0.5)
    assert [laid[5, 10].tolist(), laid[5, 50].tolist()] == [[128, 128, 128], [122, 34, 106]]


def test_a_grid_goes_row_by_row() -> None:
    images = [
        np.full((1, 2, 3), 10, np.uint8),
        np.full((1, 2, 3), 20, np.uint8),
        np.full((1, 1, 3), 30, np.uint8),
    ]
    assert grid(images, columns=2, gap=1)[..., 0].tolist() == [
        [255, 255, 255, 255, 255, 255, 255],
        [255, 10, 10, 255, 20, 20, 255],
        [255, 255, 255, 255, 255, 255, 255],
        [255, 30, 255, 255, 255, 255, 255],
        [255, 255, 255, 255, 255, 255, 255],
    ]
    assert np.array_equal(grid(np.stack([GREY, GREY]), 2), grid([GREY, GREY], 2))


def test_pictures_are_shrunk_and_never_enlarged() -> None:
    assert shrink(np.zeros((4000, 1000, 3), np.uint8)).shape == (320, 80, 3)
    assert shrink(np.zeros((1, 9999, 3), np.uint8)).shape == (1, 320, 3)
    assert shrink(GREY).shape == GREY.shape


def test_what_was_expected_has_the_shape_of_its_picture() -> None:
    tall = np.zeros((40, 20, 3), np.uint8)
    found = page(
        full(galleries={"misses": [item(original=tall, heatmap=np.zeros((4, 4), np.float32))]})
    )
    assert found.count('width="20" height="40"') == 3  # original, expected and heatmap
    ramp = np.repeat(np.arange(16, dtype=np.uint8)[:, None, None], 16, 1).repeat(3, 2)
    assert stretched(ramp, tall).shape == tall.shape
    assert stretched(ramp, tall)[0].max() == 0 and stretched(ramp, tall)[-1].min() == 15


def test_a_png_is_what_was_given(tmp_path: Path) -> None:
    picture = RNG.integers(0, 256, (5, 7, 3), np.uint8)
    save_png(tmp_path / "p.png", picture)
    with Image.open(tmp_path / "p.png") as image:
        assert np.array_equal(np.asarray(image), picture)
