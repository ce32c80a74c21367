"""What a verdict in the browser stands for: an image that was seen, once, and neither it nor what
was typed is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("sqlalchemy")
pytest.importorskip("torch")
pytest.importorskip("playwright")

from playwright.sync_api import expect

from anomaly.detector.card import UNKNOWN_TYPE
from anomaly.files.table import encode_rows, join_chunks, read_table
from anomaly.review import DefectType, Filters, Store, default_key
from tests.support.browsing import log_of, shown, wait_for_picture
from tests.support.review_server import (
    Server,
    find_chromium,
    new_database,
    press_and_wait,
    serving,
    wait_until_judgeable,
    wait_until_saved,
)

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium found: apt-get install chromium"
)
STATE, NAME, SAVING = "[data-part=state]", "[data-part=name]", "[data-part=saving]"


def in_order(server: Server, order: str = "score") -> list[int]:
    """Returns the findings of the first run in an order of the queue."""
    with Store(server.settings.database) as store:
        return [finding.id for finding in store.findings(Filters(run=1), order=order, limit=1000)]


def left(page: Any) -> int:
    """Returns how many flagged images the page says are left."""
    return int(page.locator("[data-part=position]").inner_text().split(" / ")[-1].split(" of ")[0])


# ---- seen, and once ----


@pytest.mark.parametrize("how", ["keyboard", "mouse", "touch"])
def test_without_the_picture_only_a_skip_counts(
    server: Server, open_page: Callable[..., Any], how: str
) -> None:
    page = open_page("about:blank", has_touch=True)
    page.route("**/evidence/*/original?*", lambda route: route.abort())
    page.goto(f"{server.url}/image?run=1")
    page.locator(STATE, has_text="The image has not arrived").wait_for()
    name = page.locator(NAME).inner_text()
    for verdict, key in (("Anomalous", "a"), ("Normal", "n"), ("Unsure", "u")):
        for _ in range(2):
            if how == "keyboard":
                page.keyboard.press(key)
            else:
                press(page.get_by_role("button", name=verdict), how)
            page.wait_for_timeout(250)
    assert page.locator(NAME).inner_text() == name and log_of(server) == []
    assert page.locator("[data-part=bar]").get_attribute("data-ready") == "false"
    if how == "keyboard":
        page.keyboard.press("s")
    else:
        press(page.get_by_role("button", name="Skip"), how)
    wait_until_saved(page)
    expect(page.locator(NAME)).not_to_have_text(name)
    assert [verdict for _, _, verdict, _ in log_of(server)] == ["skip"]
    # and when pictures come again the page goes on by itself
    page.unroute("**/evidence/*/original?*")
    wait_until_judgeable(page)
    assert page.locator(STATE).is_hidden()


def press(button: Any, how: str) -> None:
    """Presses a button whether or not it takes presses, as a hand does."""
    box = button.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    if how == "touch":
        button.page.touchscreen.tap(x, y)
    else:
        button.page.mouse.click(x, y)


@pytest.mark.parametrize("how", ["keyboard", "mouse", "touch", "held key", "held Enter"])
def test_a_double_press_is_one_verdict(
    server: Server, open_page: Callable[..., Any], how: str
) -> None:
    page = open_page(f"{server.url}/image?run=1", has_touch=True)
    wait_until_judgeable(page)
    # the next pictures are there: a second press meets one that is painted at once
    page.wait_for_timeout(1000)
    first = shown(page)
    button = page.get_by_role("button", name="Normal")
    if how == "keyboard":
        page.keyboard.press("n")
        page.keyboard.press("n")
    elif how == "mouse":
        button.dblclick(force=True)
    elif how == "touch":
        press(button, "touch")
        press(button, "touch")
    else:
        key = "n" if how == "held key" else "Enter"
        button.focus()
        for _ in range(20):  # a key that is down already repeats
            page.keyboard.down(key)
            page.wait_for_timeout(60)
        page.keyboard.up(key)
    page.wait_for_timeout(400)
    wait_until_saved(page)
    assert [entry[1:3] for entry in log_of(server)] == [(first, "normal")]
    wait_until_judgeable(page)
    page.keyboard.press("n")  # and the next one takes a verdict again
    wait_until_saved(page)
    assert len(log_of(server)) == 2


def test_what_was_moved_since_the_browser_kept_it_is_not_judgeable(
    made: Path, tmp_path: Path, open_page: Any
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for part in sorted((made / "parts" / "test").glob("*/*.png"))[:4]:
        (images / part.name).write_bytes(part.read_bytes())
    from tests.support.review_server import anomaly

    anomaly("score", str(made / "run"), str(images), "--out", str(tmp_path / "scores.csv"))
    database, run = new_database(made, tmp_path, tmp_path / "scores.csv")
    with serving(database, detectors=(made / "run",)) as server:
        page = open_page(f"{server.url}/image?run={run}")
        wait_until_judgeable(page)
        page.wait_for_timeout(1000)
        images.rename(tmp_path / "elsewhere")
        page.reload()
        page.locator(STATE, has_text="no longer where it was").wait_for()
        page.keyboard.press("n")
        page.wait_for_timeout(500)
        assert log_of(server) == []


# ---- what a link names ----


@pytest.mark.parametrize("named", ["999999", "0", "-1", "abc", "1.5", "9" * 30, "%F0%9F%92%A5", ""])
def test_a_link_to_an_image_that_is_not_there_shows_no_other(
    server: Server, open_page: Any, named: str
) -> None:
    page = open_page(f"{server.url}/image?run=1&finding={named}")
    words = page.locator("[data-part=words]", has_text="no image is shown")
    words.wait_for()
    for key in "anus":
        page.keyboard.press(key)
        page.wait_for_timeout(250)
    expect(page.locator(NAME)).to_have_text("")
    assert log_of(server) == []
    page.keyboard.press("j")  # the queue, when it is asked for
    wait_for_picture(page)
    assert shown(page) == in_order(server)[0]


def test_a_link_into_another_run_shows_what_it_names(
    made: Path, server: Server, tmp_path: Path, open_page: Any
) -> None:
    table = tmp_path / "again.csv"
    # scored at another time
    table.write_text((made / "scores.csv").read_text().replace(",20", ",19"))
    with Store(server.settings.database) as store:
        other, new = store.import_table(table, name="line 4")
        assert new
        finding = store.findings(Filters(run=other.id), limit=5)[4]
    page = open_page(f"{server.url}/image?run=1&result=flagged&finding={finding.id}")
    wait_until_judgeable(page)
    assert shown(page) == finding.id
    expect(page.locator(NAME)).to_contain_text(Path(finding.path).name)
    expect(page.locator(STATE)).to_have_text(
        "This image is of another run (line 4) than the queue."
    )
    press_and_wait(page, "a")
    wait_until_saved(page)
    assert log_of(server)[0][1] == finding.id
    assert shown(page) == in_order(server)[0]  # the queue that the address names


def test_back_shows_the_card_that_was_area_opening(server: Server, open_page: Any) -> None:
    page = open_page(f"{server.url}/?run=1")
    page.locator("a.card").nth(3).click()
    wait_for_picture(page)
    opened = shown(page)
    page.get_by_role("link", name="Team", exact=True).click()
    page.get_by_text("what its inspectors have done").wait_for()
    page.go_back()
    wait_for_picture(page)
    assert shown(page) == opened == in_order(server)[3]


@pytest.mark.parametrize("queue", ["anomalous", "uncertain"])
def test_after_a_card_comes_the_one_behind_it(server: Server, open_page: Any, queue: str) -> None:
    order = in_order(server, {"anomalous": "score"}.get(queue, queue))
    page = open_page(f"{server.url}/image?run=1&queue={queue}&finding={order[4]}")
    wait_until_judgeable(page)
    seen = [shown(page)]
    for _ in range(9):  # more than are loaded ahead
        press_and_wait(page, "j")
        seen.append(shown(page))
    assert seen == order[4:14]
    press_and_wait(page, "n")
    assert shown(page) == order[14]


def test_behind_the_last_card_comes_what_lies_before_it(server: Server, open_page: Any) -> None:
    order = in_order(server)
    page = open_page(f"{server.url}/image?run=1&finding={order[-2]}")
    wait_until_judgeable(page)
    seen = [shown(page)]
    for _ in range(3):
        press_and_wait(page, "j")
        seen.append(shown(page))
    assert seen == [*order[-2:], *order[:2]]


# ---- nothing is lost ----


def test_a_refused_verdict_is_kept_until_it_is_resolved(server: Server, open_page: Any) -> None:
    """Refused by the server itself: its type was taken off the list by an admin since the page was
    opened.
    """
    page = open_page(f"{server.url}/image?run=1")
    wait_until_judgeable(page)
    with Store(server.settings.database) as store:
        types = store.defect_types()
        store.set_defect_types(
            [kind for kind in types if kind.name != "crack"], by="admin", key=default_key()
        )
    finding, name = shown(page), page.locator(NAME).inner_text()
    page.get_by_label("Comment").fill("at the left edge")
    page.get_by_label("Comment").press("Escape")
    page.keyboard.press("2")  # crack
    press_and_wait(page, "a")
    refused = page.locator(f"{SAVING}[data-state=refused]")
    refused.wait_for()
    expect(refused).to_contain_text(f"Not accepted: anomalous of {name}")
    expect(refused).to_contain_text("'crack'")
    press_and_wait(page, "n")  # others go on meanwhile
    page.wait_for_timeout(500)
    assert refused.is_visible() and [entry[2] for entry in log_of(server)] == ["normal"]
    page.reload()
    wait_for_picture(page)
    refused.wait_for()  # neither lost by a reload
    with Store(server.settings.database) as store:
        store.set_defect_types(types, by="admin", key=default_key())
        page.get_by_role("button", name="Try again").click()
        wait_until_saved(page)
        event = store.current(finding)[log_of(server)[0][0]]
    assert (event.action, event.defect_type, event.payload["text"]) == (
        "anomalous",
        "crack",
        "at the left edge",
    )


def test_what_is_said_anew_or_taken_back_resolves_what_was_refused(
    server: Server, open_page: Any
) -> None:
    page = open_page(f"{server.url}/image?run=1")
    wait_until_judgeable(page)
    with Store(server.settings.database) as store:
        store.set_defect_types([DefectType("dent", 1, "#888888")], by="admin", key=default_key())
    first = shown(page)
    for at in range(2):
        page.keyboard.press("2")
        press_and_wait(page, "a")
        page.locator(f"{SAVING}[data-state=refused]").wait_for()
        if at:
            continue
        page.get_by_role("button", name="Show it").click()
        page.wait_for_function(f"new URL(location.href).searchParams.get('finding') === '{first}'")
        press_and_wait(page, "u")
        wait_until_saved(page)
    page.keyboard.press("z")  # never counted, so that nothing is taken back
    wait_until_saved(page)
    assert [entry[1:3] for entry in log_of(server)] == [(first, "unsure")]


def test_a_comment_outlives_next_back_undo_and_a_reload(server: Server, open_page: Any) -> None:
    page = open_page(f"{server.url}/image?run=1")
    wait_until_judgeable(page)
    comment = page.get_by_label("Comment")
    comment.fill("dull spot, <b>left</b>")
    comment.press("Escape")
    page.keyboard.press("3")
    press_and_wait(page, "j")
    expect(comment).to_have_value("")
    comment.fill("the second")
    comment.press("Escape")
    page.keyboard.press("k")
    expect(comment).to_have_value("dull spot, <b>left</b>")
    expect(page.locator(".type[aria-pressed=true]")).to_contain_text("chip")
    page.reload()
    wait_until_judgeable(page)
    expect(comment).to_have_value("dull spot, <b>left</b>")
    before = left(page)
    press_and_wait(page, "a")
    wait_until_saved(page)
    expect(comment).to_have_value("the second")
    expect(page.locator("[data-part=position]")).to_contain_text(f"{before - 1} of")
    page.keyboard.press("z")
    expect(comment).to_have_value("dull spot, <b>left</b>")
    expect(page.locator(".type[aria-pressed=true]")).to_contain_text("chip")
    wait_until_saved(page)
    expect(page.locator("[data-part=position]")).to_contain_text(f"{before} of")
    press_and_wait(page, "a")  # and it is given again as it was
    wait_until_saved(page)
    with Store(server.settings.database) as store:
        events = [event for event in store.events(actions=("anomalous",)) if not event.undone]
    assert [(event.defect_type, event.payload["text"]) for event in events] == [
        ("chip", "dull spot, <b>left</b>")
    ]
    expect(comment).to_have_value("the second")


# ---- from an empty database ----


def test_defect_types_of_a_fresh_database_are_chosen_and_edited_in_the_page(
    made: Path, tmp_path: Path, open_page: Any
) -> None:
    from anomaly.detector.file import read_card

    database = tmp_path / "review.db"
    with Store(database) as store:
        store.import_table(made / "scores.csv", card=read_card(made / "run"))
    with serving(database, detectors=(made / "run",)) as server:
        page = open_page(f"{server.url}/image?run=1", has_touch=True)
        wait_until_judgeable(page)
        assert [chip.split("\n")[-1] for chip in page.locator(".type").all_inner_texts()][:3] == [
            "1scratch",
            "2dent",
            "3crack",
        ]
        for key in "19":
            page.keyboard.press(key)
            press_and_wait(page, "a")
        page.locator(".type", has_text="contamination").tap()
        press_and_wait(page, "a")
        wait_until_saved(page)
        assert [entry[3] for entry in log_of(server)] == ["scratch", "other", "contamination"]

        page.get_by_role("link", name="Team", exact=True).click()
        page.get_by_text("Defect types", exact=True).click()
        editor = page.get_by_label("One type a line")
        expect(editor).to_have_value(re.compile(r"^scratch #e4572e\n"))
        editor.fill("burr\n\nscratch #e4572e\n")
        page.get_by_role("button", name="Save the types").click()
        page.get_by_text("Saved: 1 burr, 2 scratch").wait_for()
        editor.fill("")
        page.get_by_role("button", name="Save the types").click()
        page.get_by_text("no defect type found, at least one expected").wait_for()
        page.get_by_role("link", name="Image", exact=True).click()
        wait_until_judgeable(page)
        page.keyboard.press("1")
        press_and_wait(page, "a")
        wait_until_saved(page)
        assert log_of(server)[-1][3] == "burr"


# ---- what the detector holds for likely ----


def test_the_likely_type_is_said_and_chosen_until_somebody_chooses_another(
    made: Path, tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    rows = list(read_table(made / "scores.csv"))
    flagged = sorted((row for row in rows if row.is_anomaly), key=lambda row: -(row.score or 0))
    types = {
        one.path: given
        for one, given in zip(
            flagged,
            (("chip", 0.9183), (UNKNOWN_TYPE, 0.2), ("Crack", 0.8), ("burr", 0.7)),
            strict=False,
        )
    }
    named = [
        row._replace(defect_type=types[row.path][0], type_score=types[row.path][1])
        if row.path in types
        else row
        for row in rows
    ]
    (tmp_path / "rows").write_bytes(encode_rows(named, ".csv"))
    with open(tmp_path / "t.csv", "wb") as file:
        join_chunks([tmp_path / "rows"], ".csv", file)
    database, run = new_database(made, tmp_path, tmp_path / "t.csv")
    with serving(database, detectors=(made / "run",)) as server:
        page = open_page(server.url)
        page.locator("a.card", has_text="likely chip (0.92)").wait_for()
        page.locator("a.card", has_text="unknown type").wait_for()
        page.goto(f"{server.url}/image?run={run}")
        pressed = page.locator(".type[aria-pressed=true]")
        likely = page.locator("[data-part=likely]")
        for words, chosen, key in (
            ("likely chip (0.92)", "chip", ""),
            ("unknown type", None, ""),
            ("likely Crack (0.80)", "crack", "4"),  # another one than that: a stain
            ("likely burr (0.70)", None, ""),  # not on the list of types
        ):
            wait_until_judgeable(page)
            expect(likely).to_have_text(words)
            expect(pressed).to_have_count(0 if chosen is None else 1)
            if chosen is not None:
                expect(pressed).to_contain_text(chosen)
            if key:
                page.keyboard.press("2")  # the same again: none, which a reload does not change
                expect(pressed).to_have_count(0)
                page.reload()
                wait_until_judgeable(page)
                expect(pressed).to_have_count(0)
                page.keyboard.press(key)
            page.keyboard.press("a")
            wait_until_saved(page)
        assert [kind for *_, kind in log_of(server)] == ["chip", None, "stain", None]
