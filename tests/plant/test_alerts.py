"""Alerts told to a real mail server and a real webhook: each once by each, until it clears."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("aiosmtpd")

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from anomaly.commands.main import main
from anomaly.files.table import utc_text
from anomaly.plant.alerts import look
from anomaly.plant.settings import Plant, read_plant
from anomaly.review import Store
from anomaly.station.live import FILE, FORMAT
from tests.benchmarks.bench_review import write_table
from tests.review.test_over_time import carded
from tests.review.test_review import database, postgres, row, store  # noqa: F401
from tests.station.test_webhook import certificate
from tests.support.review_server import free_port
from tests.support.stations import Receiver

MORNING = datetime(2026, 2, 3, 8, tzinfo=UTC)


class Inbox:
    """A mail server that keeps what it takes, refuses who does not encrypt or log in, and may be
    full.
    """

    def __init__(self, home: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate(home))
        self.mails: list[EmailMessage] = []
        self.full = False
        self.server = Controller(
            self,
            "127.0.0.1",
            free_port(),
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=lambda *found: AuthResult(
                success=found[-1] == LoginPassword(b"station", b"secret")
            ),
        )

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.full:
            return "452 no room"
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        return "250 taken"


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    made = Inbox(tmp_path)
    made.server.start()
    yield made
    made.server.stop()


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with Receiver(free_port()).receiving() as running:
        yield running


@pytest.fixture
def plant(inbox: Inbox, hook: Receiver, tmp_path: Path) -> Plant:
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "plant.toml").write_text(
        f"""
        zone = "UTC"
        stations = ["line3"]
        page = "https://review.example.com"
        [mail]
        server = "127.0.0.1:{inbox.server.port}"
        ca_file = "receiver.pem"
        user = "station"
        password_file = "password"
        sender = "anomaly@example.com"
        to = ["ann@example.com", "bo@example.com"]
        [webhook]
        url = "http://127.0.0.1:{hook.port}/alerts"
        """
    )
    return read_plant(tmp_path / "plant.toml")


def alive(state: Path, at: datetime) -> None:
    """Writes what a station shows that lived at a moment."""
    state.mkdir(exist_ok=True)
    facts = {"format": FORMAT, "station": "line 3", "last": [], "alarm": "", "heartbeat_at": ""}
    (state / FILE).write_text(json.dumps(facts | {"heartbeat_at": utc_text(at)}))


def score(store: Store, folder: Path, day: datetime, flagged: int, not_judged: int) -> None:  # noqa: F811
    """Imports 400 images of line a, so many flagged, and 100 of line b, so many not judged."""
    scores = [
        *(("a", 300.0 if at < flagged else 0.5) for at in range(400)),
        *(("b", None if at < not_judged else 0.5) for at in range(100)),
    ]
    rows = [
        row(at, found, 200.0, path=f"/p/{line}/{day:%d}-{at}.png", scored_at=utc_text(day))
        for at, (line, found) in enumerate(scores)
    ]
    store.import_table(write_table(folder / f"{day:%d}.csv", rows), card=carded())


def test_each_alert_is_told_once_by_each_channel_until_it_clears(
    store: Store,  # noqa: F811
    plant: Plant,
    inbox: Inbox,
    hook: Receiver,
    tmp_path: Path,
) -> None:
    def looked(now: datetime) -> tuple[int, int]:
        before = len(inbox.mails), len(hook.posts)
        look(store, plant, now)
        return len(inbox.mails) - before[0], len(hook.posts) - before[1]

    alive(tmp_path / "line3", MORNING)
    score(store, tmp_path, MORNING, flagged=4, not_judged=1)
    assert looked(MORNING) == (0, 0), "all is ordinary"

    day = MORNING + timedelta(days=1)
    score(store, tmp_path, day, flagged=60, not_judged=40)
    alive(tmp_path / "line3", day)
    assert looked(day) == (1, 1)
    body = inbox.mails[0].get_content()
    for said in (
        "a, 2026-02-04: red, flagged. 60 of 400",
        "b, 2026-02-04: red, not judged",
        plant.page,
    ):
        assert said in body
    assert inbox.mails[0]["To"] == "ann@example.com, bo@example.com"
    assert inbox.mails[0]["Subject"].startswith("Inspection: a, 2026-02-04: red, flagged")
    told = json.loads(hook.posts[0][1])
    assert len(told["alerts"]) == 2 and told["page"] == plant.page
    assert looked(day + timedelta(seconds=2)) == (0, 0), "told already"

    late = day + timedelta(hours=1)
    inbox.full = True
    assert looked(late) == (0, 1), "the station stopped; no mail went through"
    assert "Station line 3: no sign of life" in json.loads(hook.posts[1][1])["alerts"][0]
    inbox.full = False
    assert looked(late) == (1, 0), "the mail alone is sent again"
    assert "60 of 400" not in inbox.mails[1].get_content()

    quiet, again = MORNING + timedelta(days=2), MORNING + timedelta(days=3)
    assert looked(quiet) == (0, 0), "the lights cleared, the station did not"
    score(store, tmp_path, again, flagged=60, not_judged=0)
    assert looked(again) == (1, 1), "red anew"


def test_a_trial_says_what_came_of_each_channel(
    plant: Plant,
    inbox: Inbox,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["review", "alerts", "--plant", str(tmp_path / "plant.toml")]
    assert main([*command, "--try"]) == 0
    assert [mail["Subject"] for mail in inbox.mails] == [
        "Inspection: A test: alerts of the inspection come this way."
    ]
    (tmp_path / "password").write_text("wrong")
    assert main([*command, "--try"]) == 1
    assert "mail failed" in capsys.readouterr().out
    assert main([*command, "--every", "1"]) == 1
    (tmp_path / "plant.toml").write_text("")
    assert main(command) == 1
    assert "no [mail] and no [webhook] found" in capsys.readouterr().err
