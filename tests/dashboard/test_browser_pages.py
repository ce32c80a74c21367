"""All pages in a browser: one state in the address, photographs for a mask, what is said to
inspectors.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("streamlit")
pytest.importorskip("sqlalchemy")
pytest.importorskip("torch")
pytest.importorskip("playwright")

from playwright.sync_api import expect

from anomaly.imaging.mask import read_mask
from anomaly.review import Filters, Store
from tests.support.browsing import drag, on_screen, shown, wait_for_picture
from tests.support.review_server import Server, find_chromium

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium found: apt-get install chromium"
)
PAGES = "Threshold Team Statistics Drift Runs Calibration Mask Image Queue".split()


def state(page: Any) -> dict[str, str]:
    """Returns the address's parameters, but for the image on screen."""
    return {
        name: values[0]
        for name, values in parse_qs(urlsplit(page.url).query).items()
        if name != "finding"
    }


@pytest.fixture
def two_runs(made: Path, server: Server, tmp_path: Path) -> int:
    """Imports a second run, of three times as many rows, and returns the first one's number."""
    head, *rows = (made / "scores.csv").read_text().splitlines()
    (tmp_path / "more.csv").write_text(
        "\n".join([head, *(row for row in rows for _ in range(3))]) + "\n"
    )
    with Store(server.settings.database) as store:
        first = store.runs()[0].id
        store.import_table(tmp_path / "more.csv", name="line 4")
    return first


def test_run_and_filters_stay_on_all_pages(
    server: Server, two_runs: int, open_page: Callable[..., Any]
) -> None:
    """The newest run is another: without the address every page would act on that one."""
    page = open_page(f"{server.url}/?run={two_runs}&result=flagged&queue=uncertain&low=0.5")
    page.locator("a.card").first.wait_for()
    kept = {"run": str(two_runs), "result": "flagged", "queue": "uncertain", "low": "0.5"}
    for name in PAGES:
        page.get_by_role("link", name=name, exact=True).click()
        page.wait_for_function(
            f"location.pathname.endsWith('{'/' if name == 'Queue' else name.lower()}')"
        )
        page.wait_for_timeout(500)
        assert state(page) == kept, name
    page.get_by_role("link", name="Threshold", exact=True).click()
    page.get_by_text("line 3: 56 images").wait_for()
    page.get_by_role("link", name="Team", exact=True).click()
    page.get_by_text("line 3: what its inspectors have done").wait_for()
    page.reload()
    page.get_by_text("line 3: what its inspectors have done").wait_for()


def test_a_second_threshold_is_still_there_when_a_person_comes_back(
    server: Server, open_page: Callable[..., Any]
) -> None:
    page = open_page(server.url)
    handle = page.get_by_role("slider", name="Review threshold")
    for first in (True, False):
        page.get_by_role("link", name="Threshold", exact=True).click()
        page.get_by_role("slider", name="Threshold", exact=True).wait_for()
        if first:
            assert handle.count() == 0
            page.get_by_text("Second threshold, for review").click()
        handle.wait_for()
        page.get_by_text("review above").wait_for()
        page.get_by_role("link", name="Queue", exact=True).click()
        page.locator("a.card").first.wait_for()


def test_a_filter_that_was_just_chosen_goes_along(
    server: Server, two_runs: int, open_page: Callable[..., Any]
) -> None:
    page = open_page(server.url)
    page.locator("a.card").first.wait_for()
    page.get_by_role("combobox", name="Run").click()
    page.get_by_role("option", name="line 3").click()
    page.wait_for_function(f"new URL(location.href).searchParams.get('run') === '{two_runs}'")
    page.get_by_role("link", name="Threshold", exact=True).click()
    page.get_by_text("line 3: 56 images").wait_for()
    assert state(page) == {"run": str(two_runs)}


