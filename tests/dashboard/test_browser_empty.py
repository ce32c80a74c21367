"""A database without a run, in a browser: what is said can be read, and every page is a
click away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("sqlalchemy")
pytest.importorskip("playwright")

from playwright.sync_api import expect

from anomaly.review import Store
from tests.support.review_server import Server, find_chromium, serving

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium found: apt-get install chromium"
)
NOTHING = "Nothing to review yet. Score images into this database"
SAID = {
    "Image": NOTHING,
    "Threshold": NOTHING,
    "Team": NOTHING,
    "Statistics": NOTHING,
    "Drift": NOTHING,
    "Runs": NOTHING,
    "Calibration": "No run folder is known here",
    "Mask": "Choose an image and draw on it",
    "Queue": NOTHING,
}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    database = tmp_path_factory.mktemp("empty") / "review.db"
    Store(database).close()
    with serving(database) as running:
        yield running


def visible(page: Any, said: str) -> None:
    """Waits for a sentence and checks that nothing lies over its first and last line, nor over the
    middle.
    """
    place = page.get_by_text(said).first
    place.wait_for()
    expect(page.get_by_role("link", name="Queue", exact=True)).to_be_visible()
    covered = place.evaluate(
        """(node) => { const box = node.getBoundingClientRect();
           return [box.top + 2, (box.top + box.bottom) / 2, box.bottom - 2].filter((y) => {
             const top = document.elementFromPoint(box.left + 20, y);
             return !(top && (node.contains(top) || top.contains(node))
               && !top.closest('header')); }); }"""
    )
    assert covered == [], said


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (420, 800)], ids=str)
def test_every_page_is_reached_by_clicks(
    empty: Server, open_page: Callable[..., Any], size: tuple[int, int]
) -> None:
    page = open_page(empty.url, size)
    visible(page, NOTHING)
    for name, said in SAID.items():
        page.get_by_role("link", name=name, exact=True).click()
        page.wait_for_function(
            f"location.pathname.endsWith('{'/' if name == 'Queue' else name.lower()}')"
        )
        visible(page, said)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "image",
        "threshold",
        "team",
        "statistics",
        "drift",
        "?run=99",
        "team?run=99&result=flagged",
    ],
)
def test_an_address_opens_with_links_and_words(
    empty: Server, open_page: Callable[..., Any], path: str
) -> None:
    visible(open_page(f"{empty.url}/{path}"), NOTHING)


def test_an_unknown_address_has_links(empty: Server, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{empty.url}/nowhere")
    page.get_by_text("Page not found").first.wait_for()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    visible(page, NOTHING)
    page.get_by_role("link", name="Team", exact=True).click()
    page.get_by_text("Defect types").wait_for()


def test_defect_types_are_edited_before_the_first_images(
    empty: Server, open_page: Callable[..., Any]
) -> None:
    page = open_page(empty.url)
    page.get_by_role("link", name="Team", exact=True).click()
    page.get_by_text("Defect types").click()
    box = page.get_by_role("textbox", name="One type a line")
    box.fill("burr\nloose wire #3a86ff")
    page.keyboard.press("Control+Enter")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved").first.wait_for()
    with Store(Path(empty.settings.database)) as store:
        assert [kind.name for kind in store.defect_types()] == ["burr", "loose wire"]
