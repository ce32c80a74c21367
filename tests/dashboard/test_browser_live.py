"""The page Live in a real browser, before a real `anomaly run`."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("sqlalchemy")
pytest.importorskip("torch")
pytest.importorskip("playwright")

from anomaly.detector.file import read_card
from anomaly.quality.moved_threshold import write_moved
from anomaly.review import Filters, Store
from anomaly.scorer import Scorer
from anomaly.station.live import read_live
from tests.support.browsing import SIZES
from tests.support.review_server import (
    KEY,
    Client,
    Server,
    find_chromium,
    free_port,
    serving,
)
from tests.support.stations import Station, station, wait_until

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium found: apt-get install chromium"
)
TIMEOUT_MS = 60_000  # milliseconds that something may take on a machine where others use the cores
TOML = """
[[source]]
kind = "folder"
name = "left"
path = "incoming"

[[source]]
kind = "http"
name = "post"
port = {port}

[[sink]]
kind = "stdout"
name = "line"

[[sink]]
kind = "review"
name = "desk"
database = "review.db"
create = true
"""


@pytest.fixture(scope="module")
def two_thresholds(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector with a review threshold: half of good images are flagged or looked at."""
    out = tmp_path_factory.mktemp("two") / "detector.onnx"
    calibration = read_card(made / "run").calibration
    assert calibration is not None
    write_moved(made / "run", replace(calibration, review_rate=0.5), out, by="test")
    return out


@pytest.fixture
def running(two_thresholds: Path, tmp_path: Path) -> Iterator[Station]:
    (tmp_path / "incoming").mkdir()
    with station(tmp_path, two_thresholds, TOML.format(port=free_port())) as made:
        made.start()
        yield made


@pytest.fixture
def shown(running: Station, two_thresholds: Path) -> Iterator[Server]:
    folder = running.home / "station"
    with serving(
        running.home / "review.db", detectors=(two_thresholds,), stations=(folder,)
    ) as server:
        yield server


@pytest.fixture(scope="module")
def images(made: Path, two_thresholds: Path) -> dict[str, list[Path]]:
    """Images of the test set by what the detector says of them."""
    scorer = Scorer(two_thresholds, device="cpu")
    found: dict[str, list[Path]] = {}
    for path in sorted((made / "parts" / "test").rglob("*.png")):
        found.setdefault(str(scorer.score(path).result), []).append(path)
    return found


def arrive(running: Station, image: Path, name: str) -> None:
    """Puts an image where the station looks, whole at once."""
    unfinished = running.home / f".{name}"
    shutil.copy(image, unfinished)
    unfinished.rename(running.home / "incoming" / name)


def state(page: Any, wanted: str) -> Any:
    """Waits until the page shows a state, and returns its banner's colour."""
    page.locator(f'.live[data-state="{wanted}"]').wait_for(timeout=TIMEOUT_MS)
    return page.locator(".banner").evaluate("node => getComputedStyle(node).backgroundColor")


