"""Many images judged at once in the queue's sheet, as a person does it: by ticks, a lasso, or the
keyboard.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("sqlalchemy")
pytest.importorskip("torch")
pytest.importorskip("playwright")

from playwright.sync_api import expect

from anomaly.review import Filters, Store, default_key
from tests.support.browsing import log_of
from tests.support.review_server import (
    Client,
    Server,
    find_chromium,
    new_database,
    serving,
)

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium found: apt-get install chromium"
)
COUNT, CARD = "[data-part=count]", "a.card"
SAVED = "[data-part=saving][data-state=saved]"  # it says nothing then


def picture(page: Any, name: str) -> None:
    if shots := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{shots}/{name}.png")


def test_many_are_judged_by_one_request_and_taken_back_by_one_key(
    server: Server, open_page: Callable[..., Any]
) -> None:
    with Store(server.settings.database) as store:
        ids = [finding.id for finding in store.findings(Filters(run=1), limit=60)]
    page = open_page(server.url, (1920, 1080))
    sent: list[str] = []
    page.on("request", lambda r: sent.append(r.url) if "/api/verdicts" in r.url else None)
    count, cards = page.locator(COUNT), page.locator(CARD)
    cards.first.wait_for()

    # at size M they can be selected, but not judged
    page.locator(".tick").first.click()
    page.keyboard.press("n")
    expect(count).to_contain_text("1 of 1 selected were not shown at size L yet (choose size L)")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="L", exact=True).click()
    page.locator("li[data-seen=true]").nth(4).wait_for()

    # a lasso over the first row, without its last; then one more by Ctrl and a click
    row = cards.first.bounding_box()
    columns = cards.evaluate_all(
        """all => { const top = (one) => one.getBoundingClientRect().top;
           return all.filter((one) => top(one) < top(all[0]) + 9).length; }"""
    )
    last = cards.nth(columns - 2).bounding_box()
    page.mouse.move(row["x"] + 8, row["y"] + 8)
    page.mouse.down()
    page.mouse.move(last["x"] + 60, last["y"] + 90, steps=4)
    picture(page, "lasso")
    page.mouse.up()
    expect(count).to_contain_text(f"{columns - 1} selected")
    cards.nth(columns - 1).click(modifiers=["Control"])
    expect(count).to_contain_text(f"{columns} selected")
    page.keyboard.press("2")
    page.keyboard.press("a")
    expect(count).to_contain_text(f"{columns} anomalous")
    page.locator(SAVED).wait_for(state="attached")
    assert log_of(server) == [
        (who, one, "anomalous", "crack")
        for who, one in zip([log_of(server)[0][0]] * columns, sorted(ids[:columns]), strict=True)
    ]
    assert len(sent) == 1
    with Store(server.settings.database) as store:
        assert {event.payload["bulk"] for event in store.events(actions=("anomalous",))} == {
            columns
        }
    expect(page.locator(".chip")).to_have_count(columns)
    picture(page, "judged at once")

    # one key takes all of it back, by one more request
    page.keyboard.press("z")
    expect(count).to_contain_text(f"{columns} selected")
    page.locator(SAVED).wait_for(state="attached")
    assert log_of(server) == [] and len(sent) == 2
    page.keyboard.press("Escape")

    # the keyboard alone: arrows, Space, Shift, Ctrl+A
    cards.first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(count).to_contain_text("3 selected")
    page.keyboard.press("Control+a")
    expect(count).to_contain_text(f"{min(60, len(ids))} selected")
    assert page.url.split("?")[0].rstrip("/") == server.url  # nothing was opened


def test_what_others_hold_is_left_out_and_said(
    made: Path, tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    """An image that another inspector has before them, one that is judged already, and one that
    nothing has inspected, which stands in a section of its own.
    """
    rows = list(csv.DictReader((made / "scores.csv").read_text(encoding="utf-8").splitlines()))[:6]
    outside = {
        "status": "outside",
        "result": "not judged",
        "is_anomaly": "",
        "score": "",
        "p_value": "",
    }
    rows[0] |= outside
    table = tmp_path / "scores.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    database, run = new_database(made, tmp_path, table, name="line 3")
    with serving(database) as server:
        with Store(database) as store:
            held = store.next("bo", filters=Filters(run=run))[0].id
            ids = [finding.id for finding in store.findings(Filters(run=run))]
            judged = next(one for one in ids if one != held)
            store.record("bo", judged, "normal", key=default_key())
        page = open_page(server.url, (1920, 1080))
        page.get_by_text("0 of 1 not judged are done").wait_for()
        expect(page.locator(".heading").first).to_have_text(
            "Not judged by the detector: treat as not OK"
        )
        page.get_by_role("button", name="L", exact=True).click()
        page.locator("li[data-seen=true]").nth(5).wait_for()
        page.locator(CARD).first.focus()
        page.keyboard.press("Control+a")
        page.keyboard.press("n")
        said = page.locator(COUNT)
        expect(said).to_contain_text("2 left out (")
        expect(said).to_contain_text("somebody else has it before them")
        with Store(database) as store:
            normal = {
                e.finding
                for e in store.events(actions=("normal",), limit=20)
                if "bulk" in e.payload
            }
            assert normal == {*ids} - {held, judged}
        # and without the digests that come with the large pictures nothing counts
        body = {"findings": ids[:1], "verdict": "normal", "key": default_key(), "seen": [""]}
        answer = Client(server.port).post("/api/verdicts", body)
        assert answer.status == 422 and "was not shown in this browser" in answer.json["error"]
