"""Measures the review dashboard with 100,000 findings in a browser, and kills its server.

    python -m tests.benchmarks.measure_dashboard                    all of it, some ten minutes
    python -m tests.benchmarks.measure_dashboard --kills 50         only the kills
    python -m tests.benchmarks.measure_dashboard --findings 5000 --verdicts 100 --kills 0

Says how long the queue takes to open, how long from a key press to the next image on the screen,
how the server's memory grows over the verdicts, and whether every verdict that was acknowledged is
there after each kill -9, at random moments.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from anomaly.detector.file import read_card
from anomaly.review import VERDICTS, Store, default_key
from tests.support.review_server import (
    BROWSER,
    Client,
    Server,
    find_chromium,
    press_and_wait,
    retry_until,
    serving,
    train_detector,
    wait_until_saved,
    write_large_table,
)

PAGES = {
    "Threshold": "Images flagged in this run",
    "Team": "Second opinion",
    "Drift": "Evidence of a change",
    "Runs": "Compare two runs",
}
PAUSE = 0.35  # seconds that the fastest inspector looks at an image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--findings", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=150, help="images judged by key in the browser")
    parser.add_argument(
        "--verdicts", type=int, default=1000, help="verdicts over which the memory is watched"
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument(
        "--folder", type=Path, help="where data is made and kept (default: a temporary folder)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        database, run = prepare(folder, options.findings, 200 + options.keys + options.verdicts)
        with serving(database, detectors=(folder / "run",)) as server:
            if options.keys:
                measure_browser(server, run, options.keys)
            if options.verdicts:
                measure_memory(server, run, options.verdicts)
            if options.kills:
                kill_and_count(server, database, run, options.kills)


def prepare(folder: Path, findings: int, shown: int) -> tuple[Path, int]:
    """Returns a database with so many findings, and the number of their run; makes what is not
    there yet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "run" / "detector.onnx").is_file():
        train_detector(folder)
    table, database = folder / f"large-{findings}-{shown}.csv", folder / "large.db"
    if not table.is_file():
        write_large_table(table, folder / "images", folder / "scores.csv", findings, shown)
    for old in folder.glob("large.db*"):
        old.unlink()
    start = time.perf_counter()
    with Store(database) as store:
        run, _ = store.import_table(
            table, roots=[folder], card=read_card(folder / "run"), by="measure"
        )
    print(f"import               {findings:,} findings in {time.perf_counter() - start:.1f} s")
    return database, run.id


def measure_browser(server: Server, run: int, keys: int) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=BROWSER)
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        opened = [open_queue(page, server.url) for _ in range(5)]
        said = ", ".join(f"{seconds:.2f}" for seconds in opened)
        print(f"queue from nothing   {said} s (the first also loads Streamlit itself)")
        back = [come_back(page) for _ in range(7)]
        print(
            f"queue from a page    median {statistics.median(back):.2f} s, slowest {max(back):.2f} "
            "s"
        )
        for name, text in PAGES.items():
            print(f"{name.lower():<21}{open_page(page, name, text):.2f} s")
        print(f"threshold moved      {move_threshold(page):.2f} s until the figures follow")
        page.goto(f"{server.url}/image?run={run}")
        page.locator("canvas").first.wait_for()
        time.sleep(5)
        found = []
        for at in range(keys):
            found.append(press_and_wait(page, "an"[at % 2]))
            time.sleep(PAUSE)
        wait_until_saved(page)
        browser.close()
    print(
        f"key to next image    median {statistics.median(found):.0f} ms, 95 %: "
        f"{sorted(found)[int(0.95 * len(found))]:.0f} ms, slowest {max(found):.0f} ms ({keys} "
        "keys, 1920x1080)"
    )


def open_queue(page: Any, url: str) -> float:
    page.goto("about:blank")
    start = time.perf_counter()
    page.goto(url)
    page.locator("a.card").first.wait_for()
    return time.perf_counter() - start


