"""Verdicts follow the image: the same bytes in another run are settled, but for an audit and a
second opinion.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from anomaly.review import Filters, Store, default_key
from tests.review.test_review import database, fill, give_verdict, postgres, row, store  # noqa: F401


def test_what_was_settled_does_not_come_again(store: Store, tmp_path: Path) -> None:  # noqa: F811
    first = fill(store, tmp_path, [row(n, 2 - n / 10) for n in range(6)])
    a, b, c, *_ = [finding.id for finding in store.findings(Filters(run=first))]
    give_verdict(store, a, "anomalous")
    give_verdict(store, b, "unsure")
    give_verdict(store, c, "normal", "bo")
    # other scores of the same images, one new image, and one that was not read: it has no digest
    rows = [row(n, 3 - n / 10) for n in range(7)]
    second = fill(store, tmp_path, [*rows[:4], rows[4]._replace(sha256=None), *rows[5:]])
    again = Filters(run=second)
    ids = [finding.id for finding in store.findings(again)]
    before = store.settled_before(ids)
    assert {ids.index(one): twin.state for one, twin in before.items()} == {
        0: "anomalous",
        2: "normal",
    }
    handed = store.next("cy", filters=again, count=20)
    assert [ids.index(finding.id) for finding in handed] == [1, 3, 4, 5, 6]
    store.release("cy")
    assert store.remaining("anomalous", again) == (5, 7)
    assert (store.progress(second).flagged_judged, store.progress(second).flagged) == (2, 7)
    sample = store.sample(second)
    assert dict(zip(sample.findings.tolist(), sample.states, strict=True)) == {
        one: {0: "anomalous", 2: "normal"}.get(at, "open") for at, one in enumerate(ids)
    }
    # drawn into an audit sample they are judged anew, blind
    store.draw_audit(second, 7, by="admin", key=default_key())
    assert store.settled_before(ids) == {} and set(store.sample(second).states) == {"open"}
    assert len(store.next("cy", "audit", again, count=20)) == 7
    # what is said here holds here, whatever was said before
    give_verdict(store, ids[0], "normal", "cy")
    assert store.finding(ids[0]).state == "normal" and store.finding(a).state == "anomalous"


def test_an_undone_verdict_settles_nothing(tmp_path: Path) -> None:
    with Store(tmp_path / "review.db") as lite:
        first = fill(lite, tmp_path, [row(0, 2.0)])
        give_verdict(lite, lite.findings(Filters(run=first))[0].id, "normal")
        second = fill(lite, tmp_path, [row(0, 3.0)])
        assert lite.next("ann", filters=Filters(run=second)) == []
        lite.undo("ann", key=default_key())
        assert len(lite.next("ann", filters=Filters(run=second))) == 1
