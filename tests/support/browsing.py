"""The dashboard in a browser, for tests: Debian's Chromium without a screen, pages of their own,
what they show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.review_server import (
    BROWSER,
    Server,
    find_chromium,
    new_database,
    serving,
    train_detector,
)

SIZES = [(1280, 720), (1920, 1080)]


@pytest.fixture(scope="session")
def made(session_folder: Path) -> Path:
    train_detector(session_folder / "review")
    return session_folder / "review"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=find_chromium(), args=BROWSER)
        yield running
        running.close()


@pytest.fixture
def server(made: Path, tmp_path: Path) -> Iterator[Server]:
    database, _ = new_database(made, tmp_path, name="line 3")
    with serving(database, detectors=(made / "run",)) as running:
        yield running


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages in browsers of their own; at the end nothing was asked of another host, and no
    script had failed.
    """
    contexts, strange = [], []

    def opened(url: str, size: tuple[int, int] = SIZES[0], **options: Any) -> Any:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "request",
            lambda r: (
                strange.append(r.url)
                if urlsplit(r.url).hostname not in ("127.0.0.1", None)
                else None
            ),
        )
        page.on("pageerror", lambda error: strange.append(str(error)))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [url for url in strange if not url.startswith(("data:", "blob:"))] == []


def shown(page: Any) -> int:
    """Returns the number of the finding on the screen, once its picture is drawn."""
    page.wait_for_function("new URL(location.href).searchParams.get('finding')")
    return int(parse_qs(urlsplit(page.url).query)["finding"][0])


def wait_for_picture(page: Any) -> None:
    page.locator("[data-part=name]:not(:empty)").wait_for()
    page.wait_for_function(
        """() => { const find = (node) => node.querySelector('.review') ??
             [...node.querySelectorAll('*')]
               .map((one) => one.shadowRoot && find(one.shadowRoot)).find(Boolean);
           const canvas = find(document).querySelector('[data-kind=original] canvas');
           const middle = [canvas.width >> 1, canvas.height >> 1];
           return canvas.getContext('2d').getImageData(...middle, 1, 1).data[3] > 0; }"""
    )


def pixel(page: Any, kind: str, x: float, y: float) -> list[int]:
    """Returns what a pane shows at a place, from its canvas: red, green, blue, opacity."""
    canvas = page.locator(f"[data-kind={kind}] canvas").first
    return list(
        canvas.evaluate(
            "(c, [x, y]) => [...c.getContext('2d').getImageData(x, y, 1, 1).data]", [x, y]
        )
    )


def log_of(server: Server) -> list[tuple[str, int | None, str, str | None]]:
    """Returns the verdicts that count: inspector, finding, verdict, defect type, in the order they
    were given.
    """
    from anomaly.review import VERDICTS, Store

    with Store(server.settings.database) as store:
        events = store.events(actions=VERDICTS, limit=None)
    return [
        (e.inspector, e.finding, e.action, e.defect_type) for e in reversed(events) if not e.undone
    ]


def _settled(page: Any, pane: str) -> dict[str, float]:
    """Returns where a pane is once it stays there: a page that runs again may put another one in
    its place.
    """
    before = None
    for _ in range(100):
        with suppress(pytest.importorskip("playwright.sync_api").Error):
            page.locator(pane).scroll_into_view_if_needed(timeout=5000)
            box: dict[str, float] | None = page.locator(pane).bounding_box()
            if box is not None and box == before:
                return box
            before = box
        page.wait_for_timeout(300)
    raise AssertionError(f"{pane}: not in one place for 300 ms within 30 s")


def on_screen(
    page: Any, pane: str, width: int, height: int
) -> Callable[[float, float], tuple[float, float]]:
    """Returns where a pixel (x, y) of a picture of that size is on the screen, in a pane that shows
    all of it.
    """
    box = _settled(page, pane)
    scale = min(box["width"] / width, box["height"] / height)
    left = box["x"] + (box["width"] - width * scale) / 2
    top = box["y"] + (box["height"] - height * scale) / 2
    return lambda x, y: (left + x * scale, top + y * scale)


def drag(page: Any, *places: tuple[float, float]) -> None:
    """Presses at the first place of the screen, moves over the others, and lets go at the last."""
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()
