"""One verdict on many images: what it is worth, whom it leaves out, and how it is taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from anomaly.errors import AnomalyError
from anomaly.review import Filters, Store, default_key
from tests.review.test_review import database, fill, give_verdict, postgres, row, store  # noqa: F401


def filled(store: Store, folder: Path, images: int = 12) -> tuple[int, list[int]]:  # noqa: F811
    """Returns a run of that many images, half of them flagged, and its findings."""
    run = fill(store, folder, [row(n, 2 - 2 * n / images) for n in range(images)])
    return run, [finding.id for finding in store.findings(Filters(run=run))]


def states(store: Store, run: int) -> list[str]:  # noqa: F811
    return [finding.state for finding in store.findings(Filters(run=run))]


def test_one_verdict_on_many_is_marked_and_taken_back_as_one(
    store: Store,  # noqa: F811
    tmp_path: Path,
) -> None:
    run, ids = filled(store, tmp_path)
    give_verdict(store, ids[0], "anomalous")
    key, back = default_key(), default_key()
    for _ in range(2):  # the same click twice counts once
        done = store.record_bulk("ann", ids[:4], "normal", key=key, seconds=2.0)
        assert [event.finding for event in done.events] == ids[:4] and done.left_out == {}
    assert [event.payload for event in done.events] == [{"bulk": 4, "seconds": 0.5}] * 4
    assert states(store, run) == ["normal"] * 4 + ["open"] * 8
    for _ in range(2):
        undone = store.undo_bulk("ann", ids[:4], of=key, key=back)
        assert [event.undoes for event in undone] == [event.id for event in done.events]
    assert states(store, run) == ["anomalous"] + ["open"] * 11  # what was said before holds again
    assert store.log_chain().wrong == []


def test_what_others_hold_judged_or_audit_is_left_out(store: Store, tmp_path: Path) -> None:  # noqa: F811
    run, ids = filled(store, tmp_path, 40)
    store.draw_audit(run, 10, by="admin", key=default_key())
    drawn = [f.id for f in store.findings(Filters(run=run)) if f.sampled_as == "audit"]
    held = [finding.id for finding in store.next("bo", filters=Filters(run=run), count=2)]
    judged, skipped, *_ = [one for one in reversed(ids) if one not in (*drawn, *held)]
    give_verdict(store, judged, "anomalous", "bo")
    give_verdict(store, skipped, "skip", "bo")
    done = store.record_bulk("ann", ids, "normal", key=default_key())
    why = {finding: reason.partition(":")[0] for finding, reason in done.left_out.items()}
    assert why.pop(judged) == "somebody else has judged it"
    assert {why.pop(one) for one in drawn} == {"it is in the audit sample"}
    assert set(why.values()) <= {"somebody else has it before them", "it is in the audit sample"}
    assert {*why} <= {*held, *ids[:20]} and skipped in {event.finding for event in done.events}
    assert {event.finding for event in done.events} | {*done.left_out} == {*ids}


def test_a_verdict_in_bulk_is_no_answer_of_an_audit(store: Store, tmp_path: Path) -> None:  # noqa: F811
    """The sample is drawn afterwards: who judged in bulk is asked for each image again."""
    run, ids = filled(store, tmp_path)
    store.record_bulk("ann", ids, "normal", key=default_key())
    store.draw_audit(run, 12, by="admin", key=default_key())
    assert set(store.sample(run).states) == {"open"}
    assert store.calibration_images(run) == [] and store.progress(run).audit_judged == 0
    assert sum(stratum.judged for stratum in store.strata(run)) == 0
    assert store.remaining("audit", Filters(run=run))[0] == 12
    handed = store.next("ann", "audit", Filters(run=run), count=20)
    assert {finding.id for finding in handed} == {*ids}
    for finding in handed:
        give_verdict(store, finding.id, "normal")
    assert set(store.sample(run).states) == {"normal"} and store.progress(run).audit_judged == 12
    assert store.remaining("audit", Filters(run=run))[0] == 0


@pytest.mark.parametrize(
    ("findings", "verdict", "kind", "said"),
    [
        ([], "normal", None, "0 images found, 1 to 500 at once expected"),
        ([10**9], "normal", None, "finding 1000000000 is not in this review database"),
        ([1], "skip", None, "verdict 'skip' found, anomalous, normal or unsure expected"),
        ([1], "normal", "dent", "only anomalous images have one"),
        ([1], "anomalous", "no such", "defect type 'no such' found"),
    ],
)
def test_what_is_no_verdict_on_many_is_refused(
    tmp_path: Path, findings: list[int], verdict: str, kind: str | None, said: str
) -> None:
    with Store(tmp_path / "review.db") as lite:
        filled(lite, tmp_path, 2)
        with pytest.raises(AnomalyError, match=said):
            lite.record_bulk("ann", findings, verdict, key="k", defect_type=kind)
