from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip(
    "sqlalchemy", reason="SQLAlchemy is not installed: the review database needs it"
)

from anomaly.errors import AnomalyError
from anomaly.review import Store, default_key
from anomaly.review.exports import export_events, export_findings
from anomaly.review.findings import Filters
from tests.commands.test_main import Shell
from tests.review.test_chain import past_the_triggers
from tests.review.test_review import fill, give_verdict, row

ASKED: dict[str, Callable[[Store, Path], object]] = {
    "runs": lambda store, _: store.runs(),
    "detectors": lambda store, _: store.detectors(),
    "findings": lambda store, _: store.findings(),
    "events": lambda store, _: store.events(limit=None),
    "series": lambda store, _: store.series("c0" * 32),
    "sample": lambda store, _: store.sample(1),
    "team": lambda store, _: store.team(1),
    "draw": lambda store, _: store.draw_audit(1, 4, 0, by="ann", key=default_key()),
    "csv": lambda store, folder: export_findings(store, folder / "o.csv", Filters()),
    "coco": lambda store, folder: export_findings(store, folder / "o.json", Filters()),
    "log": lambda store, folder: export_events(store, folder / "o.jsonl"),
    "chain": lambda store, _: store.log_chain(),
}


@pytest.mark.parametrize(
    ("statement", "asked"),
    [
        ("UPDATE findings SET score = 'abc'", "findings series sample csv draw chain"),
        ("UPDATE findings SET width = 'wide'", "findings csv coco"),
        ("UPDATE findings SET path = X'ff00'", "findings csv chain"),
        ("UPDATE findings SET stratum = 'x', lot = 'y'", "findings sample"),
        ("UPDATE findings SET is_anomaly = 'maybe'", "findings draw"),
        ("UPDATE runs SET threshold = 'high'", "runs sample"),
        ("UPDATE runs SET images = 'many'", "runs"),
        ("UPDATE detectors SET card = 'garbage'", "detectors series"),
        ("UPDATE detectors SET card = '[1]'", "detectors"),
        ("UPDATE events SET payload = '{'", "events log chain team"),
        ("UPDATE events SET payload = '[]'", "events log team"),
        ("UPDATE events SET threshold = 't'", "events log chain"),
        ("UPDATE events SET inspector = 5.5, at = X'00'", "events chain"),
    ],
)
def test_a_text_where_a_number_belongs_is_one_line(
    tmp_path: Path, statement: str, asked: str
) -> None:
    """SQLite puts anything into any column; a traceback is a bug whatever is asked for."""
    with Store(tmp_path / "review.db") as store:
        fill(store, tmp_path, [row(i, 0.5 + i) for i in range(3)])
        give_verdict(store, 1, "normal", comment="x")
    past_the_triggers(statement)(tmp_path / "review.db")
    for name in asked.split():
        with Store(tmp_path / "review.db") as store, pytest.raises(AnomalyError) as error:
            ASKED[name](store, tmp_path)
        assert "belongs: another program wrote it, or the file is damaged" in str(error.value), name
        assert "\n" not in str(error.value)


def test_the_command_says_it_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(tmp_path / "review.db") as store:
        fill(store, tmp_path, [row(i, 0.5 + i) for i in range(3)])
    past_the_triggers("UPDATE findings SET score = 'abc'")(tmp_path / "review.db")
    said = Shell(capsys).refuses("review", "stats", "--db", tmp_path / "review.db")
    assert said.startswith("review database: 'abc' found where a number belongs")
