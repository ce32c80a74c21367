"""Times the review database: ``python -m tests.benchmarks.bench_review [--findings 100000]
[--database URL]``, by hand.

Prints the median and the 95th percentile of what a page waits for, in milliseconds, with that many
findings in one run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from anomaly.files.table import COLUMNS, Row, encode_rows
from anomaly.review import DefectType, Filters, Store, default_key, threshold_preview
from anomaly.statistics import drift
from anomaly.statistics.calibration import calibrate


def synthetic_rows(
    images: int, seed: int = 0, flagged: float = 0.01, folders: int = 20
) -> list[Row]:
    """Rows as ``anomaly score`` writes them: normal scores, a threshold that ``flagged`` of them
    exceed.
    """
    random = np.random.default_rng(seed)
    scores = random.normal(size=images).astype(np.float32)
    threshold = float(str(np.float32(np.quantile(scores, 1 - flagged))))
    return [
        Row(
            path=f"/photos/cam{i % folders:02}/{i:06}.png",
            sha256=f"{i:064x}",
            width=300,
            height=200,
            score=float(str(score)),
            p_value=0.5,
            threshold=threshold,
            review_threshold=None,
            is_anomaly=bool(not score <= np.float32(threshold)),
            result="not flagged" if score <= np.float32(threshold) else "flagged",
            box_x=i % 250,
            box_y=i % 170,
            box_w=20,
            box_h=20,
            area=400,
            defect_type=None,
            type_score=None,
            status="ok",
            error=None,
            detector=f"bench@1 sha256:{'ab' * 32}",
            scored_at=f"2026-01-{1 + i * 28 // images:02}T08:00:00.000Z",
        )
        for i, score in enumerate(scores)
    ]


def write_table(path: Path, rows: list[Row]) -> Path:
    path.write_bytes((",".join(COLUMNS) + "\n").encode() + encode_rows(rows, ".csv"))
    return path


def measure(name: str, act: Callable[[], object], times: int = 50) -> None:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        found.append(1000 * (time.perf_counter() - began))
    found.sort()
    print(
        f"{name:<52}{statistics.median(found):9.2f} ms   {found[int(0.95 * len(found))]:9.2f} ms",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--findings", type=int, default=100_000)
    parser.add_argument("--database", help="a URL or a new file (default: a temporary file)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = write_table(Path(folder, "scores.csv"), synthetic_rows(options.findings))
        with Store(options.database or Path(folder, "review.db")) as store:
            measure_all(store, table)


def measure_all(store: Store, table: Path) -> None:
    measure("import_table", lambda: store.import_table(table), 1)
    run = store.runs()[0]
    store.set_defect_types([DefectType("scratch", 1, "#ff0000")], by="ann", key=default_key())
    store.draw_audit(run.id, 2000, by="ann", key=default_key())
    everything, inside = Filters(run=run.id), Filters(run=run.id, folder="/photos/cam07")
    narrow = Filters(run=run.id, folder="/photos/cam07", low=0.5, high=1.0, result="not flagged")

    def give_verdict(queue: str, filters: Filters) -> Callable[[], object]:
        def act() -> object:
            finding = store.next("ann", queue, filters, count=4)[0]
            return store.record(
                "ann", finding.id, "normal" if finding.id % 3 else "unsure", key=default_key()
            )

        return act

    print(f"{'':<52}{'median':>12}   {'95 %':>12}")
    for queue in ("anomalous", "uncertain", "audit"):
        measure(f"next (4 leased) + record, queue {queue}", give_verdict(queue, everything), 300)
    measure("next (4 leased) + record, in a folder", give_verdict("anomalous", inside), 100)
    measure(
        "next (4 leased) + record, folder, scores, unflagged",
        give_verdict("anomalous", narrow),
        100,
    )
    for _ in range(2000):
        give_verdict("anomalous", everything)()
    measure(
        "next (4 leased) + record, after 2,000 verdicts", give_verdict("anomalous", everything), 300
    )
    measure("next, second opinion", lambda: store.next("bob", "second", everything, count=4))
    measure(
        "next, known images",
        lambda: store.next("bob", "anomalous", everything, count=4, known_share=0.5),
    )
    measure(
        "undo + record",
        lambda: (store.undo("ann", key=default_key()), give_verdict("anomalous", everything)()),
    )
    measure("findings, a page of 100", lambda: store.findings(everything))
    measure("findings, a page of 100 in a folder", lambda: store.findings(inside))
    measure("findings, last judged first", lambda: store.findings(everything, "recent"))
    measure("count, everything", lambda: store.count(everything))
    measure("count, folder, scores, unflagged", lambda: store.count(narrow))
    measure("progress", lambda: store.progress(run.id))
    measure("folders", lambda: store.folders(run.id))
    measure("events, last 10 of an inspector", lambda: store.events(inspector="ann"))
    measure("similar", lambda: store.similar(run.flagged))
    measure("sample", lambda: store.sample(run.id), 10)
    measure("team", lambda: store.team(run.id), 10)
    measure("scores, all", lambda: store.scores(run.id), 10)
    sample, scores = store.sample(run.id), store.scores(run.id)
    calibration = calibrate(np.random.default_rng(1).normal(size=500))
    measure(
        "preview of a threshold",
        lambda: threshold_preview.preview(sample, scores, calibration, 2.0),
        50,
    )
    measure("series", lambda: store.series(run.detector), 3)
    series = store.series(run.detector)
    measure("drift.watch, all folders", lambda: drift.watch(series, calibration), 3)


if __name__ == "__main__":
    main()
