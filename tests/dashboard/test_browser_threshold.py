"""The Threshold page in a browser: where the decision is made, what is missed, and a threshold that
the audit sample sets.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("sqlalchemy")
pytest.importorskip("torch")
pytest.importorskip("playwright")

from anomaly.detector.file import read_card
from anomaly.review import Filters, Store, default_key
from tests.support.review_server import find_chromium, new_database, serving

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium found: apt-get install chromium"
)
COLUMNS = """chart => [...chart.querySelectorAll('.strip')].map((strip) => {
  const bars = [...strip.querySelectorAll('rect')].map((bar) => Number(bar.getAttribute('x')));
  return [Math.min(...bars), Math.max(...bars)]; })"""


def judge_audit(database: Path, run: int) -> int:
    """Draws every image of a run into the audit sample and judges it, by its score's side; the
    lowest is called a defect. Returns that one.
    """
    with Store(database) as store:
        store.draw_audit(run, 1000, by="admin", key=default_key())
        found = store.findings(Filters(run=run), limit=1000)
        for finding in found[:-1]:
            verdict = "anomalous" if finding.is_anomaly else "normal"
            store.record("ann", finding.id, verdict, key=default_key())
        store.record("ann", found[-1].id, "anomalous", key=default_key())
    return found[-1].id


def test_the_decision_fills_the_picture_misses_are_named_and_an_audit_recalibrates(
    made: Path, tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    database, run = new_database(made, tmp_path, name="line 3")
    missed = judge_audit(database, run)
    with serving(database, detectors=(tmp_path / "run",)) as server:
        page = open_page(f"{server.url}/threshold?run={run}")
        page.get_by_role("slider", name="Threshold", exact=True).wait_for()
        page.get_by_text("96 %, counted, not estimated (56 verdicts)").wait_for()
        chart = page.locator(".chart")
        zoomed = chart.evaluate(COLUMNS)[0]
        assert chart.locator(".beyond").count() >= 2  # what is not drawn is counted
        assert zoomed[0] < 10 and 30 < zoomed[1] < 70  # good images, and room as wide above them
        page.get_by_text("Whole range of scores").click()
        page.wait_for_function("""() => { const find = (node) => node.querySelector('.chart') ??
            [...node.querySelectorAll('*')].map((one) => one.shadowRoot && find(one.shadowRoot))
              .find(Boolean); return find(document).querySelectorAll('.beyond').length === 0; }""")

        page.get_by_text("1 image judged anomalous passes at this threshold").wait_for()
        page.get_by_role("button", name="Show before and after").click()
        page.get_by_role("button", name="Write the recalibrated detector").click(timeout=60_000)
        page.get_by_text("Nothing was written: tick that you accept").wait_for()
        assert [*(tmp_path / "run").glob("detector-*.onnx")] == []
        page.get_by_text("I accept that the guarantee gets worse").click()
        page.get_by_role("button", name="Write the recalibrated detector").click()
        page.get_by_text(re.compile("^Written: /")).wait_for(timeout=60_000)
        (file,) = (tmp_path / "run").glob("detector-*.onnx")
        old, new = read_card(tmp_path / "run" / "detector.onnx"), read_card(file)
        assert new.parent == old.digest and new.training.accepted_worse
        assert new.calibration is not None and old.calibration is not None
        assert new.calibration.n < old.calibration.n and new.training.threshold_moved is None
        with Store(database) as store:
            (event,) = store.events(actions=("threshold",))
        assert (event.detector, event.inspector) == (new.digest, new.training.recalibrated_by)

        page.locator("a[href*='finding=']").click()
        page.wait_for_function("location.pathname.endsWith('/image')")
        assert parse_qs(urlsplit(page.url).query)["finding"] == [str(missed)]