def test_the_page_of_the_queue_is_in_the_address(
    server: Server, two_runs: int, open_page: Callable[..., Any]
) -> None:
    with Store(server.settings.database) as store:
        expected = store.findings(Filters(run=two_runs + 1), limit=60, offset=120)
    page = open_page(f"{server.url}/?run={two_runs + 1}")
    page.locator("a.card").first.wait_for()
    page.get_by_role("button", name="Page 3", exact=True).click()
    page.wait_for_function("new URL(location.href).searchParams.get('page') === '3'")
    expect(page.locator("a.card")).to_have_count(len(expected))
    page.locator("a.card").nth(2).click()
    wait_for_picture(page)
    assert shown(page) == expected[2].id
    page.go_back()
    expect(page.locator("a.card")).to_have_count(len(expected))
    assert state(page)["page"] == "3"
    other = open_page(page.url)
    expect(other.locator("a.card")).to_have_count(len(expected))
    other.get_by_role("button", name="More").click()
    other.get_by_role("combobox", name="Detector says").click()
    other.get_by_role("option", name="flagged", exact=True).click()
    # of other filters it is the first
    other.wait_for_function("!new URL(location.href).searchParams.get('page')")


@pytest.mark.parametrize("name", ["image", "threshold", "team", "drift", "runs"])
def test_a_run_that_is_gone_is_said_and_no_other_is_shown(
    server: Server, open_page: Callable[..., Any], name: str
) -> None:
    page = open_page(f"{server.url}/{name}?run=99")
    page.get_by_text(
        "The run '99' that the address names is not in this review database"
    ).wait_for()
    page.wait_for_timeout(500)
    assert page.locator(".review, [data-testid=stMetric], canvas").count() == 0
    page.get_by_role("link", name="Choose a run in Queue").click()
    page.locator("a.card").first.wait_for()


def noise(kind: str, height: int, width: int) -> bytes:
    """Returns a photograph that does not compress."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    options = {"quality": 90} if kind == "JPEG" else {"compress_level": 1}
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "height", "width", "least"), [("JPEG", 6336, 9504, 30e6), ("PNG", 2600, 2600, 20e6)]
)
def test_a_mask_is_drawn_on_a_large_photograph(
    server: Server,
    open_page: Callable[..., Any],
    tmp_path: Path,
    kind: str,
    height: int,
    width: int,
    least: float,
) -> None:
    file = tmp_path / f"photo.{kind.lower()}"
    file.write_bytes(noise(kind, height, width))
    assert file.stat().st_size > least
    page = open_page(f"{server.url}/mask")
    page.get_by_text("of a file").click()
    page.locator("input[type=file]").nth(1).wait_for(state="attached")  # beside the mask's own
    page.locator("input[type=file]").first.set_input_files(file)
    page.get_by_text("0 shapes").wait_for(timeout=120_000)
    page.locator(".mask .note").wait_for(state="hidden", timeout=120_000)
    at = on_screen(page, ".mask .pane", width, height)
    drag(page, at(width / 4, height / 4), at(width * 3 / 4, height * 3 / 4))
    page.get_by_text("25 % of the image is inspected").wait_for(timeout=120_000)
    with page.expect_download(timeout=120_000) as saved:
        page.get_by_role("button", name="Save mask.png").click()
    saved.value.save_as(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as mask:
        assert mask.size == (width, height)
    assert abs(read_mask(tmp_path / "mask.png").mean() - 0.25) < 0.02


def test_what_is_no_image_is_said_in_words(
    server: Server, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG not an image")
    page = open_page(f"{server.url}/mask")
    page.get_by_text("of a file").click()
    page.locator("input[type=file]").nth(1).wait_for(state="attached")  # beside the mask's own
    page.locator("input[type=file]").first.set_input_files(tmp_path / "photo.png")
    said = page.get_by_text("it is damaged or no image")
    said.wait_for()
    assert "b'" not in said.inner_text() and "x89" not in said.inner_text()
