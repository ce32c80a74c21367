"""The dashboard in a real browser: Debian's Chromium without a screen, driven by Playwright,
against the real server.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("streamlit")
pytest.importorskip("sqlalchemy")
pytest.importorskip("torch")
pytest.importorskip("playwright")

from playwright import sync_api

from anomaly.detector.file import read_card
from anomaly.imaging.decode import decode
from anomaly.imaging.mask import read_mask
from anomaly.inputs.sources import list_sources
from anomaly.quality.marks import read_highest, read_marks
from anomaly.quality.recalibrate import Asked, GoodImages, recalibrate_on
from anomaly.review import Filters, Store, default_key
from anomaly.review.exports import export_findings, write_calibration_manifest
from anomaly.scorer import Scorer
from anomaly.scoring.batch import score_table
from dashboard.access import Person
from data.synthetic import make
from tests.support.browsing import (
    SIZES,
    drag,
    log_of,
    on_screen,
    pixel,
    shown,
    wait_for_picture,
)
from tests.support.review_server import (
    KEY,
    Server,
    find_chromium,
    new_database,
    press_and_wait,
    serving,
    wait_until_saved,
)

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium found: apt-get install chromium"
)
EVIL = "<img src=x onerror='window.hit=1'><b>bold</b>"


def test_a_view_is_shown_with_its_part(
    made: Path, tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    """A view that is not flagged says so of itself, and that its part is flagged by another one,
    which a click shows.
    """
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    for number in range(200):
        Image.fromarray(make("disc", 9000 + number, 160)[0]).save(fresh / f"{number:03}.png")
    recalibrate_on(
        made / "run",
        GoodImages(fresh, by_unit=r"(\d\d)\d\.png"),
        out=tmp_path / "detector.onnx",
        asked=Asked(0.05),
    )
    rule = read_card(tmp_path / "detector.onnx").training.by_unit
    assert rule is not None and rule.most == 10
    photos = tmp_path / "photos"
    photos.mkdir()
    good, bad = (made / "parts" / "test" / kind for kind in ("good", "missing"))
    for number, image in enumerate([*sorted(good.iterdir())[:9], sorted(bad.iterdir())[0]]):
        shutil.copy(image, photos / f"77{number}.png")
    Image.open(photos / "770.png").rotate(90, expand=True).resize((160, 400)).save(
        photos / "880.png"
    )
    score_table(
        Scorer(tmp_path / "detector.onnx", device="cpu"), list_sources([photos]), tmp_path / "t.csv"
    )
    with Store(tmp_path / "review.db") as store:
        run, _ = store.import_table(tmp_path / "t.csv", card=read_card(tmp_path / "detector.onnx"))
        numbers = {
            Path(finding.path).name: finding.id for finding in store.findings(Filters(run=run.id))
        }
    with serving(tmp_path / "review.db", detectors=(tmp_path / "detector.onnx",)) as server:
        page = open_page(f"{server.url}/image?finding={numbers['770.png']}")
        page.get_by_text("Unit 77", exact=True).wait_for()
        assert (
            page.locator("[data-part=words]").inner_text()
            == "Not flagged by this view. This does not mean free of defects."
        )
        assert (
            page.locator("[data-part=unitWords]").inner_text()
            == "FLAGGED by its view 779.png, whatever the others show."
        )
        views = page.locator("[data-part=views] button")
        assert views.count() == 10 and views.first.get_attribute("aria-current") == "true"
        assert (
            page.locator("[data-part=place]")
            .inner_text()
            .count("good units that set the threshold")
            == 1
        )
        views.last.click()
        page.wait_for_function(
            f"new URL(location.href).searchParams.get('finding') == {numbers['779.png']}"
        )
        page.locator("[data-part=words][data-judged=flagged]").wait_for()
        page.goto(f"{server.url}/image?finding={numbers['880.png']}")
        page.get_by_text("NOT JUDGED: 1 of 10 views found. Treat as not OK.").wait_for()
        words = page.locator("[data-part=words]").inner_text()
        assert words.startswith(
            "NOT INSPECTED: 160x400 found, width:height 0.40, 1.00 in the training images: check "
            "that it is"
        )
        assert page.locator("[data-part=place] svg").count() == 0  # its score says nothing
        page.goto(f"{server.url}/queue")
        page.get_by_text("1 of 2 units have a view above the threshold").wait_for()


@pytest.mark.parametrize("size", SIZES)
def test_the_whole_flow(
    server: Server, open_page: Any, size: tuple[int, int], made: Path, tmp_path: Path
) -> None:
    page = open_page(server.url, size)

    # the queue, the most anomalous first
    page.locator("a.card").first.wait_for()
    names = page.locator("a.card .name").all_inner_texts()
    with Store(server.settings.database) as store:
        best = [Path(finding.path).name for finding in store.findings(Filters(run=1), limit=3)]
    assert [Path(name).name for name in names[:3]] == best
    page.keyboard.press("Enter")

    # twenty images by keyboard, with the type of the defect
    wait_for_picture(page)
    given, times = [], []
    for at in range(20):
        finding, key = shown(page), "anu"[at % 3]
        if key == "a":
            page.keyboard.press("2")
        times.append(press_and_wait(page, key))
        given.append(
            (
                finding,
                {"a": "anomalous", "n": "normal", "u": "unsure"}[key],
                "crack" if key == "a" else None,
            )
        )
    wait_until_saved(page)
    assert [entry[1:] for entry in log_of(server)] == given
    assert len({finding for finding, *_ in given}) == 20
    # 150 on a machine with nothing else to do: tests/benchmarks/measure_dashboard.py
    assert median(times) < 300

    # undo takes the last one back and shows it again
    page.keyboard.press("z")
    page.wait_for_function(
        f"new URL(location.href).searchParams.get('finding') === '{given[-1][0]}'"
    )
    wait_until_saved(page)
    assert [entry[1:] for entry in log_of(server)] == given[:-1]

    # the last ten are listed, and one of them is changed by mouse, with a comment
    sync_api.expect(page.locator("[data-part=recent] li")).to_have_count(10)
    changed = given[-5][0]
    # the list is drawn anew after the undo, and a click at that moment meets a row that is gone
    for _ in range(5):
        page.locator("[data-part=recent] li button").nth(3).click()
        with contextlib.suppress(sync_api.TimeoutError):
            page.wait_for_function(
                f"new URL(location.href).searchParams.get('finding') === '{changed}'", timeout=5000
            )
            break
    page.get_by_label("Comment").fill("seen again under the lamp")
    page.get_by_role("button", name="Normal").click()
    wait_until_saved(page)
    with Store(server.settings.database) as store:
        event = next(iter(store.current(changed).values()))
    assert (event.action, event.payload["text"]) == ("normal", "seen again under the lamp")

    # a link with filters shows the same to somebody else
    link = f"{server.url}/?run=1&state=anomalous&defect_type=crack"
    other = open_page(link, size)
    other.locator("a.card").first.wait_for()
    cracks = {finding for finding, verdict, _ in given[:-1] if verdict == "anomalous"} - {changed}
    assert other.locator("a.card").count() == len(cracks)
    assert "defect_type=crack" in other.url

    # the threshold is moved, by mouse and by keyboard, and kept in a new file
    limit_by_mouse_and_keyboard(page, server, made)

    # recalibrate: the audit sample's verdicts, and nothing else, may set a threshold
    with Store(server.settings.database) as store:
        store.draw_audit(1, 60, by="ann", key=default_key())
        for finding in store.next("bo", "audit", Filters(run=1), count=60):
            store.record(
                "bo",
                finding.id,
                "normal" if "good" in finding.folder else "anomalous",
                key=default_key(),
            )
        manifest = tmp_path / "audit.csv"
        write_calibration_manifest(store, 1, manifest)
        out = tmp_path / "detector-3.onnx"
        card, _, _ = recalibrate_on(made / "run", GoodImages(manifest), out=out, asked=Asked())
        assert card.parent == read_card(made / "run").digest and card.calibration is not None

        # export
        table = tmp_path / "verdicts.csv"
        export_findings(store, table, Filters(run=1, state="judged"))
    with open(table, newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) >= 19


def limit_by_mouse_and_keyboard(page: Any, server: Server, made: Path) -> None:
    page.get_by_role("link", name="Threshold").click()
    handle = page.get_by_role("slider", name="Threshold", exact=True)
    handle.wait_for()
    flagged = page.get_by_test_id("stMetric").filter(has_text="Images flagged in this run")
    before = flagged.inner_text()
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] - page.viewport_size["width"] / 10, box["y"] + 80, steps=8)
    page.mouse.up()
    sync_api.expect(flagged).not_to_have_text(before, use_inner_text=True)
    page.get_by_text(
        "Preview: the guarantee returns when fresh good images confirm it."
    ).first.wait_for()
    value = handle.get_attribute("aria-valuenow")
    page.get_by_role("button", name="Flag more").click()
    sync_api.expect(handle).not_to_have_attribute("aria-valuenow", value, timeout=20_000)
    for _ in range(3):  # each press is one good image further, also once the last one is answered
        value = handle.get_attribute("aria-valuenow")
        handle.press("ArrowLeft")
        page.wait_for_timeout(1000)
        assert float(handle.get_attribute("aria-valuenow")) < float(value)
    page.get_by_role("button", name="Use this threshold").click()
    page.get_by_text("Nothing was written: tick that you accept what gets worse").wait_for()
    names = [f"{page.viewport_size['width']} {name}.onnx" for name in ("first", "second", "third")]
    for name in names:  # a name that was typed is taken every time
        field = page.get_by_label("Write a new detector file with this threshold")
        field.fill(name)
        page.get_by_text("I accept what gets worse").click()
        page.wait_for_timeout(500)
        if shots := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=f"{shots}/threshold-{name}.png", full_page=True)
        page.get_by_role("button", name="Use this threshold").click()
        page.get_by_text(re.compile(rf"Written: .*{name}")).wait_for()
        sync_api.expect(field).not_to_have_value(name)
    cards = [read_card(made / "run" / name) for name in names]
    assert [card.parent for card in cards] == [read_card(made / "run").digest] * 3
    assert len({card.version for card in cards} | {read_card(made / "run").version}) == 4
    assert server.process is not None and server.process.poll() is None


def test_html_in_names_and_comments_shows_as_text(
    made: Path, tmp_path: Path, open_page: Any
) -> None:
    images = tmp_path / "images" / EVIL.replace("/", "_")
    images.mkdir(parents=True)
    part = Image.open(next((made / "parts" / "test" / "chip").glob("*.png")))
    for name in ("a", "b", EVIL.replace("/", "_"), "![x](http:__example.com_x.png) *y*"):
        part.rotate(len(name)).save(images / f"{name}.png")
    table = tmp_path / "scores.csv"
    from tests.support.review_server import anomaly

    anomaly("score", str(made / "run"), str(tmp_path / "images"), "--out", str(table))
    database, run = new_database(made, tmp_path, table, name=EVIL)
    with Store(database) as store:
        for finding in store.findings(Filters(run=run)):
            store.record(EVIL, finding.id, "unsure", key=default_key(), comment=EVIL)
    with serving(database, detectors=(made / "run",)) as server:
        page = open_page(server.url)
        page.locator("a.card").first.wait_for()
        assert any(
            EVIL.replace("/", "_") in name
            for name in page.locator("a.card .name").all_inner_texts()
        )
        for name in ("Image", "Threshold", "Team", "Drift", "Runs"):
            page.get_by_role("link", name=name, exact=True).click()
            page.wait_for_timeout(700)
            assert page.evaluate("window.hit") is None
            assert (
                page.locator("b", has_text="bold").count()
                == page.locator("img[src=x]").count()
                == 0
            )
        page.goto(f"{server.url}/image?run={run}&queue=second")
        wait_for_picture(page)
        assert EVIL.replace("/", "_") in page.locator("[data-part=name]").inner_text()
        page.get_by_label("Comment").fill(EVIL)
        page.get_by_label("Comment").press("Escape")
        press_and_wait(page, "n")
        wait_until_saved(page)
        press_and_wait_back(page)
        # as it was typed
        page.locator("[data-part=history] .event", has_text=EVIL).first.wait_for()
        assert page.evaluate("window.hit") is None


def test_panes_show_the_files_pixels_and_move_in_step(server: Server, open_page: Any) -> None:
    page = open_page(f"{server.url}/image?run=1")
    wait_for_picture(page)
    page.wait_for_timeout(500)  # the heatmap
    with Store(server.settings.database) as store:
        pixels = decode(store.finding(shown(page)).path).pixels
    page.keyboard.press("b")  # the box off
    page.get_by_role("button", name="1:1").click()
    page.wait_for_timeout(300)
    size = page.locator("[data-kind=original] canvas").first.evaluate("c => [c.width, c.height]")
    width = pixels.shape[1]
    if width > size[0]:
        pytest.fail("the pane is smaller than the picture: choose another size for this test")
    view = "[data-kind={}] canvas"
    page.get_by_role("button", name="Fit").click()
    for _ in range(6):
        page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    # far in, each pixel of the file is a square of its own: every colour on the canvas is one of
    # the file's
    seen = page.locator(view.format("original")).first.evaluate(
        "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const s = "
        "new Set(); for (let i = 0; i < d.length; i += 4) if (d[i + 3] === 255) s.add((d[i] << 16) "
        "| (d[i + 1] << 8) | d[i + 2]); return [...s]; }"
    )
    coded = pixels.astype(np.int64) @ np.array([65536, 256, 1])
    assert len(seen) > 5 and np.isin(seen, coded).mean() > 0.98
    # all panes look at the same place: nothing is empty, and going back shows the whole again
    assert [
        pixel(page, kind, 40, 40)[3] for kind in ("original", "expected", "difference", "good")
    ] == [255] * 4
    page.keyboard.press("0")
    page.wait_for_timeout(300)
    # beside the square picture
    assert [pixel(page, kind, 2, 60)[3] for kind in ("original",)] == [0]


def test_all_of_it_by_keyboard_with_visible_focus_and_names(server: Server, open_page: Any) -> None:
    page = open_page(f"{server.url}/image?run=1")
    wait_for_picture(page)
    nameless = page.locator(".review :is(button, input, textarea, canvas[role=img])").evaluate_all(
        "nodes => nodes.filter((n) => !(n.ariaLabel || n.textContent.trim() || "
        "n.labels?.length)).map((n) => n.outerHTML)"
    )
    assert nameless == []
    controls = set("heatmap opacity contrast grid anomalous skip undo help comment type".split())
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        focus = page.evaluate(
            """() => { let at = document.activeElement;
              while (at?.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
              const style = getComputedStyle(at);
              return [at.dataset.part || at.dataset.verdict || at.className,
                style.outlineStyle !== 'none' || style.boxShadow !== 'none']; }"""
        )
        if focus[0] in controls:
            reached.add(focus[0])
            assert focus[1], f"the focus on {focus[0]} is not seen"
    assert reached == controls
    page.locator("[data-part=name]").click()
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys").wait_for()
    page.keyboard.press("n")  # no verdict while the help is open
    page.keyboard.press("Escape")
    page.keyboard.press("m")
    page.keyboard.type("a note with a and n and z in it")  # typing gives no verdicts
    page.keyboard.press("Escape")
    assert log_of(server) == []
    press_and_wait(page, "j")
    press_and_wait_back(page)
    # not lost on the way
    sync_api.expect(page.get_by_label("Comment")).to_have_value("a note with a and n and z in it")
    press_and_wait(page, "s")
    wait_until_saved(page)
    assert [entry[2] for entry in log_of(server)] == ["skip"]


def press_and_wait_back(page: Any) -> None:
    before = page.url
    page.keyboard.press("k")
    page.wait_for_function(f"location.href !== {before!r}")


def test_a_verdict_given_while_the_server_is_dead_is_saved_when_it_is_back(
    server: Server, open_page: Any
) -> None:
    page = open_page(f"{server.url}/image?run=1")
    wait_for_picture(page)
    page.wait_for_timeout(1500)  # the next ones are loaded
    server.kill()
    finding = shown(page)
    press_and_wait(page, "a")
    page.locator("[data-part=saving][data-state=failing]").wait_for()
    sync_api.expect(page.locator("[data-part=saving]")).to_contain_text("1 not saved yet")
    server.start()
    wait_until_saved(page)
    assert [entry[1:3] for entry in log_of(server)] == [(finding, "anomalous")]


def test_a_verdict_that_was_not_sent_survives_a_reload(server: Server, open_page: Any) -> None:
    page = open_page(f"{server.url}/image?run=1")
    wait_for_picture(page)
    page.route("**/api/verdict", lambda route: route.abort())
    finding = shown(page)
    press_and_wait(page, "u")
    page.locator("[data-part=saving][data-state=failing]").wait_for()
    page.unroute("**/api/verdict")
    page.on("dialog", lambda dialog: dialog.accept())  # "leave the page?"
    page.reload()
    wait_for_picture(page)
    wait_until_saved(page)
    assert [entry[1:3] for entry in log_of(server)] == [(finding, "unsure")]


def test_a_page_left_open_overnight_signs_itself_in_again(server: Server, open_page: Any) -> None:
    """What a token of yesterday and links of yesterday get for an answer; a run of the page brings
    new ones.
    """
    old = KEY.token(Person("root", "admin"), time.time() - 24 * 3600)
    page = open_page("about:blank")
    answers: list[tuple[str, int]] = []
    page.on("response", lambda r: answers.append((urlsplit(r.url).path, r.status)))
    aged: set[str] = set()

    def with_old_token(route: Any) -> None:
        first = "verdict" not in aged
        aged.add("verdict")
        route.continue_(headers=route.request.headers | ({"x-review-token": old} if first else {}))

    def with_old_link(route: Any) -> None:
        number = urlsplit(route.request.url).path.split("/")[2]
        first = number not in aged
        aged.add(number)
        link = KEY.link(int(number), "original", time.time() - 24 * 3600)
        route.continue_(url=server.url + link) if first else route.continue_()

    page.route("**/api/verdict", with_old_token)
    page.route("**/evidence/*/original?*", with_old_link)
    page.goto(f"{server.url}/image?run=1")
    wait_for_picture(page)
    finding = shown(page)
    press_and_wait(page, "a")
    wait_until_saved(page)
    assert ("/api/verdict", 401) in answers and (f"/evidence/{finding}/original", 403) in answers
    assert [entry[1:3] for entry in log_of(server)] == [(finding, "anomalous")]


def test_hostile_and_lost_images_do_not_stop_the_page(
    made: Path, tmp_path: Path, open_page: Any
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    parts = sorted((made / "parts" / "test").glob("*/*.png"))
    for at, part in enumerate(parts[:8]):
        (images / f"{at}.png").write_bytes(part.read_bytes())
    table = tmp_path / "scores.csv"
    from tests.support.review_server import anomaly

    anomaly("score", str(made / "run"), str(images), "--out", str(table))
    (images / "1.png").unlink()
    (images / "2.png").write_bytes((images / "2.png").read_bytes()[:3000])
    Image.open(images / "3.png").rotate(90).save(images / "3.png")
    database, run = new_database(made, tmp_path, table)
    with serving(database, detectors=(made / "run",)) as server:
        page = open_page(f"{server.url}/image?run={run}")
        page.locator("[data-part=name]:not(:empty)").wait_for()
        said = {}
        for _ in range(8):
            page.wait_for_timeout(500)
            name = page.locator("[data-part=name]").inner_text()
            note = page.locator("[data-kind=original] .note").inner_text()
            said[name] = (note, page.locator("[data-part=state]").inner_text())
            # counts for what was scored and can be seen, and for nothing else
            page.keyboard.press("n")
            page.wait_for_timeout(300)
            if page.locator("[data-part=name]").inner_text() == name:
                page.keyboard.press("s")
        wait_until_saved(page)
    assert (
        "is not there any more" in said["1.png"][0] and "no longer where it was" in said["1.png"][1]
    )
    assert "ends early" in said["2.png"][0]
    changed = (
        "This file has changed since it was scored: the score is of other pixels. It cannot be "
        "judged: score it again."
    )
    assert said["3.png"] == ("", changed)
    assert {said[f"{at}.png"] for at in (0, 4, 5, 6, 7)} == {("", "")}
    assert Counter(verdict for _, _, verdict, _ in log_of(server)) == {"normal": 5, "skip": 3}


def test_four_browsers_at_once_lose_double_and_share_nothing(
    server: Server, open_page: Any
) -> None:
    pages = {}
    for name in ("ann", "bo", "cy", "di"):
        cookie = {"name": "review_inspector", "value": name, "url": server.url}
        page = open_page("about:blank")
        page.context.add_cookies([cookie])
        page.goto(f"{server.url}/image?run=1")
        pages[name] = page
    for page in pages.values():
        wait_for_picture(page)
    given: list[tuple[str, int]] = []
    for at in range(6):
        # Playwright drives one at a time; the servers' work goes on behind
        for name, page in pages.items():
            given.append((name, shown(page)))
            press_and_wait(page, "an"[at % 2])
    for page in pages.values():
        wait_until_saved(page)
    assert sorted((who, finding) for who, finding, *_ in log_of(server)) == sorted(given)
    assert max(Counter(finding for _, finding in given).values()) == 1


def test_a_name_typed_in_stays_in_this_browser(server: Server, open_page: Any) -> None:
    page = open_page(server.url)
    page.locator("a.card").first.wait_for()
    page.get_by_test_id("stExpandSidebarButton").click()
    page.get_by_role("textbox", name="Inspector").fill("Zoë from the night shift")
    page.get_by_role("textbox", name="Inspector").press("Enter")
    page.wait_for_function("document.cookie.includes('review_inspector=Zo')")
    page.goto(f"{server.url}/image?run=1")
    wait_for_picture(page)
    press_and_wait(page, "n")
    wait_until_saved(page)
    assert [entry[0] for entry in log_of(server)] == ["Zoë from the night shift"]


def test_the_address_names_the_image_and_opens_it_again(server: Server, open_page: Any) -> None:
    page = open_page(f"{server.url}/image?run=1&result=flagged&queue=uncertain")
    wait_for_picture(page)
    press_and_wait(page, "j")
    link, name = page.url, page.locator("[data-part=name]").inner_text()
    other = open_page(link)
    wait_for_picture(other)
    sync_api.expect(other.locator("[data-part=name]")).to_have_text(name)
    assert {"result", "queue", "finding", "run"} <= set(parse_qs(urlsplit(other.url).query))


def test_no_error_details_reach_the_browser(made: Path, tmp_path: Path, open_page: Any) -> None:
    """A bug in a page, here a database that is taken away, shows no traceback, path or version."""
    database, _ = new_database(made, tmp_path)
    with serving(database, detectors=(made / "run",)) as server:
        page = open_page(server.url)
        page.locator("a.card").first.wait_for()
        assert page.locator("text=Traceback").count() == 0
        body = page.content()
    assert "site-packages" not in body and str(tmp_path) not in re.sub(
        r"title=\"[^\"]*\"", "", body
    )


def test_the_images_that_set_the_threshold_are_looked_at_before_anything_is_scored(
    made: Path, tmp_path: Path, open_page: Any
) -> None:
    """From an empty database: the picture and its heatmap are painted, and a click marks the image
    beside it.
    """
    shutil.copytree(made / "run", tmp_path / "run")
    Store(tmp_path / "review.db").close()
    _, highest = read_highest(tmp_path / "run")
    with serving(tmp_path / "review.db", detectors=(tmp_path / "run",)) as server:
        page = open_page(f"{server.url}/calibration")
        for image, kind in ((highest[0], "defect"), (highest[1], "good")):
            page.locator(f".st-key-{kind}-{image.sha256} button").click()
            page.locator(f".st-key-{kind}-{image.sha256} button[disabled]").wait_for()
        page.get_by_text("1 image is marked as a defect.").wait_for()
        painted = page.locator("[data-testid=stImage] img").evaluate_all(
            "all => all.map((i) => i.complete && i.naturalWidth > 0)"
        )
        if shots := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=f"{shots}/calibration.png")
    assert painted == [True] * 10
    assert {sha256: mark.mark for sha256, mark in read_marks(tmp_path / "run").items()} == {
        highest[0].sha256: "defect",
        highest[1].sha256: "good",
    }


# --- the mask -------------------------------------------------------------------------------------
def test_a_mask_is_drawn_and_saved_as_train_takes_it(
    server: Server, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    Image.fromarray(np.full((300, 400, 3), 128, np.uint8)).save(tmp_path / "part.png")
    page = open_page(f"{server.url}/mask")
    page.get_by_text("of a file").click()
    page.locator("input[type=file]").nth(1).wait_for(state="attached")  # beside the mask's own
    page.locator("input[type=file]").first.set_input_files(tmp_path / "part.png")
    page.get_by_text("0 shapes").wait_for()
    page.locator(".mask .note").wait_for(state="hidden")
    at = on_screen(page, ".mask .pane", 400, 300)
    drag(page, at(100, 60), at(300, 240))
    page.get_by_text("1 shape", exact=True).wait_for()
    page.keyboard.press("Escape")  # no shape is selected: the next one is another
    page.get_by_role("button", name="Ignore").click()
    page.get_by_role("button", name="Rectangle").click()
    drag(page, at(200, 150), at(360, 270))
    page.get_by_text("2 shapes").wait_for()
    page.get_by_text("23 % of the image is inspected").or_(
        page.get_by_text("22 % of the image is inspected")
    ).first.wait_for()
    if shots := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{shots}/mask.png")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save mask.png").click()
    saved.value.save_as(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    assert mask.shape == (300, 400)
    places = ((150, 150), (70, 290), (200, 250), (30, 200), (290, 390))
    assert [bool(mask[place]) for place in places] == [True, True, False, False, False]
    assert abs(mask.mean() - (0.5 * 0.6 - 0.25 * 0.3)) < 0.02
