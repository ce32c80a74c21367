"""Finding images in a browser: by words, by region, by saved filters; the address holds what is
shown, and back goes back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("sqlalchemy")
pytest.importorskip("torch")
pytest.importorskip("playwright")

from playwright.sync_api import expect

from anomaly.review import Filters, Store, default_key
from tests.support.browsing import wait_for_picture
from tests.support.review_server import Server, find_chromium

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium found: apt-get install chromium"
)


def address(page: Any) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def wait_for(page: Any, name: str, value: str | None) -> None:
    """Waits until a parameter of the address has a value."""
    asked = "([name, value]) => new URL(location.href).searchParams.get(name) === value"
    page.wait_for_function(asked, arg=[name, value])


def test_images_are_found_and_back_goes_back(server: Server, open_page: Callable[..., Any]) -> None:
    with Store(server.settings.database) as store:
        run = store.runs()[0].id
        first, second, *_ = store.findings(Filters(run=run), limit=5)
        store.comment("ann", second.id, "Kratzer über der Bohrung", key=default_key())
        like = Filters(run=run, like=first.id)
        alike = store.count(like)
        scratched = store.count(Filters(run=run, find="missing"))
    assert alike and scratched > 1
    page = open_page(server.url)
    cards = page.locator("a.card")
    cards.first.wait_for()
    everything = cards.count()
    box = page.get_by_role("textbox", name="Find", exact=True)
    box.fill("BOHRUNG Kratzer")
    box.press("Enter")
    wait_for(page, "find", "BOHRUNG Kratzer")
    expect(cards).to_have_count(1)
    box.fill("missing")
    box.press("Enter")
    expect(cards).to_have_count(scratched)
    page.go_back()
    wait_for(page, "find", "BOHRUNG Kratzer")
    expect(cards).to_have_count(1)
    expect(box).to_have_value("BOHRUNG Kratzer")
    page.go_forward()
    expect(cards).to_have_count(scratched)

    page.get_by_role("button", name="More").click()
    page.get_by_role("textbox", name="Save these filters as").fill("holes")
    page.get_by_role("textbox", name="Save these filters as").press("Enter")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("combobox", name="Saved filters").wait_for()
    other = open_page(server.url)
    other.get_by_role("button", name="More").click()
    other.get_by_role("combobox", name="Saved filters").click()
    other.get_by_role("option", name="holes").click()
    wait_for(other, "find", "missing")
    expect(other.locator("a.card")).to_have_count(scratched, timeout=30_000)

    other.keyboard.press("Escape")
    other.locator(".tick").nth(1).click()
    other.wait_for_function("new URL(location.href).searchParams.get('selected')")
    other.reload()
    expect(other.locator("li[data-selected=true]")).to_have_count(1)
    other.get_by_text("1 selected").wait_for()
    assert address(other)["find"] == "missing"

    page.goto(f"{server.url}/image?run={run}&finding={first.id}")
    wait_for_picture(page)
    page.get_by_role("link", name="All with a region at this place").click()
    wait_for(page, "like", str(first.id))
    expect(cards).to_have_count(min(alike, 60))
    page.get_by_role("button", name=f"Similar to image {first.id}").click()
    wait_for(page, "like", None)
    expect(cards).to_have_count(everything)