def come_back(page: Any) -> float:
    page.get_by_role("link", name="Runs").click()
    page.get_by_role("tab", name="Compare two runs").wait_for()
    start = time.perf_counter()
    page.get_by_role("link", name="Queue").click()
    page.locator("a.card").first.wait_for()
    return time.perf_counter() - start


def open_page(page: Any, name: str, text: str) -> float:
    start = time.perf_counter()
    page.get_by_role("link", name=name, exact=True).click()
    page.get_by_text(text).first.wait_for()
    return time.perf_counter() - start


def move_threshold(page: Any) -> float:
    open_page(page, "Threshold", PAGES["Threshold"])
    metric = page.get_by_test_id("stMetric").filter(has_text="Images flagged in this run")
    before = metric.inner_text()
    start = time.perf_counter()
    page.get_by_role("button", name="Flag more").click()
    while metric.inner_text() == before:
        time.sleep(0.01)
    return time.perf_counter() - start


def measure_memory(server: Server, run: int, verdicts: int) -> None:
    """Judges over the routes, with the pictures that a page would load, and prints the server's
    memory on the way.
    """
    client = Client(server.port, "mia")
    seen, times = [server.memory()], []
    for at in range(verdicts):
        finding = client.next(run, 1)[0]
        for kind in ("original", "heatmap", "expected"):
            client.ask("GET", finding["links"][kind])
        start = time.perf_counter()
        answer = client.judge(finding["id"], "normal", default_key())
        times.append(1000 * (time.perf_counter() - start))
        assert answer.status == 200, answer.data
        if (at + 1) % max(1, verdicts // 5) == 0:
            seen.append(server.memory())
    print(
        f"memory over verdicts {' '.join(f'{mib:.0f}' for mib in seen)} MiB ({verdicts} verdicts, "
        "a fifth a step)"
    )
    print(
        f"verdict on the disk  median {statistics.median(times):.0f} ms, slowest {max(times):.0f} "
        "ms"
    )


def kill_and_count(server: Server, database: Path, run: int, kills: int) -> None:
    """Judges from two clients all the time while the server is killed; every acknowledged verdict
    must be there.
    """
    acknowledged: dict[str, tuple[int, str]] = {}
    stop = threading.Event()
    people = [
        threading.Thread(target=judge_on, args=(server, run, name, acknowledged, stop))
        for name in ("kim", "lou")
    ]
    for person in people:
        person.start()
    for _ in range(kills):
        time.sleep(random.uniform(0.3, 1.5))
        server.kill()
        server.start()
    stop.set()
    for person in people:
        person.join()
    lost, doubled = check(database, acknowledged)
    print(
        f"kill -9              {kills} times, {len(acknowledged):,} verdicts acknowledged, {lost} "
        f"lost, {doubled} doubled"
    )
    assert lost == doubled == 0


def judge_on(
    server: Server,
    run: int,
    name: str,
    acknowledged: dict[str, tuple[int, str]],
    stop: threading.Event,
) -> None:
    client = Client(server.port, name)
    while not stop.is_set():
        for finding in retry_until(60, lambda: client.next(run, 1)):
            key, verdict = default_key(), random.choice(("anomalous", "normal", "unsure"))
            # the same key until there is an answer, as the page does
            answer = retry_until(
                60, lambda f=finding["id"], v=verdict, k=key: client.judge(f, v, k)
            )
            if answer.status == 200:
                acknowledged[key] = (finding["id"], verdict)


def check(database: Path, acknowledged: dict[str, tuple[int, str]]) -> tuple[int, int]:
    """Returns how many acknowledged verdicts are not in the log as they were given, and how many
    are there twice.
    """
    with Store(database) as store:
        events = store.events(actions=VERDICTS, limit=None)
    logged: dict[str, list[tuple[int | None, str]]] = {}
    for event in events:
        logged.setdefault(event.key, []).append((event.finding, event.action))
    lost = sum(said not in logged.get(key, []) for key, said in acknowledged.items())
    return lost, sum(len(found) > 1 for found in logged.values())


if __name__ == "__main__":
    main()
