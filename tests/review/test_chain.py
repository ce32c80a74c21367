from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip(
    "sqlalchemy", reason="SQLAlchemy is not installed: the review database needs it"
)

from anomaly.review import Filters, Store, default_key
from anomaly.review.chain import START
from tests.commands.test_main import Shell
from tests.review.test_review import fill, give_verdict, new_database, postgres, raw, row  # noqa: F401

Tamper = Callable[[Path], None]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "review.db") as store:
        say(store, tmp_path)
        yield store


def say(store: Store, folder: Path) -> None:
    """Six events: an import, verdicts with and without a comment and seconds, an undo, a threshold
    given as a whole number.
    """
    run = fill(store, folder, [row(i, i / 3) for i in range(4)])
    give_verdict(store, 1, "normal", comment="café 日本 'quoted' \u2028", seconds=1.25)
    give_verdict(store, 2, "anomalous", inspector="bob")
    store.undo("ann", key=default_key())
    give_verdict(store, 3, "unsure")
    store.set_threshold(
        run, 1, by="eve", key=default_key(), detector="d1", path="/runs/parts-4.onnx"
    )


def past_the_triggers(statement: str) -> Tamper:
    def tamper(database: Path) -> None:
        with sqlite3.connect(database) as c:
            for (name,) in c.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall():
                c.execute(f"DROP TRIGGER {name}")
            c.execute(statement)
        c.close()

    return tamper


def test_each_event_is_chained_to_the_one_before(judged: Store) -> None:
    chain = judged.log_chain()
    stored = [event.digest for event in judged.events(limit=None)[::-1]]
    assert chain.digests == stored and len(set(stored)) == 6
    assert (chain.wrong, chain.before, chain.head) == ([], 0, stored[-1])
    assert chain.holds(stored[2] or "") and chain.holds(START) and not chain.holds("ab" * 32)
    assert chain.missing(3, stored[2] or "") is None


@pytest.mark.parametrize(
    ("statement", "event"),
    [
        ("UPDATE events SET action = 'normal' WHERE id = 3", 3),
        ("UPDATE events SET inspector = 'eve' WHERE id = 2", 2),
        ("UPDATE events SET at = '2020' WHERE id = 5", 5),
        ("UPDATE events SET threshold = 2.0 WHERE id = 6", 6),
        ("UPDATE events SET payload = '{}' WHERE id = 2", 2),
        ("UPDATE events SET finding = 4 WHERE id = 3", 3),
        ("UPDATE events SET digest = NULL WHERE id = 5", 5),
        ("UPDATE findings SET path = '/photos/other.png' WHERE id = 2", 3),
        ("UPDATE findings SET score = 0.1 WHERE id = 3", 5),
        ("DELETE FROM events WHERE id = 5", 6),
        (
            (
                "INSERT INTO events (uuid, key, at, inspector, action, payload) VALUES ('u', 'k', "
                "'', 'ann', 'types', '{}')"
            ),
            7,
        ),
        ("UPDATE events SET id = CASE id WHEN 5 THEN -6 WHEN 6 THEN -5 ELSE id END", -6),
    ],
)
def test_what_was_rewritten_past_the_triggers_is_named(
    judged: Store, tmp_path: Path, statement: str, event: int
) -> None:
    past_the_triggers(statement)(tmp_path / "review.db")
    wrong = judged.log_chain().wrong
    assert wrong and wrong[0].startswith(f"event {event} (")


def test_a_log_cut_off_at_its_end_or_made_anew_is_shown_by_a_digest_that_was_kept(
    judged: Store, tmp_path: Path
) -> None:
    """Who may write can chain again; and a shorter log is whole in itself."""
    kept = judged.log_chain()
    past_the_triggers("DELETE FROM events WHERE id = 6")(tmp_path / "review.db")
    cut = judged.log_chain()
    assert cut.wrong == [] and "5 events found, 6 expected" in (cut.missing(6, kept.head) or "")
    (tmp_path / "new").mkdir()
    with Store(tmp_path / "new" / "review.db") as other:
        say(other, tmp_path)
        anew = other.log_chain()
    assert anew.wrong == [] and "the log was rewritten" in (anew.missing(6, kept.head) or "")


def test_the_command_says_whether_the_log_is_whole(
    judged: Store, tmp_path: Path, shell: Shell
) -> None:
    database, head = tmp_path / "review.db", judged.log_chain().head
    assert "6 events, each as it was written" in shell("review", "verify", "--db", database).out
    give_verdict(judged, 4, "normal")
    assert "7 events" in shell("review", "verify", "--db", database, "--head", f"sha256:{head}").out
    assert "is none that the log had" in shell.refuses(
        "review", "verify", "--db", database, "--head", "ab" * 32
    )
    past_the_triggers("UPDATE events SET action = 'normal' WHERE id = 3")(database)
    assert "the log was rewritten: event 3 (" in shell.refuses("review", "verify", "--db", database)
    assert "mistyped.db" in shell.refuses("review", "verify", "--db", tmp_path / "mistyped.db")


def many(database: str, inspector: str) -> None:
    with Store(database) as store:
        for finding in range(1, 16):
            give_verdict(store, finding, "normal", inspector=inspector)


def all_at_once(database: str, folder: Path) -> None:
    with Store(database) as store:
        run = fill(store, folder, [row(i, i / 3) for i in range(15)])
        assert store.count(Filters(run=run)) == 15
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=many, args=(database, name)) for name in ("ann", "bob", "eve")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    with Store(database) as store:
        chain = store.log_chain()
    assert (len(chain.digests), chain.wrong) == (46, [])


def test_writers_at_the_same_time_make_one_chain(tmp_path: Path) -> None:
    all_at_once(str(tmp_path / "review.db"), tmp_path)


def test_writers_at_the_same_time_make_one_chain_on_postgres(postgres: str, tmp_path: Path) -> None:  # noqa: F811
    url = new_database(postgres)
    all_at_once(url, tmp_path)
    with Store(url) as store:
        give_verdict(store, 1, "anomalous", inspector="zoe", comment="x", seconds=0.5)
        raw(store, "ALTER TABLE events DISABLE TRIGGER events_keep")
        raw(store, "UPDATE events SET inspector = 'bob' WHERE inspector = 'zoe'")
        assert len(store.log_chain().wrong) == 1
