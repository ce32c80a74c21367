"""From a service to the review database: what is stored, what is counted, and that nothing waits
for it.
"""

from __future__ import annotations

import io
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly.detector.card import Card
from anomaly.detector.file import read_card
from anomaly.errors import AnomalyError
from anomaly.review import Filters, Store, default_key
from anomaly.review.estimates import recall
from anomaly.review.outbox import ROOM, Outbox
from anomaly.scorer import Result, Scorer
from tests.support.serving import serving


@pytest.fixture(scope="module")
def card(run: Path) -> Card:
    return read_card(run)


def result(card: Card, number: int, flagged: bool) -> tuple[bytes, Result]:
    """A synthetic image and a verdict on it."""
    assert card.calibration is not None
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), number % 256, np.uint8)).save(
        file, "PNG", compress_level=number % 9
    )
    score = float(card.calibration.threshold) * (2 if flagged else 0.5)
    found = Result("ok", score, 0.5, flagged, width=4, height=4, box=(0, 0, 1, 1), area=1)
    return file.getvalue() + str(number).encode(), found


def test_what_is_flagged_and_a_random_share_are_stored_and_the_rest_is_counted(
    card: Card, tmp_path: Path
) -> None:
    outbox = Outbox(str(tmp_path / "review.db"), tmp_path / "images", audit_share=0.2, every=0.05)
    for number in range(600):
        outbox.offer(*result(card, number, flagged=number % 30 == 0), card)
    outbox.close()
    with Store(tmp_path / "review.db") as store:
        run = store.runs()[0]
        assert (len(store.runs()), run.flagged, outbox.dropped) == (1, 20, 0)
        findings = store.findings(Filters(run=run.id), limit=1000)
        assert outbox.stored == len(findings) == store.count(Filters(run=run.id))
        passed = [finding for finding in findings if not finding.is_anomaly]
        assert 60 < len(passed) < 180  # 580 times 0.2: 116, and six standard deviations
        strata = {stratum.number: stratum for stratum in store.strata(run.id)}
        assert (strata[0].images, strata[1].drawn) == (20, len(passed))
        assert strata[1].images <= 580 and run.images == 20 + strata[1].images
        # but for those that passed after the last one that was stored
        assert strata[1].images > 540
        assert {store.image(finding.id).state for finding in findings[:30]} == {"same"}
        assert store.detector(card.digest).card is not None


def test_an_inspector_finds_them_and_recall_can_be_said(card: Card, tmp_path: Path) -> None:
    outbox = Outbox(str(tmp_path / "review.db"), tmp_path / "images", audit_share=1.0, every=0.05)
    for number in range(100):
        outbox.offer(*result(card, number, flagged=number < 10), card)
    outbox.close()
    with Store(tmp_path / "review.db") as store:
        run = store.runs()[0].id
        for finding in store.findings(Filters(run=run), limit=1000):
            verdict = "anomalous" if finding.is_anomaly else "normal"
            store.record("ann", finding.id, verdict, key=default_key())
        assert store.next("ann", filters=Filters(run=run)) == []
        found = recall(store.sample(run))
        assert found.value == pytest.approx(1.0)
        assert len(store.calibration_images(run)) == 90  # the whole of it is an audit sample


def test_what_passed_after_the_last_finding_is_counted_at_the_end(
    card: Card, tmp_path: Path
) -> None:
    outbox = Outbox(str(tmp_path / "review.db"), tmp_path / "images", audit_share=0.0, every=0.01)
    outbox.offer(*result(card, 0, flagged=True), card)
    while not outbox.stored:
        time.sleep(0.01)
    for number in range(1, 8):
        outbox.offer(*result(card, number, flagged=False), card)
    outbox.close()
    with Store(tmp_path / "review.db") as store:
        assert [(run.images, run.flagged) for run in store.runs()] == [(8, 1)]


def test_runs_go_on_after_a_restart_and_detectors_have_their_own(
    card: Card, tmp_path: Path
) -> None:
    other = replace(card, digest="0" * 64)
    for given in (card, card, other):
        outbox = Outbox(
            str(tmp_path / "review.db"), tmp_path / "images", audit_share=0.0, every=0.05
        )
        outbox.offer(*result(given, 1, flagged=True), given)
        outbox.close()
    with Store(tmp_path / "review.db") as store:
        assert sorted(run.flagged for run in store.runs()) == [1, 2]


