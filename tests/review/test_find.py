"""Findings by words, by region, and filters that were saved."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from anomaly.errors import AnomalyError
from anomaly.review import Filters, Store, default_key
from tests.review.test_review import (  # noqa: F401
    database,
    fill,
    give_verdict,
    numbers,
    postgres,
    row,
    store,
)


def test_findings_are_found_by_words_and_by_region(store: Store, tmp_path: Path) -> None:  # noqa: F811
    far = row(3, 0.2)._replace(box_x=200)
    run = fill(store, tmp_path, [row(0, 3.0), row(1, 2.0), row(2, 0.5, defect_type="burr"), far])
    other = fill(store, tmp_path, [row(1, 2.0), row(9, 2.0)])
    ids = {one.position: one.id for one in store.findings(Filters(run=run))}
    give_verdict(store, ids[0], "anomalous", comment="Riss am Rand, 100 % sicher", defect_type=None)
    store.comment("bo", ids[1], "am_Rand", key=default_key())
    taken_back = store.comment("bo", ids[2], "Rand", key=default_key())
    store.undo("bo", key=default_key(), event=taken_back.id)

    def found(**asked: object) -> list[int]:
        return sorted(numbers(store.findings(Filters(run=run, **asked))))  # type: ignore[arg-type]

    assert found(find="RAND") == [0, 1]
    assert found(find="rand riss") == [0]
    assert found(find="100 %") == [0]  # a sign of LIKE, and only a sign
    assert found(find="m_R") == [1]
    assert found(find="0003.png") == [3] and found(find="burr") == [2]
    assert found(find="nowhere") == []
    assert found(find="photos", like=ids[0]) == [1, 2]  # of its region, of this run, not itself
    assert found(like=10**9) == []
    assert Filters.from_query(Filters(find="a b", like=3).to_query()) == Filters(find="a b", like=3)
    assert store.count(Filters(run=other, find="rand")) == 0

    store.save_filters(" edge ", {"find": "rand", "queue": "uncertain"}, by="ann")
    store.save_filters("edge", {"find": "Rand"}, by="bo")
    assert store.saved_filters() == {"edge": {"find": "Rand"}}
    with pytest.raises(AnomalyError, match="name of filters"):
        store.save_filters(" ", {}, by="ann")
    store.forget_filters("edge")
    assert store.saved_filters() == {}