def test_each_result_is_shown_and_a_dead_station_is_never_green(
    running: Station, shown: Server, images: dict[str, list[Path]], open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{shown.url}/live")
    state(page, "waiting")
    seen = {}
    for number, wanted in enumerate(("not flagged", "review", "flagged")):
        arrive(running, images[wanted][0], f"{number}.png")
        seen[wanted] = state(page, wanted)
        page.get_by_text(f"{number}.png", exact=True).wait_for(timeout=TIMEOUT_MS)
    (running.home / "incoming" / "3.png").write_bytes(b"no image")
    seen["not judged"] = state(page, "not judged")
    assert len(set(seen.values())) == 4
    red, green, _ = map(int, re.findall(r"\d+", seen["not flagged"])[:3])
    assert green > 2 * red
    red, green, _ = map(int, re.findall(r"\d+", seen["flagged"])[:3])
    assert red > 2 * green
    # letters of the word: 3 m away a line of 15 mm, 60 pixels of a usual screen, can be read
    assert (
        page.locator(".word").evaluate("node => parseFloat(getComputedStyle(node).fontSize)") > 60
    )
    counts = page.locator("[data-part=counts] dd").all_inner_texts()
    assert [text.split(" ")[0] for text in counts] == ["1", "1", "1", "1"]
    assert "1 of 3 images judged are flagged; if all are good expect" in page.inner_text(
        "[data-part=ordinary]"
    )
    assert page.locator("[data-part=sources] li[data-state=ok]").count() == 2
    assert page.locator("[data-part=sinks] li[data-state=ok]").count() == 2
    assert page.locator("[data-part=last] li").count() == 4
    # the picture of a result that is chosen, in its full size
    page.locator("[data-part=last] li button").nth(1).click()
    image = page.locator("[data-part=image]")
    wait_until(lambda: image.evaluate("node => node.naturalWidth") == 160, "the picture")
    assert "2.png: flagged, score" in page.inner_text("[data-part=caption]")
    page.get_by_text("Back to the newest").click()

    arrive(running, images["not flagged"][1], "4.png")
    state(page, "not flagged")
    running.kill()
    began = time.monotonic()
    grey = state(page, "silent")
    assert time.monotonic() - began < 20 and grey not in seen.values()
    assert page.inner_text(".word").endswith("NO SIGN OF LIFE")
    running.launch()  # it goes on, with its counters
    state(page, "not flagged")
    shown.kill()  # then nobody knows
    state(page, "silent")
    assert "nothing new for" in page.inner_text("[data-part=why]")
    shown.start()
    state(page, "not flagged")


def test_new_findings_appear_in_the_queue_without_a_reload(
    running: Station, shown: Server, images: dict[str, list[Path]], open_page: Callable[..., Any]
) -> None:
    arrive(running, images["flagged"][0], "first.png")
    running.judged(1)
    page = open_page(shown.url)
    page.locator(".sheet .card").first.wait_for(timeout=TIMEOUT_MS)
    page.evaluate("window.stayed = true")
    arrive(running, images["flagged"][1], "second.png")
    arrive(running, images["review"][0], "third.png")
    cards = page.locator(".sheet .card")
    wait_until(lambda: cards.count() == 3, "three findings")
    assert page.evaluate("window.stayed")
    notes = page.locator(".sheet .said span").all_inner_texts()
    assert notes == ["flagged", "flagged", "review"]  # by score
    with Store(shown.settings.database) as store:
        run = store.runs()[0]
        assert (run.flagged, run.review) == (2, 1)
        assert store.remaining("anomalous", Filters(run=run.id)) == (3, 3)
        assert store.count(Filters(run=run.id, result="review")) == 1


def test_who_posts_an_image_hears_of_both_thresholds_and_the_page_fits_every_screen(
    two_thresholds: Path,
    running: Station,
    shown: Server,
    images: dict[str, list[Path]],
    open_page: Callable[..., Any],
) -> None:
    calibration = read_card(two_thresholds).calibration
    assert calibration is not None
    port = int(running.toml.partition("port = ")[2].split()[0])
    for outcome, action in (("flagged", "reject"), ("review", "reject"), ("not flagged", "pass")):
        answer = running.post(port, images[outcome][0].read_bytes())
        assert answer.status == 200
        assert (answer.json["outcome"], answer.json["action"]) == (outcome, action)
        assert answer.json["threshold"] == pytest.approx(float(calibration.threshold))
        lower = answer.json["review_threshold"]
        assert lower == pytest.approx(float(calibration.review_threshold))
        assert (answer.json["score"] > lower) == (outcome != "not flagged")
    for size in (*SIZES, (1024, 768), (768, 1024)):
        page = open_page(f"{shown.url}/live", size)
        state(page, "not flagged")
        page.locator("[data-part=last] li").nth(2).wait_for(timeout=TIMEOUT_MS)
        found = page.locator(".live").evaluate(
            "node => [node.scrollWidth <= node.clientWidth, node.getBoundingClientRect().bottom]"
        )
        assert found[0], size
        if size[0] > 900:  # all of it, without scrolling
            assert found[1] <= size[1], size
        word = page.locator(".word").bounding_box()
        assert word["x"] >= 0 and word["x"] + word["width"] <= size[0], size


def test_routes_of_a_station(
    running: Station, shown: Server, images: dict[str, list[Path]]
) -> None:
    client = Client(shown.port)
    assert client.ask("GET", "/api/live/0").status == 401
    assert client.get("/api/live/1").status == 404
    arrive(running, images["flagged"][0], "a.png")
    running.judged(1)
    deadline = time.monotonic() + 30
    while not (last := client.get("/api/live/0").json["last"])[0]["heatmap"]:
        assert time.monotonic() < deadline
    picture = client.ask("GET", last[0]["heatmap"])
    assert picture.status == 200 and picture.data[:2] == b"\xff\xd8"
    unsigned = last[0]["heatmap"].partition("?")[0]
    assert client.ask("GET", unsigned).status == 403
    for name in ("station.db", "000000009.jpg"):
        answer = client.ask("GET", KEY.signed(f"/station/0/{name}"))
        assert answer.status in (403, 404)
        assert str(running.home).encode() not in answer.data
    assert client.ask("GET", KEY.signed("/station/0/..%2Flive.json")).status == 400
    # a state that is damaged, or of another version, is silent
    running.kill()
    file = running.home / "station" / "live.json"
    for text in (
        "{",
        "[]",
        json.dumps({"format": 2}),
        json.dumps({**read_live(file.parent), "last": 3}),
    ):
        file.write_text(text)
        answer = client.get("/api/live/0")
        assert (answer.status, answer.json["state"]) == (200, "silent")