def test_arrays_are_stored_as_the_pixels_that_were_judged(card: Card, tmp_path: Path) -> None:
    outbox = Outbox(str(tmp_path / "review.db"), tmp_path / "images", every=0.05)
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    outbox.offer(pixels, result(card, 0, flagged=True)[1], card)
    outbox.close()
    stored = list((tmp_path / "images").rglob("*.png"))
    assert len(stored) == 1 and np.array_equal(np.asarray(Image.open(stored[0])), pixels)


def test_errors_and_images_outside_are_not_findings_unless_drawn(
    card: Card, tmp_path: Path
) -> None:
    outbox = Outbox(str(tmp_path / "review.db"), tmp_path / "images", audit_share=0.0, every=0.05)
    assert not outbox.offer(b"x", Result("error", error="truncated"), card)
    assert not outbox.offer(b"x", Result("outside", 1.0, 0.5, None), card)
    outbox.close()


def test_while_the_database_is_held_nothing_waits_and_later_all_is_stored(
    card: Card, tmp_path: Path
) -> None:
    outbox = Outbox(str(tmp_path / "review.db"), tmp_path / "images", audit_share=0.0, every=0.01)
    offers = [result(card, number, flagged=True) for number in range(2 * ROOM)]
    # somebody writes for a long time
    with Store(tmp_path / "review.db") as store, store._db.write():
        start = time.monotonic()
        taken = [outbox.offer(*one, card) for one in offers]
        assert time.monotonic() - start < 10  # each alone would wait for a minute
        assert ROOM <= sum(taken) < 2 * ROOM
        assert outbox.dropped == 2 * ROOM - sum(taken)
    outbox.close()
    assert outbox.stored == sum(taken)


def test_a_broken_disk_is_said_and_the_thread_lives_on(card: Card, tmp_path: Path) -> None:
    said: list[str] = []
    outbox = Outbox(
        str(tmp_path / "review.db"),
        tmp_path / "images",
        audit_share=0.0,
        every=0.01,
        say=said.append,
    )
    (tmp_path / "images").rmdir()
    (tmp_path / "images").write_text("a file where the folder was")
    outbox.offer(*result(card, 0, flagged=True), card)
    waited = time.monotonic()
    while not said:
        assert time.monotonic() - waited < 20
        time.sleep(0.01)
    (tmp_path / "images").unlink()
    (tmp_path / "images").mkdir()
    while not outbox.stored:
        assert time.monotonic() - waited < 40
        time.sleep(0.05)
    outbox.close()
    assert said[0].startswith("1 findings are not stored yet") and outbox.dropped == 0


def test_a_database_that_is_none_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "review.db").write_text(
        "not a database, surely, but long enough to be taken for one at first sight" * 9
    )
    with pytest.raises(AnomalyError, match="review database"):
        Outbox(str(tmp_path / "review.db"), tmp_path / "images")


def test_the_service_sends_what_it_flagged(run: Path, parts: Path, tmp_path: Path) -> None:
    bodies = [path.read_bytes() for path in sorted((parts / "test").rglob("*.png"))]
    scorer = Scorer(run, device="cpu")
    flagged = sum(result.is_anomaly is True for result in scorer.score(list(bodies)))
    assert 0 < flagged < len(bodies)
    arguments = (
        run,
        "--review",
        tmp_path / "r.db",
        "--create-review",
        "--review-images",
        tmp_path / "images",
        "--audit-share",
        "0",
        "--waiting",
        "99",
    )
    with serving(tmp_path / "log", *arguments) as service:
        threads = [threading.Thread(target=service.post, args=("/score", body)) for body in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert "anomaly_findings_dropped 0.0" in service.get("/metrics").data.decode()
        assert service.stop() == 0  # what is waiting is stored first
    with Store(tmp_path / "r.db") as store:
        findings = store.findings(limit=1000)
        assert len(findings) == flagged and {
            store.image(finding.id).state for finding in findings
        } == {"same"}
