"""A review server for tests: a database of synthetic parts, the real server in a process of its
own, a client, a browser.
"""

from __future__ import annotations

import csv
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dashboard.access import Key, Person
from dashboard.launch import environment, server_command, wait_until_up
from dashboard.settings import Settings

ROOT = Path(__file__).parents[2]
SECRET = "5e" * 32  # known to the tests, so that they can sign as anybody
KEY = Key(bytes.fromhex(SECRET))
BROWSER = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
]


def find_chromium() -> str | None:
    """Returns Debian's Chromium, or another one that is on the path."""
    return (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )


@dataclass
class Server:
    """A running server; ``stop`` and ``kill`` end it, ``start`` starts it again on the same port
    and database.
    """

    settings: Settings
    port: int
    log: Path
    auth_file: Path | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Server:
        command = server_command(self.settings, "127.0.0.1", self.port, self.auth_file)
        variables = {**os.environ, **environment(self.settings)}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, env=variables, stdout=log, stderr=log, cwd=self.log.parent
            )
        if not wait_until_up(self.process, self.url):
            raise RuntimeError(f"the server did not start: {self.log.read_text()[-2000:]}")
        return self

    def kill(self) -> None:
        """Ends it as a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def memory(self) -> float:
        """Returns the resident memory of the server in MiB."""
        return self._memory("VmRSS:")

    def peak(self) -> float:
        """Returns the most memory that the server has had so far, in MiB."""
        return self._memory("VmHWM:")

    def _memory(self, name: str) -> float:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(name)[2].split()[0]) / 1024


@contextmanager
def serving(
    database: Path,
    *,
    detectors: tuple[Path, ...] = (),
    role: str = "admin",
    stations: tuple[Path, ...] = (),
) -> Iterator[Server]:
    """Runs a server on a free port."""
    settings = Settings(
        str(database),
        SECRET,
        open_role=role,
        detectors=tuple(map(str, detectors)),
        stations=tuple(map(str, stations)),
    )
    server = Server(settings, free_port(), database.with_suffix(".log"))
    try:
        yield server.start()
    finally:
        server.stop()


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)


def request(
    port: int,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str] | None,
    seconds: float,
) -> Answer:
    """Returns what a server of this machine answers to one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(
            response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        )
    finally:
        connection.close()


@dataclass(frozen=True)
class Client:
    """One inspector's requests to the routes, as the page makes them."""

    port: int
    name: str = "ann"
    role: str = "inspector"

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        return request(self.port, method, path, body, headers, seconds=30)

    @property
    def headers(self) -> dict[str, str]:
        return {
            "X-Review-Token": KEY.token(Person(self.name, self.role)),
            "Content-Type": "application/json",
        }

    def get(self, path: str) -> Answer:
        return self.ask("GET", path, headers=self.headers)

    def post(self, path: str, body: Any) -> Answer:
        return self.ask("POST", path, json.dumps(body).encode(), self.headers)

    def next(
        self, run: int, count: int = 1, order: str = "anomalous", held: list[int] | None = None
    ) -> list[dict[str, Any]]:
        body = {"filters": {"run": str(run)}, "order": order, "count": count, "held": held or []}
        answer = self.post("/api/next", body)
        assert answer.status == 200, answer.data
        return list(answer.json["findings"])

    def judge(self, finding: int, verdict: str, key: str, **more: Any) -> Answer:
        """Gives a verdict as the page does: after the original was fetched, and with the digest
        that came with it.
        """
        seen = {} if "seen" in more else {"seen": self.see(finding)}
        return self.post(
            "/api/verdict", {"finding": finding, "verdict": verdict, "key": key, **seen, **more}
        )

    def see(self, finding: int) -> str:
        return self.ask("GET", KEY.link(finding, "original")).headers.get("x-image-digest", "")


def train_detector(folder: Path) -> Path:
    """Returns the run folder of a small detector of discs, trained by the real command in some ten
    seconds, once.
    """
    from data.synthetic import write_dataset

    if (folder / "scores.csv").is_file():
        return folder / "run"
    folder.mkdir(exist_ok=True)
    write_dataset(folder / "parts", kind="disc", train=120, good=26, per_defect=5, size=160)
    command = [
        "train",
        str(folder / "parts"),
        "--out",
        str(folder / "run"),
        "--space",
        "pixels",
        "--size",
        "64",
        "--calibrate",
        "split",
    ]
    anomaly(*command)
    anomaly(
        "score",
        str(folder / "run"),
        str(folder / "parts" / "test"),
        "--out",
        str(folder / "scores.csv"),
    )
    return folder / "run"


