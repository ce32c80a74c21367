"""Where exactly, as a person says it: regions drawn on the image, a good image beside it, a mask
drawn on one of the run, all of it by hand on a tablet too.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("streamlit")
pytest.importorskip("sqlalchemy")
pytest.importorskip("torch")
pytest.importorskip("playwright")

from playwright.sync_api import expect

from anomaly.imaging.good_images import FACTS, FILE, GoodImages
from anomaly.imaging.mask import read_mask, to_png
from anomaly.review import Store
from anomaly.review.regions import regions_of
from tests.support.browsing import drag, on_screen, pixel, shown
from tests.support.review_server import (
    Server,
    find_chromium,
    new_database,
    serving,
    wait_until_judgeable,
    wait_until_saved,
)

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium found: apt-get install chromium"
)
SIZE = 160  # pixels a side of the parts
ROWS, PANE = "[data-part=regions] .row", ".pane[data-kind=original]"
TABLET = {"has_touch": True, "is_mobile": True}


def picture(page: Any, name: str) -> None:
    if shots := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{shots}/{name}.png")


def setting(page: Any) -> dict[str, Any]:
    """Returns what the browser remembers of how the inspector looks at images."""
    text = page.evaluate(
        "Object.entries(localStorage).find(([name]) => name.startsWith('review.setting.'))?.[1]"
    )
    return json.loads(text or "{}")


def said_of(server: Server, finding: int) -> list[dict[str, Any]]:
    """Returns the regions of the verdict that counts, rounded to pixels."""
    with Store(server.settings.database) as store:
        events = list(store.current(finding).values())
    assert all(event.action == "anomalous" for event in events)
    return [
        {**region.to_json(), "points": [round(value) for value in region.points]}
        for event in events
        for region in regions_of(event)
    ]


def near(found: list[int], expected: list[int], by: int = 2) -> bool:
    return len(found) == len(expected) and bool(np.abs(np.subtract(found, expected)).max() <= by)


def test_a_defect_is_marked_corrected_and_taken_back_with_the_verdict(
    server: Server, open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{server.url}/image?run=1")
    wait_until_judgeable(page)
    finding, rows = shown(page), page.locator(ROWS)
    at = on_screen(page, PANE, SIZE, SIZE)
    page.keyboard.press("r")
    drag(page, at(20, 30), at(60, 50))
    expect(rows).to_have_count(1)
    page.keyboard.press("2")  # the type of what is selected
    expect(rows.first).to_contain_text("crack")
    drag(page, at(60, 50), at(70, 80))  # its corner
    drag(page, at(40, 50), at(50, 60))  # its middle
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    for place in ((90, 20), (130, 20), (130, 60)):
        page.mouse.click(*at(*place))
    page.keyboard.press("Enter")
    page.keyboard.press("w")
    drag(page, at(90, 120), at(140, 120))
    page.keyboard.press("w")
    page.keyboard.press("e")  # the detector's own
    expect(rows).to_have_count(4)
    picture(page, "regions")
    page.keyboard.press("Delete")
    expect(rows).to_have_count(3)
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    expect(rows).to_have_count(3)  # neither the deletion nor what it was of
    page.reload()  # nothing is lost, verdict or no verdict
    wait_until_judgeable(page)
    expect(rows).to_have_count(3)
    page.keyboard.press("a")
    wait_until_saved(page)
    box, polygon, stroke = said_of(server, finding)
    assert (box["kind"], box["type"]) == ("box", "crack")
    assert near(box["points"], [30, 40, 81, 90])
    assert polygon["kind"] == "polygon" and near(polygon["points"], [90, 20, 130, 20, 130, 60])
    assert stroke["kind"] == "brush" and near(stroke["points"][-2:], [140, 120])
    # what is said of the next image has none of them, and an undo brings them back with the image
    wait_until_judgeable(page)
    expect(rows).to_have_count(0)
    page.keyboard.press("z")
    wait_until_saved(page)
    expect(rows).to_have_count(3)
    assert shown(page) == finding and said_of(server, finding) == []
    wait_until_judgeable(page)
    page.locator("[data-part=regions] .away").nth(2).click()
    page.locator("[data-part=regions] .away").nth(1).click()
    page.keyboard.press("a")
    wait_until_saved(page)
    assert said_of(server, finding) == [box]


def test_what_one_looks_by_is_remembered_and_contours_are_lines(
    server: Server, open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{server.url}/image?run=1")
    wait_until_judgeable(page)
    count = (
        "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; }"
    )
    marks = page.locator(f"{PANE} canvas").nth(2)
    page.keyboard.press("b")
    page.wait_for_timeout(300)
    assert marks.evaluate(count) == 0
    page.keyboard.press("c")
    page.wait_for_timeout(700)
    assert 50 < marks.evaluate(count) < 60_000  # lines, no surface
    picture(page, "contours")
    page.locator("[data-part=opacity]").fill("0.7")
    page.get_by_role("button", name="Keep").click()
    for _ in range(3):
        page.keyboard.press("+")
    page.keyboard.press("j")
    wait_until_judgeable(page)
    assert setting(page)["view"]["zoom"] > 3
    page.reload()
    wait_until_judgeable(page)
    expect(page.locator("[data-part=contours]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("[data-part=box]")).to_have_attribute("aria-pressed", "false")
    assert page.locator("[data-part=opacity]").input_value() == "0.7"
    # the sheet has them too, in every size
    page.goto(f"{server.url}/?run=1")
    page.locator("a.card").first.wait_for()
    page.get_by_role("button", name="Contours").click()
    page.wait_for_function("() => true")
    lines = page.locator("a.card canvas.contours")
    lines.nth(2).wait_for()
    assert lines.nth(0).evaluate(count) > 20
    for size in "SL":
        page.get_by_role("button", name=size, exact=True).click()
        expect(lines.first).to_be_visible()
    picture(page, "sheet-contours")


def with_explained(made: Path, folder: Path, share: float) -> Path:
    """Returns a copy of the run whose expected picture is said to explain that share."""
    run = folder / "run"
    shutil.copytree(made / "run", run)
    with zipfile.ZipFile(made / "run" / FILE) as old, zipfile.ZipFile(run / FILE, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            facts = {**json.loads(data), "explained": share} if name == FACTS else None
            new.writestr(name, data if facts is None else json.dumps(facts))
    return run


def test_the_nearest_good_image_lies_beside_and_flickers_in_step(
    made: Path, tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    assert GoodImages.read(made / "run" / FILE).expected_helps  # discs are easily drawn
    run = with_explained(made, tmp_path, 0.1)
    database, _ = new_database(made, tmp_path)
    with serving(database, detectors=(run,)) as server:
        page = open_page(f"{server.url}/image?run=1")
        wait_until_judgeable(page)
        title = page.locator(".pane[data-kind=good] .title")
        expect(title).to_contain_text("Nearest good: ")
        expect(title).to_contain_text(".png")
        page.wait_for_timeout(500)
        assert middle(page, "good")[3] == 255
        # the expected picture does not show good images here: it is not shown unasked
        expect(page.locator(".pane[data-kind=expected]")).to_be_hidden()
        picture(page, "nearest-good")
        page.keyboard.press("h")
        page.keyboard.press("b")
        before = snapshot(page)
        page.keyboard.down("f")
        page.wait_for_timeout(300)
        flickered = snapshot(page)
        page.keyboard.up("f")
        page.wait_for_timeout(300)
        assert flickered != before and snapshot(page) == before
        for _ in range(4):
            page.keyboard.press("+")
        page.wait_for_timeout(300)
        assert pixel(page, "good", 2, 2)[3] == 255  # zoomed in step: no rim beside it
        page.get_by_role("button", name="Expected", exact=True).click()
        expect(page.locator(".pane[data-kind=expected]")).to_be_visible()
        page.wait_for_timeout(500)
        assert middle(page, "difference")[3] == 255


def middle(page: Any, kind: str) -> list[int]:
    """Returns what a pane shows in its middle."""
    canvas = page.locator(f"[data-kind={kind}] canvas").first
    wide, high = canvas.evaluate("c => [c.width, c.height]")
    return pixel(page, kind, wide // 2, high // 2)


def snapshot(page: Any) -> str:
    """Returns what the large pane shows."""
    return str(page.locator(f"{PANE} canvas").first.evaluate("c => c.toDataURL()"))


def test_on_a_tablet_all_is_as_large_as_a_finger(
    server: Server, open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{server.url}/image?run=1", (820, 1180), **TABLET)
    wait_until_judgeable(page)
    buttons = page.locator(".verdicts .verdict").evaluate_all(
        "nodes => nodes.map((n) => n.getBoundingClientRect()).map((b) => [b.width, b.height])"
    )
    assert sum(width for width, _ in buttons) > 0.85 * 820 and len(buttons) == 4
    assert min(height for _, height in buttons) >= 44
    small = page.locator(".review :is(button, input, textarea)").evaluate_all(
        "nodes => nodes.filter((n) => n.offsetParent && Math.min(n.offsetHeight, n.offsetWidth) "
        "< 44).map((n) => n.outerHTML.slice(0, 120))"
    )
    assert small == []
    # two fingers part: it grows; one finger draws
    touch = page.context.new_cdp_session(page)
    box = page.locator(PANE).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def fingers(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": a, "y": b, "id": number} for number, (a, b) in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", (x - 40, y), (x + 40, y))
    for far in (60, 80, 120):
        fingers("touchMove", (x - far, y), (x + far, y))
    fingers("touchEnd")
    page.wait_for_timeout(200)
    assert 2 < setting(page)["view"]["zoom"] < 4
    page.get_by_role("button", name="Fit").tap()
    page.get_by_role("button", name="Rectangle").tap()
    fingers("touchStart", (x - 50, y - 50))
    for far in (0, 30, 60):
        fingers("touchMove", (x + far, y + far))
    fingers("touchEnd")
    expect(page.locator(ROWS)).to_have_count(1)
    picture(page, "tablet")


def test_a_mask_is_drawn_on_an_image_of_the_run_over_one_that_is_there(
    server: Server, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    old = np.ones((80, 80), bool)
    old[:20] = False
    (tmp_path / "old.png").write_bytes(to_png(old))
    page = open_page(f"{server.url}/mask")
    page.get_by_text("0 shapes").wait_for()
    page.locator("input[type=file]").last.set_input_files(tmp_path / "old.png")
    page.get_by_text("0 shapes on the mask that is edited").wait_for()
    page.get_by_text("75 % of the image is inspected").wait_for()
    at = on_screen(page, ".mask .pane", SIZE, SIZE)
    page.get_by_role("button", name="Ignore", exact=True).click()
    page.get_by_role("button", name="Circle").click()
    drag(page, at(80, 100), at(110, 100))
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Inspect", exact=True).click()
    page.get_by_role("button", name="Polygon").click()
    for place in ((4, 4), (44, 4), (44, 44), (4, 44)):
        page.mouse.click(*at(*place))
    page.keyboard.press("Enter")
    page.get_by_text("2 shapes on the mask that is edited").wait_for()
    share = 0.75 - np.pi * 30**2 / SIZE**2 + 40 * 40 / SIZE**2
    page.get_by_text(f"{100 * share:.0f} % of the image is inspected").wait_for()
    picture(page, "mask-of-run")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save mask.png").click()
    saved.value.save_as(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    assert mask.shape == (SIZE, SIZE) and abs(mask.mean() - share) < 0.01
    places = ((10, 10), (10, 100), (100, 80), (100, 20))
    assert [bool(mask[place]) for place in places] == [True, False, False, True]
