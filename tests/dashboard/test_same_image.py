"""What the pages say of an image that was settled in another run: nothing where it is to be judged
blind.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("sqlalchemy")

from anomaly.review import Filters, Store, default_key
from dashboard.access import Person
from dashboard.desk import Desk
from dashboard.findings import history, rows
from dashboard.settings import Settings
from tests.review.test_review import fill, give_verdict, row
from tests.support.review_server import SECRET


def test_earlier_verdicts_are_shown_but_not_in_an_audit(tmp_path: Path) -> None:
    database = tmp_path / "review.db"
    with Store(database) as store:
        first = fill(store, tmp_path, [row(n, 2 - n / 10) for n in range(4)])
        give_verdict(store, store.findings(Filters(run=first))[0].id, "anomalous", comment="deep")
        second = fill(store, tmp_path, [row(n, 3 - n / 10) for n in range(4)])
        again, other, *_ = store.findings(Filters(run=second))
    desk, bo = Desk.open(Settings(str(database), SECRET)), Person("bo", "inspector")
    named = desk.store.run(first).name
    cards = rows(desk, [again, other])
    assert [card["busy"] for card in cards] == [f"anomalous in {named}", ""]
    (event,) = history(desk, again.id, bo)["history"]
    kept = ("verdict", "who", "comment", "where")
    assert [event[name] for name in kept] == ["anomalous", "ann", "deep", named]
    assert history(desk, other.id, bo) == {"history": [], "hidden": ""}
    desk.store.draw_audit(second, 4, by="admin", key=default_key())
    assert history(desk, again.id, bo) == {"history": [], "hidden": ""}
    assert rows(desk, [desk.store.finding(again.id)])[0]["busy"] in ("", "audit")
    desk.store.close()