def new_database(
    made: Path, folder: Path, table: Path | None = None, name: str | None = None
) -> tuple[Path, int]:
    """Returns a database with one run in it, and the run's number. ``made``: the folder of
    ``train_detector``.
    """
    from anomaly.detector.file import read_card
    from anomaly.review import DefectType, Store, default_key

    database = folder / "review.db"
    with Store(database) as store:
        run, _ = store.import_table(
            table or made / "scores.csv", name=name, card=read_card(made / "run"), by="import"
        )
        types = [
            ("scratch", "#e4572e"),
            ("crack", "#9b5de5"),
            ("chip", "#00a6a6"),
            ("stain", "#6a994e"),
        ]
        kinds = [DefectType(name, at + 1, colour) for at, (name, colour) in enumerate(types)]
        store.set_defect_types(kinds, by="admin", key=default_key())
    return database, run.id


def anomaly(*arguments: str) -> str:
    """Runs the command line as a user does and returns what it prints."""
    found = subprocess.run(
        [sys.executable, "-m", "anomaly", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode in (0, 3), found.stderr
    return found.stdout


def write_large_table(table: Path, images: Path, scores: Path, rows: int, shown: int) -> None:
    """Writes a score table of ``rows`` findings like those of ``scores``; the ``shown`` highest
    have an image each.
    """
    import numpy as np
    from PIL import Image

    with open(scores, newline="", encoding="utf-8") as file:
        known = list(csv.DictReader(file))
    known.sort(key=lambda row: -float(row["score"]))
    pictures = [np.asarray(Image.open(row["path"]).convert("RGB")) for row in known[:60]]
    images.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    low = np.sort(rng.gamma(9, 0.04, rows - shown))[::-1]
    threshold = float(known[0]["threshold"])
    unfinished = table.with_suffix(".tmp")
    with open(unfinished, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, known[0].keys())
        writer.writeheader()
        for at in range(rows):
            like = known[at % len(pictures)]
            path = images / f"camera {at % 4}" / f"{at:06}.jpg"
            if at < shown:
                score = threshold * (3 - 2 * at / shown)
                path.parent.mkdir(exist_ok=True)
                # no two are the same file
                noise = rng.integers(0, 3, pictures[at % len(pictures)].shape, dtype=np.uint8)
                Image.fromarray(np.clip(pictures[at % len(pictures)], 0, 252) + noise).save(
                    path, quality=90
                )
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                score, digest = (
                    threshold * min(0.999, float(low[at - shown])),
                    hashlib.sha256(str(at).encode()).hexdigest(),
                )
            values = {
                "path": str(path),
                "sha256": digest,
                "score": score,
                "is_anomaly": str(score > threshold).lower(),
            }
            writer.writerow(like | values)
    unfinished.replace(table)


def wait_until_judgeable(page: Any) -> None:
    """Waits until a verdict counts: the image was painted, and the guard against double presses is
    over.
    """
    page.locator("[data-part=bar][data-ready=true]").wait_for(timeout=20_000)


def press_and_wait(page: Any, key: str) -> float:
    """Presses a key that brings the next image, and returns the milliseconds until it is on the
    screen.
    """
    if key in "anus":
        wait_until_judgeable(page)
    before = page.evaluate("performance.getEntriesByName('key to next image').length")
    page.keyboard.press(key)
    page.wait_for_function(
        f"performance.getEntriesByName('key to next image').length > {before}", timeout=20_000
    )
    return float(page.evaluate("performance.getEntriesByName('key to next image').at(-1).duration"))


def wait_until_saved(page: Any) -> None:
    page.locator("[data-part=saving][data-state=saved]").wait_for(timeout=20_000)


def retry_until(seconds: float, act: Any) -> Any:
    """Calls ``act`` until it does not raise OSError, as a page does while its server is away."""
    until = time.monotonic() + seconds
    while True:
        try:
            return act()
        except (OSError, http.client.HTTPException):
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
