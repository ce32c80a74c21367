"""The dashboard without a browser: its routes over HTTP against the real server, its pages by
AppTest.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("streamlit")
pytest.importorskip("sqlalchemy")
pytest.importorskip("torch")

from streamlit.testing.v1 import AppTest

from anomaly.detector.file import read_card
from anomaly.imaging.colours import difference, heatmap_colours
from anomaly.imaging.decode import decode
from anomaly.quality.marks import read_highest, read_marks
from anomaly.review import VERDICTS, Filters, Store, default_key
from anomaly.scorer import Scorer
from dashboard.desk import open_desk
from dashboard.words import readable
from tests.benchmarks.measure_dashboard import kill_and_count
from tests.support.review_server import (
    KEY,
    ROOT,
    SECRET,
    Client,
    Server,
    free_port,
    new_database,
    serving,
    train_detector,
)

EVIL = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'


@pytest.fixture(scope="session")
def made(session_folder: Path) -> Path:
    """A folder with a run folder, its test images and their score table."""
    train_detector(session_folder / "review")
    return session_folder / "review"


@pytest.fixture(scope="module")
def database(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    return new_database(made, tmp_path_factory.mktemp("routes"))


@pytest.fixture(scope="module")
def server(made: Path, database: tuple[Path, int]) -> Iterator[Server]:
    with serving(database[0], detectors=(made / "run",)) as running:
        yield running


# ---- routes: what is asked for and by whom ----


def test_health_and_headers(server: Server) -> None:
    answer = Client(server.port).ask("GET", "/healthz")
    assert (answer.status, answer.data) == (200, b"ok")
    kept = (
        "referrer-policy",
        "x-content-type-options",
        "x-frame-options",
        "cross-origin-resource-policy",
    )
    assert [answer.headers[name] for name in kept] == [
        "no-referrer",
        "nosniff",
        "DENY",
        "same-origin",
    ]


def test_another_host_name_is_refused_everywhere(server: Server) -> None:
    for path in ("/", "/healthz", "/api/recent", "/_stcore/health"):
        assert (
            Client(server.port).ask("GET", path, headers={"Host": "evil.example.com"}).status == 400
        )


@pytest.mark.parametrize("token", [None, "", "x", "W10.00", KEY.token.__doc__])
def test_without_a_token_nothing_is_told(server: Server, token: str | None) -> None:
    headers = {"Content-Type": "application/json"} | (
        {} if token is None else {"X-Review-Token": token.split("\n")[0]}
    )
    for method, path in (
        ("POST", "/api/next"),
        ("POST", "/api/verdict"),
        ("POST", "/api/undo"),
        ("POST", "/api/renew"),
        ("POST", "/api/release"),
        ("GET", "/api/recent"),
        ("GET", "/api/finding/1"),
    ):
        answer = Client(server.port).ask(method, path, b"{}" if method == "POST" else None, headers)
        assert (answer.status, answer.json) == (
            401,
            {"error": "this page is not signed in here: reload it"},
        )


def test_a_viewer_looks_but_does_not_judge(server: Server, database: tuple[Path, int]) -> None:
    viewer = Client(server.port, "vic", "viewer")
    assert viewer.get("/api/finding/1").status == viewer.get("/api/recent").status == 200
    answer = viewer.judge(1, "normal", default_key())
    assert (answer.status, answer.json["error"]) == (
        403,
        "a viewer may not do this, inspector expected: ask an admin for the role",
    )
    seen = viewer.next(database[1], 3)
    assert [finding["id"] for finding in Client(server.port, "ann").next(database[1], 3)] == [
        f["id"] for f in seen
    ]
    Client(server.port, "ann").post(
        "/api/release", {"findings": [finding["id"] for finding in seen]}
    )


def test_forms_of_other_sites_cannot_post(server: Server) -> None:
    """A form of another site can send cookies and these kinds of content, but neither JSON nor a
    header of its own.
    """
    client = Client(server.port)
    for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data"):
        answer = client.ask("POST", "/api/verdict", b"{}", client.headers | {"Content-Type": kind})
        assert answer.status == 415
    assert (
        client.ask("POST", "/api/verdict", b"{}", {"Content-Type": "application/json"}).status
        == 401
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{", 400),
        (b"[" * 60_000, 400),
        (b'{"finding": "1"}', 400),
        (b"x" * 70_000, 413),
        (b'{"verdict": "normal", "finding": true, "key": "k"}', 400),
        (b'{"verdict": "normal", "finding": 99999999, "key": "k"}', 422),
        (b'{"verdict": "splendid", "finding": 1, "key": "k"}', 400),
        (b'{"verdict": "normal", "finding": 1, "key": ""}', 422),
        (b'{"verdict": "anomalous", "finding": 1, "key": "k2", "type": "no such type"}', 422),
    ],
)
def test_what_is_no_verdict_is_refused_in_one_line(
    server: Server, body: bytes, status: int
) -> None:
    client = Client(server.port)
    answer = client.ask("POST", "/api/verdict", body, client.headers)
    assert answer.status == status and list(answer.json) == ["error"]
    assert "\n" not in answer.json["error"] and "Traceback" not in answer.json["error"]


# ---- routes: pictures ----


def test_the_file_itself_is_sent_at_full_resolution(
    server: Server, database: tuple[Path, int]
) -> None:
    with Store(database[0]) as store:
        path = Path(store.finding(1).path)
    answer = Client(server.port).ask("GET", KEY.link(1, "original"))
    assert answer.data == path.read_bytes()
    kept = {
        name: answer.headers[name] for name in ("content-type", "x-image-state", "cache-control")
    }
    assert kept == {
        "content-type": "image/png",
        "x-image-state": "same",
        "cache-control": "private, no-cache",
    }


def test_heatmap_expected_and_difference_are_the_scorers(
    server: Server, database: tuple[Path, int], made: Path
) -> None:
    with Store(database[0]) as store:
        path = store.finding(1).path
    scorer = Scorer(made / "run", device="cpu", threads=1)
    result, calibration = scorer.score(path), scorer.card.calibration
    client = Client(server.port)
    sent = {
        kind: np.asarray(Image.open(io.BytesIO(client.ask("GET", KEY.link(1, kind)).data)))
        for kind in ("heatmap", "expected", "difference")
    }
    colours = heatmap_colours(
        result.heatmap, float(calibration.median), float(calibration.threshold)
    )
    assert np.abs(sent["heatmap"].astype(int) - colours).max() <= 1
    assert np.array_equal(sent["expected"], result.reconstruction)
    assert np.array_equal(
        sent["difference"], difference(decode(path).pixels, result.reconstruction)
    )


def test_a_thumbnail_is_small(server: Server) -> None:
    picture = Image.open(io.BytesIO(Client(server.port).ask("GET", KEY.link(1, "thumb")).data))
    assert max(picture.size) <= 192


@pytest.mark.parametrize(
    "path",
    [
        "/evidence/1/original",
        "/evidence/1/original?until=99999999999&sign=00",
        KEY.link(1, "original", time.time() - 10_800),
        KEY.link(1, "original").replace("/1/", "/2/"),
        KEY.link(1, "heatmap").replace("heatmap", "original"),
        KEY.link(1, "original") + "0",
        KEY.link(1, "original").replace("until=1", "until=2"),
    ],
)
def test_forged_and_expired_links_are_refused(server: Server, path: str) -> None:
    answer = Client(server.port).ask("GET", path)
    assert (answer.status, answer.json) == (
        403,
        {"error": "this link is not signed, or too old: open the page again"},
    )


@pytest.mark.parametrize(
    "path",
    [
        "/evidence/1/../../../etc/passwd",
        "/evidence/..%2f..%2fetc%2fpasswd/original",
        "/evidence/%2e%2e/%2e%2e/etc/passwd",
        "/evidence//etc/passwd",
        "/evidence/1/original/../../../../etc/passwd",
        "/static/../../etc/passwd",
        "/media/../../../etc/passwd",
        "/app/static/../../../../etc/passwd",
        "/..%5c..%5cetc/passwd",
        "//etc/passwd",
        KEY.link(1, "../../../etc/passwd"),
    ],
)
def test_no_path_of_the_browser_reaches_a_file(server: Server, path: str) -> None:
    answer = Client(server.port).ask("GET", path)
    assert b"root:" not in answer.data
    # Streamlit answers unknown pages with its own
    assert answer.status >= 400 or b"<html" in answer.data


@pytest.fixture(scope="module")
def odd(
    made: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, dict[str, int]]]:
    """A server on images that are hostile, moved, changed, elsewhere or not for browsers; finding
    by name.
    """
    folder = tmp_path_factory.mktemp("odd")
    inside = folder / "images"
    inside.mkdir()
    part = Image.open(next((made / "parts" / "test" / "good").glob("*.png")))
    part.save(inside / "plain.png")
    part.save(inside / "photo.jpg", quality=95)
    part.save(inside / "windows.bmp")
    part.save(inside / "tiled.tif")
    Image.fromarray((np.arange(160 * 160).reshape(160, 160) % 4096).astype(np.uint16)).save(
        inside / "deep.png"
    )
    part.save(inside / f"{EVIL.replace('/', '_')}.png")
    for name in ("changed.png", "moved.png", "bomb.png", "cut.png", "link.png", "loop.png"):
        part.save(inside / name)
    part.save(folder / "secret.png")
    table = folder / "scores.csv"
    score(made, inside, table)
    (inside / "moved.png").rename(inside / "elsewhere.dat")
    part.rotate(90).save(inside / "changed.png")
    (inside / "link.png").unlink()
    (inside / "link.png").symlink_to(folder / "secret.png")
    (inside / "loop.png").unlink()
    (inside / "loop.png").symlink_to("loop.png")
    spoil(inside / "bomb.png", inside / "cut.png")
    database = folder / "review.db"
    with Store(database) as store:
        store.import_table(table, roots=[inside], card=read_card(made / "run"), by="import")
        numbers = {Path(finding.path).name: finding.id for finding in store.findings(Filters())}
    with serving(database, detectors=(made / "run",)) as running:
        yield running, numbers


def score(made: Path, images: Path, table: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "anomaly",
        "score",
        str(made / "run"),
        str(images),
        "--out",
        str(table),
    ]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120).returncode in (0, 3)


def spoil(bomb: Path, cut: Path) -> None:
    """Makes of one PNG a picture that claims 60,000 x 60,000 pixels, and cuts the other off."""
    import zlib

    data = bytearray(bomb.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    bomb.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:5000])


@pytest.mark.parametrize("name", ["windows.bmp", "tiled.tif", "deep.png"])
def test_what_browsers_do_not_show_rightly_is_sent_as_png_without_loss(odd: Any, name: str) -> None:
    server, numbers = odd
    answer = Client(server.port).ask("GET", KEY.link(numbers[name], "original"))
    with Store(server.settings.database) as store:
        expected = decode(store.finding(numbers[name]).path).pixels
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.data)).convert("RGB")), expected)


@pytest.mark.parametrize("name", ["plain.png", "photo.jpg"])
def test_what_browsers_show_rightly_is_sent_as_it_is(odd: Any, name: str) -> None:
    server, numbers = odd
    answer = Client(server.port).ask("GET", KEY.link(numbers[name], "original"))
    with Store(server.settings.database) as store:
        assert hashlib.sha256(answer.data).hexdigest() == store.finding(numbers[name]).sha256


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("moved.png", 422, "is not there any more"),
        ("bomb.png", 422, "60000 x 60000 pixels"),
        ("cut.png", 422, "ends early"),
        ("link.png", 403, "lies outside the folders of its run"),
        ("loop.png", 422, "is not there any more"),
    ],
)
def test_hostile_and_lost_images_become_a_message(
    odd: Any, name: str, status: int, said: str
) -> None:
    server, numbers = odd
    client = Client(server.port)
    for kind in ("original", "thumb", "heatmap"):
        answer = client.ask("GET", KEY.link(numbers[name], kind))
        assert answer.status == status and list(answer.json) == ["error"]
        assert said in answer.json["error"] or "changed since it was scored" in answer.json["error"]
    # the rest of its page is there
    assert client.get(f"/api/finding/{numbers[name]}").status == 200


def test_a_file_that_changed_is_shown_as_such_without_a_heatmap(odd: Any) -> None:
    server, numbers = odd
    client = Client(server.port)
    answer = client.ask("GET", KEY.link(numbers["changed.png"], "original"))
    assert (answer.status, answer.headers["x-image-state"], answer.headers["cache-control"]) == (
        200,
        "changed",
        "no-store",
    )
    assert client.ask("GET", KEY.link(numbers["changed.png"], "heatmap")).json == {
        "error": "the file has changed since it was scored: score it again"
    }


# ---- routes: work ----


@pytest.fixture
def fresh(made: Path, tmp_path: Path) -> Iterator[tuple[Server, int]]:
    """A server on a database of its own, for what gives verdicts."""
    database, run = new_database(made, tmp_path)
    with serving(database, detectors=(made / "run",)) as running:
        yield running, run


def test_verdicts_are_counted_once_and_taken_back_once(fresh: tuple[Server, int]) -> None:
    server, run = fresh
    client = Client(server.port)
    finding = client.next(run, 3)[0]["id"]
    first = client.judge(finding, "normal", "key 1", comment=EVIL)
    assert [client.judge(finding, "normal", "key 1", comment=EVIL).json for _ in range(3)] == [
        first.json
    ] * 3
    assert client.judge(finding, "anomalous", "key 2", type="crack").status == 200
    for _ in range(3):  # sent again, since the answer got lost
        assert client.post("/api/undo", {"finding": finding, "key": "key 3"}).status == 200
    shown = client.get(f"/api/finding/{finding}").json
    mine = {"verdict": "normal", "type": None, "comment": EVIL, "regions": []}
    assert shown["mine"] == mine
    listed = client.get("/api/recent").json["events"]
    assert [(event["finding"], event["verdict"], event["comment"]) for event in listed] == [
        (finding, "normal", EVIL)
    ]
    with Store(server.settings.database) as store:
        log = [(e.action, e.key, e.undone) for e in store.events(finding=finding, limit=None)]
    assert log == [
        ("undo", "key 3", False),
        ("anomalous", "key 2", True),
        ("normal", "key 1", False),
    ]


def test_a_verdict_counts_only_with_the_digest_of_the_image_that_was_scored(
    fresh: tuple[Server, int],
) -> None:
    server, run = fresh
    client = Client(server.port)
    first, second = (finding["id"] for finding in client.next(run, 2))
    for seen, said in (
        ("", "was not shown in this browser"),
        ("0" * 64, "is not the one that was scored"),
        (client.see(second), "is not the one that was scored"),
    ):
        for verdict in ("anomalous", "normal", "unsure"):
            answer = client.judge(first, verdict, default_key(), seen=seen)
            assert answer.status == 422 and said in answer.json["error"]
    assert client.judge(second, "skip", default_key(), seen="").status == 200
    assert client.judge(first, "normal", default_key()).status == 200


def test_an_original_is_asked_for_again_and_sent_once(server: Server) -> None:
    client, link = Client(server.port), KEY.link(1, "original")
    first = client.ask("GET", link)
    again = client.ask("GET", link, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.data) == (304, b"")
    assert (
        again.headers["x-image-digest"]
        == first.headers["x-image-digest"]
        == hashlib.sha256(first.data).hexdigest()
    )


def test_a_queue_goes_on_behind_a_finding(fresh: tuple[Server, int]) -> None:
    server, run = fresh
    with Store(server.settings.database) as store:
        order = [finding.id for finding in store.findings(Filters(run=run), limit=1000)]

    def asked(after: object, held: list[int], role: str = "inspector") -> list[int]:
        body = {
            "filters": {"run": str(run)},
            "order": "anomalous",
            "count": 3,
            "held": held,
            "after": after,
        }
        answer = Client(server.port, "ann", role).post("/api/next", body)
        assert answer.status == 200, answer.data
        return [finding["id"] for finding in answer.json["findings"]]

    for role in ("inspector", "viewer"):
        assert asked(order[6], [], role) == order[7:10]
        assert asked(order[6], order[7:10], role) == order[10:13]
        assert asked(order[-1], [], role) == []
        assert asked(99_999_999, order[7:13], role) == order[:3]


def test_what_others_said_is_shown_after_ones_own_verdict(fresh: tuple[Server, int]) -> None:
    server, run = fresh
    ann, bo, vic = (
        Client(server.port, "ann"),
        Client(server.port, "bo"),
        Client(server.port, "vic", "viewer"),
    )
    finding = ann.next(run)[0]["id"]
    ann.judge(finding, "unsure", default_key(), comment="look again")
    hidden = bo.get(f"/api/finding/{finding}").json
    assert (hidden["history"], hidden["hidden"]) == (
        [],
        "1 other has judged it: shown after your own verdict",
    )
    bo.judge(finding, "normal", default_key())
    seen = [
        (e["who"], e["verdict"], e["comment"])
        for e in bo.get(f"/api/finding/{finding}").json["history"]
    ]
    assert seen == [("bo", "normal", ""), ("ann", "unsure", "look again")]
    assert len(vic.get(f"/api/finding/{finding}").json["history"]) == 2


def test_nothing_tells_that_an_image_is_a_hidden_known_one(fresh: tuple[Server, int]) -> None:
    server, _ = fresh
    with Store(server.settings.database) as store:
        store.set_known(5, "normal", by="admin", key=default_key())
    client = Client(server.port)
    client.judge(5, "normal", default_key())
    for role in ("viewer", "inspector", "admin"):
        answer = Client(server.port, "ann", role).get("/api/finding/5")
        assert "known" not in str(answer.json).replace("unknown", "") and "truth" not in str(
            answer.json
        )


def test_asking_again_gives_the_same_images_and_release_gives_them_back(
    fresh: tuple[Server, int],
) -> None:
    server, run = fresh
    ann, bo = Client(server.port, "ann"), Client(server.port, "bo")
    mine = [finding["id"] for finding in ann.next(run, 3)]
    assert [finding["id"] for finding in ann.next(run, 3)] == mine
    more = [finding["id"] for finding in ann.next(run, 2, held=mine)]
    theirs = [finding["id"] for finding in bo.next(run, 3)]
    assert len({*mine, *more, *theirs}) == 8
    ann.post("/api/release", {"findings": mine})
    assert {finding["id"] for finding in bo.next(run, 3, held=theirs)} == set(mine)
    assert ann.post("/api/renew", {"findings": [*mine, *more]}).json == {"held": sorted(more)}


def test_four_inspectors_at_once_lose_double_and_share_nothing(fresh: tuple[Server, int]) -> None:
    server, run = fresh
    handed: list[tuple[str, int]] = []
    given: dict[str, tuple[str, int, str]] = {}
    errors: list[BaseException] = []

    def inspector(name: str) -> None:
        client, luck = Client(server.port, name), random.Random(name)
        try:
            held: list[int] = []
            while True:
                fresh_ones = [finding["id"] for finding in client.next(run, 3, held=held)]
                handed.extend((name, finding) for finding in fresh_ones)
                held += fresh_ones
                if not held:
                    return
                finding, verdict, key = (
                    held.pop(0),
                    luck.choice(("anomalous", "normal")),
                    default_key(),
                )
                for _ in range(2):  # a double press
                    assert client.judge(finding, verdict, key).status == 200
                given[key] = (name, finding, verdict)
        except BaseException as error:
            errors.append(error)

    people = [
        threading.Thread(target=inspector, args=(name,)) for name in ("ann", "bo", "cy", "di")
    ]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert errors == []
    with Store(server.settings.database) as store:
        images = store.run(run).images
        events = store.events(actions=VERDICTS, limit=None)
    assert {e.key: (e.inspector, e.finding, e.action) for e in events} == given
    assert len(events) == images == len(handed)
    assert max(Counter(finding for _, finding in handed).values()) == 1


def test_every_acknowledged_verdict_survives_kill_9(made: Path, tmp_path: Path) -> None:
    database, run = new_database(made, tmp_path)
    with serving(database, detectors=(made / "run",)) as server:
        kill_and_count(server, database, run, kills=5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_server_ends_with_the_command_and_its_port_is_free_again(
    made: Path, tmp_path: Path, number: int
) -> None:
    database, _ = new_database(made, tmp_path)
    port = free_port()
    said = (
        f"from dashboard.launch import launch; raise SystemExit(launch({str(database)!r}, "
        f"port={port}))"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", said], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        assert (
            started.stdout.readline()
            == f"review               http://127.0.0.1:{port}   (Ctrl-C stops it)\n"
        )
        started.send_signal(number)
        assert started.wait(20) == (0 if number == signal.SIGINT else -number)
    finally:
        started.kill()
        started.wait()
        started.stdout.close()
    # killed, it could not wait for its server
    until = time.monotonic() + (20 if number == signal.SIGKILL else 0)
    with pytest.raises(OSError, match=r"refused"):
        while Client(port).ask("GET", "/healthz") and time.monotonic() < until:
            time.sleep(0.1)


# ---- pages ----


@pytest.fixture
def pages(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Store, int]]:
    """The store of a fresh database that the pages of this process open."""
    shutil.copytree(made / "run", tmp_path / "run")
    database, run = new_database(made, tmp_path)
    for name, value in {
        "DATABASE": str(database),
        "SECRET": SECRET,
        "HOSTS": "localhost",
        "LOGIN": "",
        "ROLES": "{}",
        "OPEN_ROLE": "admin",
        "DETECTORS": f'["{tmp_path / "run"}"]',
        "STATIONS": "[]",
        "JOBS": "[]",
    }.items():
        monkeypatch.setenv(f"ANOMALY_REVIEW_{name}", value)
    monkeypatch.syspath_prepend(str(ROOT / "dashboard"))
    open_desk.cache_clear()
    yield open_desk().store, run
    open_desk().store.close()
    open_desk.cache_clear()


def open_page(name: str = "", **query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "dashboard" / "main.py"), default_timeout=30)
    for key, value in query.items():
        app.query_params[key] = value
    app.run()
    if name:
        app.switch_page(f"views/{name}.py").run()
    assert not app.exception, app.exception
    return app


def texts(app: AppTest) -> str:
    return "\n".join(
        str(found.value)
        for kind in ("markdown", "caption", "info", "error", "success")
        for found in app.get(kind)
    )


def test_the_report_of_the_training_is_offered_where_it_is(
    pages: tuple[Store, int], tmp_path: Path
) -> None:
    offered = open_page("runs").get("download_button")
    assert [button.proto.label for button in offered] == ["Report of the training"]
    (tmp_path / "run" / "report.html").unlink()
    assert not open_page("runs").get("download_button")


def judge_all(store: Store, run: int, people: tuple[str, ...] = ("ann",)) -> None:
    for name in people:
        for finding in store.next(name, filters=Filters(run=run), count=200):
            verdict = "normal" if "good" in finding.folder else "anomalous"
            store.record(name, finding.id, verdict, key=default_key(), seconds=2.0)


@pytest.mark.parametrize(
    "name", ["", "image", "threshold", "team", "statistics", "drift", "runs", "calibration"]
)
def test_every_page_opens(pages: tuple[Store, int], name: str) -> None:
    open_page(name)


ODD = (
    "9" * 5000,
    "0" * 5000,
    "%D9%A1",
    "-1",
    "0x1",
    "1e3",
    "%ED%A0%80",
    "%00",
    "%C0%AF",
    "1%00",
    "x" * 5000,
    "%F0%9F%92%A9",
)


@pytest.mark.parametrize("odd", ODD)
def test_no_address_is_a_bug(server: Server, odd: str) -> None:
    """Without a token, whatever stands where a number or a name does: no 500, and no way to another
    host.
    """
    ann = Client(server.port)
    places = [
        f"/api/finding/{odd}",
        f"/evidence/{odd}/overlay",
        f"/evidence/1/{odd}",
        f"/{odd}",
        f"/static/{odd}",
        f"/media/{odd}",
    ]
    places += [
        f"/evidence/1/overlay?until={odd}&sign={odd}",
        f"/image?finding={odd}",
        f"/drift?run={odd}&folder={odd}",
    ]
    for place in places:
        answer = ann.ask("GET", place, headers={"X-Review-Token": "\xff.x"})
        assert answer.status < 500, place
        assert not answer.headers.get("location", "/").startswith(("http", "//")), place
    assert ann.get(f"/api/finding/{'9' * 5000}").status == 422


@pytest.mark.parametrize("odd", ["\ud800", "a\0b", "\U0001f4a9", "\x7f", "9" * 5000, "\u202e"])
def test_no_text_that_is_posted_is_a_bug(server: Server, odd: str) -> None:
    ann = Client(server.port)
    for name in (
        "run",
        "folder",
        "inspector",
        "state",
        "status",
        "defect_type",
        "low",
        "flagged",
        odd,
    ):
        body = {"filters": {"run": "1", name: odd}, "order": "anomalous", "count": 1, "held": []}
        assert ann.post("/api/next", body).status < 500, name
    for name in ("verdict", "key", "type", "seconds", "finding"):
        body = {"finding": 1, "verdict": "anomalous", "key": f"odd {name}", "type": "", name: odd}
        assert ann.post("/api/verdict", body).status < 500, name
    assert ann.judge(
        1, "normal", f"key {len(odd)} {odd.isprintable()}", comment=odd, seconds=10**400
    ).status in (200, 400)
    assert ann.post("/api/undo", {"finding": 1, "key": odd}).status < 500


def drifting(made: Path, table: Path) -> None:
    """Writes a score table of three cameras: one calm, one with 24 of 44 flagged, one with 69 of
    120 not judged.
    """
    with open(made / "scores.csv", newline="", encoding="utf-8") as file:
        like = next(csv.DictReader(file))
    calibration = read_card(made / "run").calibration
    assert calibration is not None
    good, bad = map(str, (calibration.median, 2 * calibration.threshold))
    results = {
        "calm": [good] * 60,
        "flags": [good, bad] * 20 + [bad] * 4,
        "blind": [good] * 51 + [""] * 69,
    }
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, like)
        writer.writeheader()
        for camera, scores in results.items():
            for at, score in enumerate(scores):
                row = like | {
                    "path": f"/photos/{camera}/{at}.png",
                    "sha256": f"{sum(map(ord, camera)) * 1000 + at:064x}",
                }
                flagged = {good: "false", bad: "true", "": ""}[score]
                result = {good: "not flagged", bad: "flagged", "": "not judged"}[score]
                status = "ok" if score else "outside"
                writer.writerow(
                    row
                    | {"score": score, "p_value": "", "is_anomaly": flagged}
                    | {"result": result, "status": status}
                )


@pytest.mark.parametrize("ranks_only", [False, True])
def test_drift_is_red_where_many_are_flagged_or_not_judged(
    pages: tuple[Store, int], made: Path, tmp_path: Path, ranks_only: bool
) -> None:
    """Of a detector that only ranks, or whose card is not here, at least those that were not
    judged.
    """
    store, _ = pages
    drifting(made, tmp_path / "drift.csv")
    if ranks_only:
        text = (tmp_path / "drift.csv").read_text()
        (tmp_path / "drift.csv").write_text(text.replace(read_card(made / "run").digest, "ab" * 32))
    run, _ = store.import_table(
        tmp_path / "drift.csv", card=None if ranks_only else read_card(made / "run")
    )
    app = open_page("drift", run=str(run.id))
    said = [re.sub(r"\\(.)", r"\1", error.value) for error in app.error]
    assert any("red, not judged" in one and "69 of 120 not judged" in one for one in said)
    assert not any(one.startswith("calm") for one in said)
    assert ranks_only != any("red, flagged. 24 of 44 images flagged" in one for one in said)
    errors = [one for one in said if " of the newest " in one]
    red = {name: text for name, _, text in (error.partition(": ") for error in errors)}
    assert (
        red["blind"].startswith("69 of the newest 120 images not judged, up to ")
        and "calm" not in red
    )
    if ranks_only:
        assert list(red) == ["blind"] and "its card is not here" in texts(app)
    else:
        assert red["flags"].startswith("24 of the newest 44 images flagged, up to ")


@pytest.mark.parametrize("name", ["", "image", "threshold", "team", "drift", "runs"])
def test_without_a_run_every_page_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    Store(tmp_path / "empty.db").close()
    for key, value in {
        "DATABASE": str(tmp_path / "empty.db"),
        "SECRET": SECRET,
        "HOSTS": "",
        "LOGIN": "",
    }.items():
        monkeypatch.setenv(f"ANOMALY_REVIEW_{key}", value)
    for key, value in {
        "ROLES": "{}",
        "OPEN_ROLE": "admin",
        "DETECTORS": "[]",
        "STATIONS": "[]",
        "JOBS": "[]",
    }.items():
        monkeypatch.setenv(f"ANOMALY_REVIEW_{key}", value)
    open_desk.cache_clear()
    app = open_page(name)
    open_desk().store.close()
    open_desk.cache_clear()
    assert "Nothing to review yet" in texts(app)


def test_filters_come_from_the_address_and_go_back_into_it(pages: tuple[Store, int]) -> None:
    _, run = pages
    app = open_page(result="flagged", queue="uncertain", low="0.001")
    chosen = {box.label: box.value for box in app.selectbox}
    assert (chosen["Detector says"], chosen["Order"]) == ("flagged", "uncertain")
    assert app.number_input[0].value == 0.001
    app.selectbox(key="Detector says").set_value("not flagged").run()
    found = {name: app.query_params[name] for name in app.query_params}
    assert found == {"run": str(run), "result": "not flagged", "low": "0.001", "queue": "uncertain"}


def test_a_link_to_a_folder_of_folders_keeps_what_lies_below_it(
    pages: tuple[Store, int], made: Path
) -> None:
    app = open_page(folder=str(made / "parts" / "test"), status="ok")
    assert app.selectbox(key="Folder").value == str(made / "parts" / "test")
    assert app.query_params["folder"] == str(made / "parts" / "test")


@pytest.mark.parametrize("says", ["unlike the training images", "not readable"])
def test_images_that_were_not_judged_can_be_found(pages: tuple[Store, int], says: str) -> None:
    app = open_page()
    app.selectbox(key="Detector says").set_value(says).run()
    assert (
        app.query_params["status"]
        == {"unlike the training images": "outside", "not readable": "error"}[says]
    )


@pytest.mark.parametrize(
    "query",
    [
        {"run": "999"},
        {"run": "x"},
        {"queue": EVIL},
        {"folder": EVIL},
        {"low": "nan"},
        {"state": "?"},
    ],
)
def test_an_address_that_makes_no_sense_opens_the_queue(
    pages: tuple[Store, int], query: dict[str, str]
) -> None:
    app = open_page(**query)
    assert app.selectbox(key="Run").value == pages[1]


def test_a_comparison_begins_with_two_runs_that_have_images_in_common(
    pages: tuple[Store, int], tmp_path: Path, made: Path
) -> None:
    store, run = pages
    text = (made / "scores.csv").read_text()
    (tmp_path / "again.csv").write_text(text.replace(",20", ",19"))
    again, _ = store.import_table(tmp_path / "again.csv", name="again")
    for at in range(2):
        head, *rows = text.splitlines()
        (tmp_path / f"strange{at}.csv").write_text(
            "\n".join([head, *(strange_row(row, at) for row in rows)]) + "\n"
        )
        store.import_table(tmp_path / f"strange{at}.csv", name=f"strange {at}")
    for chosen in ({}, {"run": str(again.id)}, {"run": str(run)}):  # the newest has none
        app = open_page("runs", **chosen)
        assert [box.value for box in app.selectbox if box.label in ("Old", "New")] == [
            run,
            again.id,
        ]
        assert "have no image in common" not in texts(app)


def strange_row(line: str, at: int) -> str:
    """Returns a row of a score table, of an image that is in no other."""
    path, digest, *rest = line.split(",")
    return ",".join([path, hashlib.sha256(f"{at}{digest}".encode()).hexdigest(), *rest])


def test_a_run_that_is_chosen_in_runs_is_chosen_on_all_pages(
    pages: tuple[Store, int], tmp_path: Path, made: Path
) -> None:
    store, run = pages
    (tmp_path / "again.csv").write_text((made / "scores.csv").read_text().replace(",20", ",19"))
    store.import_table(tmp_path / "again.csv", name="again")
    app = open_page("runs")
    next(box for box in app.selectbox if box.label == "Run").set_value(run).run()
    assert app.query_params["run"] in (str(run), [str(run)])


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            r"begins with b'\x89PNG not', which is none of JPEG, PNG: convert it",
            "it is damaged or no image (JPEG, PNG expected)",
        ),
        (
            'a.png: begins with b"it\'s no", which is none of JPEG: convert it',
            "a.png: it is damaged or no image (JPEG expected)",
        ),
        (r"broken PNG file (chunk b'\x00\'\x01')", "broken PNG file (chunk unknown bytes)"),
        ("file ends early: copy Bob's file again", "file ends early: copy Bob's file again"),
    ],
)
def test_inspectors_read_words_and_no_bytes(said: str, shown: str) -> None:
    assert readable(said) == shown


def test_team_says_counts_and_agreement(pages: tuple[Store, int]) -> None:
    store, run = pages
    judge_all(store, run, ("ann",))
    app = open_page("team")
    assert {m.label: m.value for m in app.metric}["Disagreement"] == "0"
    assert app.dataframe[0].value["Inspector"].tolist() == ["ann"]


def test_an_admin_draws_an_audit_sample(pages: tuple[Store, int]) -> None:
    store, run = pages
    app = open_page("team")
    app.button(key="FormSubmitter:audit-Draw").click().run()
    assert not app.exception
    assert sum(stratum.drawn for stratum in store.strata(run)) > 0


def test_a_threshold_is_written_as_a_new_file_that_names_its_parent_and_who_did_it(
    pages: tuple[Store, int],
) -> None:
    store, _ = pages
    before = read_card(open_desk().settings.detectors[0])
    app = open_page("threshold")
    app.session_state["threshold"] = float(before.calibration.scores[-10])
    app.run()
    assert "Preview: the guarantee returns when fresh good images confirm it" in texts(app).replace(
        "\\", ""
    )
    use_this(app)
    assert "Nothing was written: tick that you accept" in texts(app).replace(
        "\\", ""
    ) and not store.events(actions=("threshold",))
    app.checkbox(key="worse accepted").check()
    use_this(app)
    events = store.events(actions=("threshold",))
    card = read_card(events[0].payload["path"])
    assert (card.parent, card.version, card.calibration.k) == (before.digest, "2", 10)
    assert (
        card.training.threshold_moved_by == events[0].inspector
        and events[0].detector == card.digest
    )
    # the one in use is as it was
    assert read_card(open_desk().settings.detectors[0]).digest == before.digest


def use_this(app: AppTest, name: str | None = None) -> None:
    """Types a name for the new file, where one is given, and presses the button."""
    if name is not None:
        app.text_input(key="name of the new file").input(name)
    next(button for button in app.button if button.label == "Use this threshold").click().run()
    assert not app.exception, app.exception


def test_every_typed_name_is_used_and_no_version_twice(pages: tuple[Store, int]) -> None:
    store, _ = pages
    folder = Path(open_desk().settings.detectors[0])
    scores = read_card(folder).calibration.scores
    app = open_page("threshold")
    for number, name in enumerate(["first.onnx", "second one.onnx", None, "third.onnx"]):
        app.session_state["threshold"] = float(scores[-10 - number])
        app.run()
        app.checkbox(key="worse accepted").check()
        use_this(app, name)
    written = [Path(event.payload["path"]) for event in store.events(actions=("threshold",))[::-1]]
    assert [path.name for path in written] == [
        "first.onnx",
        "second one.onnx",
        "detector-4.onnx",
        "third.onnx",
    ]
    assert [read_card(path).version for path in written] == ["2", "3", "4", "5"]
    assert [read_card(path).calibration.k for path in written] == [10, 11, 12, 13]
    (folder / "third.onnx").unlink()  # its version is in the review's log still
    use_this(app, "again.onnx")
    assert "Nothing was written" in texts(app)  # what was accepted once is not accepted for ever
    app.checkbox(key="worse accepted").check()
    use_this(app)
    assert read_card(folder / "again.onnx").version == "6"


@pytest.mark.parametrize(
    "name",
    [
        "detector.onnx",
        "new.txt",
        "",
        "../new.onnx",
        "/nowhere/new.onnx",
        "a/b.onnx",
        "." * 300 + ".onnx",
    ],
)
def test_a_name_that_cannot_be_used_is_refused_and_stays_in_the_field(
    pages: tuple[Store, int], name: str
) -> None:
    store, _ = pages
    app = open_page("threshold")
    use_this(app, name)
    assert len(app.error) == 1 and not store.events(actions=("threshold",))
    assert app.text_input(key="name of the new file").value == name


def test_a_threshold_that_is_not_moved_keeps_its_guarantee(pages: tuple[Store, int]) -> None:
    folder = Path(open_desk().settings.detectors[0])
    use_this(open_page("threshold"))  # nothing gets worse, so nothing has to be accepted
    card = read_card(folder / "detector-2.onnx")
    assert card.calibration == read_card(folder).calibration
    assert card.training.threshold_moved is None


def test_the_images_that_set_the_threshold_are_marked_before_anything_is_scored(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: tuple[Store, int]
) -> None:
    monkeypatch.setenv("ANOMALY_REVIEW_DATABASE", str(tmp_path / "empty.db"))
    Store(tmp_path / "empty.db").close()
    open_desk.cache_clear()
    folder = Path(open_desk().settings.detectors[0])
    first, second = read_highest(folder)[1][:2]
    app = open_page("calibration")
    shown = texts(app).replace("\\", "")
    assert (
        f"**Score {first.score:.4g}**, sets the threshold" in shown
        and f"**Score {second.score:.4g}**, below it" in shown
    )
    assert (
        f"If {first.name} shows a defect, without it: threshold {second.score:.4g} instead of "
        f"{first.score:.4g}"
    ) in shown
    app.button(key=f"defect {first.sha256}").click().run()
    app.button(key=f"good {second.sha256}").click().run()
    assert {sha256: mark.mark for sha256, mark in read_marks(folder).items()} == {
        first.sha256: "defect",
        second.sha256: "good",
    }
    assert app.code[0].value == f"anomaly retrain {folder} --out {folder}-2"
    app.button(key=f"unknown {first.sha256}").click().run()
    assert list(read_marks(folder)) == [second.sha256] and not app.code
    open_desk().store.close()


@pytest.mark.parametrize("change", ["gone", "other", "broken"])
def test_an_image_that_cannot_be_shown_cannot_be_marked(
    pages: tuple[Store, int], tmp_path: Path, change: str
) -> None:
    folder = Path(open_desk().settings.detectors[0])
    listing = json.loads((folder / "highest.json").read_text())
    moved = tmp_path / "moved.png"
    listing[0]["path"] = str(moved)
    if change == "other":
        shutil.copy(listing[1]["path"], moved)
    if change == "broken":
        moved.write_bytes(b"no image")
        listing[0]["sha256"] = hashlib.sha256(b"no image").hexdigest()
    (folder / "highest.json").write_text(json.dumps(listing))
    app = open_page("calibration")
    assert len(app.warning) == 1 and "so it cannot be marked" in app.warning[0].value
    assert not [button for button in app.button if listing[0]["sha256"] in str(button.key)]


def test_figures_are_unknown_until_there_are_verdicts(pages: tuple[Store, int]) -> None:
    store, run = pages
    shown = {m.label: m.value for m in open_page("threshold").metric}
    assert (shown["Of the flagged, defects"], shown["Of all defects, flagged"]) == (
        "unknown",
        "unknown",
    )
    judge_all(store, run)
    app = open_page("threshold")
    assert {m.label: m.value for m in app.metric}["Of the flagged, defects"] != "unknown"
    assert "audit sample" in texts(app)  # what recall still needs


@pytest.mark.parametrize("name", ["threshold", "team", "calibration"])
def test_a_viewer_is_offered_nothing_that_writes(
    pages: tuple[Store, int], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("ANOMALY_REVIEW_OPEN_ROLE", "viewer")
    open_desk.cache_clear()
    app = open_page(name)
    labels = {button.label for button in app.button}
    assert labels.isdisjoint(
        {"Use this threshold", "Draw", "Enlarge", "Set", "Save the types", "Defect", "Take back"}
    )


def test_where_people_log_in_nobody_is_in_before(
    pages: tuple[Store, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALY_REVIEW_LOGIN", "1")
    open_desk.cache_clear()
    app = AppTest.from_file(str(ROOT / "dashboard" / "main.py"), default_timeout=30).run()
    assert [button.label for button in app.button] == ["Log in"] and not app.selectbox


def test_the_dashboard_imports_no_torch() -> None:
    program = (
        "import sys, dashboard.routes, dashboard.launch; assert not {'torch', 'training'} & "
        "set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


# ---- the run folders that Calibration shows ----


@pytest.mark.parametrize("others", [False, True])
def test_a_run_folder_that_does_not_list_its_highest_images_says_to_train_again(
    pages: tuple[Store, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, others: bool
) -> None:
    folder = Path(open_desk().settings.detectors[0])
    older = tmp_path / "older"
    older.mkdir()
    shutil.copy(folder / "detector.onnx", older)
    named = [str(older), *([str(folder)] if others else [])]
    (folder / "highest.json").unlink()
    monkeypatch.setenv("ANOMALY_REVIEW_DETECTORS", json.dumps(named))
    open_desk.cache_clear()
    app = open_page("calibration")
    (said,) = [error.value.replace("\\", "") for error in app.error]
    assert (
        "highest.json: not there" in said
        and "trained by an older version" in said
        and "train again" in said
    )
    assert "No run folder" not in texts(app) and not app.button


def test_a_detector_file_alone_is_said_to_lack_its_run_folder(
    pages: tuple[Store, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "alone").mkdir()
    file = shutil.copy(
        Path(open_desk().settings.detectors[0]) / "detector.onnx",
        tmp_path / "alone" / "camera.onnx",
    )
    Store(tmp_path / "empty.db").close()
    monkeypatch.setenv("ANOMALY_REVIEW_DATABASE", str(tmp_path / "empty.db"))
    monkeypatch.setenv("ANOMALY_REVIEW_DETECTORS", json.dumps([str(file)]))
    open_desk.cache_clear()
    said = [info.value.replace("\\", "") for info in open_page("calibration").info]
    assert len(said) == 1 and f"{file}: a detector without its run folder found" in said[0]
    open_desk().store.close()


# ---- how much of a queue is left ----


def test_what_is_left_is_counted_within_all_filters(fresh: tuple[Server, int]) -> None:
    server, run = fresh
    client = Client(server.port)

    def left(order: str = "anomalous", **filters: str) -> str:
        body = {"filters": {"run": str(run), **filters}, "order": order, "count": 1, "held": []}
        return str(client.post("/api/next", body).json["left"])

    with Store(server.settings.database) as store:
        every = store.findings(Filters(run=run), limit=1000)
        flagged = [finding for finding in every if finding.is_anomaly]
        folders = {str(Path(finding.path).parent) for finding in flagged}
        inside = {
            folder: sum(str(Path(one.path).parent) == folder for one in flagged)
            for folder in folders
        }
    n = len(flagged)
    assert left() == left("uncertain") == left(result="flagged") == f"{n} of {n} flagged left"
    for order in ("anomalous", "uncertain"):
        assert left(order, folder="/nowhere") == "0 of 0 flagged left"
    for folder, count in inside.items():
        assert left(folder=folder) == f"{count} of {count} flagged left"
    assert left(result="not flagged") == f"{len(every) - n} of {len(every) - n} not flagged left"
    assert left(low=str(flagged[0].score)) == "1 of 1 flagged left"
    assert client.judge(flagged[0].id, "unsure", "one").status == 200
    assert left() == left(state="open") == f"{n - 1} of {n} flagged left"
    assert left(low=str(flagged[0].score)) == "0 of 1 flagged left"
    assert (left("second"), left("second", folder="/nowhere")) == (
        "1 to look at again",
        "0 to look at again",
    )
    with Store(server.settings.database) as store:
        store.draw_audit(run, 20, 0, by="ann", key="draw")
        done = store.progress(run)
    assert done.audit > 10
    assert (
        left("audit")
        == f"{done.audit - done.audit_judged} of {done.audit} of the audit sample left"
    )
    assert left("audit", folder="/nowhere") == "0 of 0 of the audit sample left"
