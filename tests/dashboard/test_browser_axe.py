"""Every page, looked at by axe-core in a real browser: what it calls serious or critical is a fault
for those who see little, or work without a mouse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("sqlalchemy")
pytest.importorskip("torch")
pytest.importorskip("playwright")
pytest.importorskip("axe_playwright_python")

from anomaly.review import Filters, Store, default_key
from tests.support.browsing import wait_for_picture
from tests.support.review_server import Server, find_chromium, new_database, serving

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium found: apt-get install chromium"
)
AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
# experimental in axe-core: what is read aloud begins with what is seen
RULES = "{'label-content-name-mismatch': {enabled: true}}"
DRAWN = {  # by page: what says that a page has been drawn
    "Queue": "a.card",
    "Image": "[data-part=bar][data-ready=true]",
    "Threshold": "[data-testid=stMetric]",
    "Team": "[data-testid=stMetric]",
    "Statistics": "svg[role=img]",
    "Drift": "canvas.marks, svg.marks, .vega-embed",
    "Runs": "[data-testid=stDataFrame]",
    "Calibration": "[data-testid=stHeading], [data-testid=stAlert], img",
    "Mask": "input[type=file]",
    "Live": ".live[data-state]",
}


@pytest.fixture(scope="module")
def busy(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two runs, verdicts of every kind, an audit sample and a station."""
    folder = tmp_path_factory.mktemp("axe")
    database, run = new_database(made, folder, name="line 3")
    with Store(database) as store:
        found = store.findings(Filters(run=run), limit=6)
        for finding, verdict in zip(found, ("anomalous", "normal", "unsure"), strict=False):
            store.record("ann", finding.id, verdict, key=default_key(), comment="seen")
        store.record("bo", found[0].id, "normal", key=default_key())
        store.draw_audit(run, 20, by="admin", key=default_key())
    (folder / "station").mkdir()
    with serving(database, detectors=(made / "run",), stations=(folder / "station",)) as running:
        yield running


def faults(page: Any) -> list[str]:
    """Returns what axe-core finds serious or critical on the page, a line for each."""
    page.evaluate(AXE)
    found = page.evaluate(f"axe.run({{resultTypes: ['violations'], rules: {RULES}}})")
    return [
        f"{one['id']}: {node['html'][:160]} ({' '.join(node['failureSummary'].split())[:200]})"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_fault(
    busy: Server, open_page: Callable[..., Any], scheme: str
) -> None:
    page = open_page(busy.url, color_scheme=scheme)
    said = {}
    for name, ready in DRAWN.items():
        page.get_by_role("link", name=name, exact=True).click()
        page.locator(ready).first.wait_for(state="attached")
        page.wait_for_timeout(1000)
        if name == "Image":
            wait_for_picture(page)
        if name == "Queue":  # with some selected, the bar has its buttons
            page.locator(".tick").nth(4).click()
            page.get_by_role("button", name="Anomalous").wait_for()
        said[name] = faults(page)
    assert said == {name: [] for name in DRAWN}


def test_where_the_keyboard_is_can_be_seen_and_is_not_what_is_chosen(
    busy: Server, open_page: Callable[..., Any]
) -> None:
    page = open_page(busy.url)
    page.locator("a.card").first.wait_for()
    ring = "e => { const s = getComputedStyle(e); return [s.outlineStyle, s.outlineColor]; }"
    black = ["solid", "rgb(0, 0, 0)"]
    current = page.get_by_role("link", name="Queue", exact=True)
    other = page.get_by_role("link", name="Team", exact=True)
    card = page.locator("a.card").nth(1)
    page.locator(".tick").first.click()
    for one in (other, card):
        one.focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        assert one.evaluate(ring) == black
    assert current.evaluate(ring) != black
    assert page.locator("li[data-selected=true] a.card").evaluate(ring) != black
