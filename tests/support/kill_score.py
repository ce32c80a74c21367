"""Kills `anomaly score` at random moments, and looks whether the next call goes on and ends like an
undisturbed run.

python -m tests.support.kill_score [--rounds 50] [--run RUN --images FOLDER] [--seed N]

Scored are a folder, a zip and a tar; written are a table, copies of the flagged images, overlays
and a review database. Compared are all rows but for `scored_at`, every byte of every picture, and
that the review holds the table once. Half of the kills fall into the last fifth of a run, where the
table is joined, imported and its traces are removed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anomaly.commands.main import main as anomaly
from anomaly.files.table import Row, read_table
from anomaly.review import Store
from anomaly.scoring import batch
from tests.inputs.test_archives import write_tar, write_zip

CHUNK_ROWS = 20  # so that a run of a second has many parts
DONE = (0, 3)


@dataclass(frozen=True)
class Job:
    """One command, and the folder that all it writes lies in."""

    run: Path
    inputs: list[Path]
    folder: Path
    suffix: str

    @property
    def table(self) -> Path:
        return self.folder / f"t{self.suffix}"

    @property
    def under_way(self) -> bool:
        """Whether a run has left traces of work that is not done; without them it is done, whatever
        became of its process.
        """
        parts = self.folder / f"{self.table.name}.chunks"
        return any((parts / name).exists() for name in ("run.json", "done.json"))

    @property
    def words(self) -> list[str]:
        pictures = ["--flagged", self.folder / "flagged", "--overlays", self.folder / "overlays"]
        words = [
            "score",
            self.run,
            *self.inputs,
            "--out",
            self.table,
            *pictures,
            "--review",
            self.folder / "review.db",
        ]
        return [str(word) for word in words]

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.support.kill_score", "--score", *self.words]
        home = Path(__file__).parents[2]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home
        )

    def found(self) -> tuple[list[Row], dict[str, bytes], list[int]]:
        rows = [row._replace(scored_at="") for row in read_table(self.table)]
        pictures = {
            f"{path.parent.name}/{path.name}": path.read_bytes()
            for name in ("flagged", "overlays")
            for path in (self.folder / name).iterdir()
        }
        with Store(self.folder / "review.db") as store:
            return rows, pictures, [run.images for run in store.runs()]

    def check(self, whole: tuple[list[Row], dict[str, bytes], list[int]]) -> None:
        """Compares what a finished run left with what an undisturbed one did, and removes it."""
        rows, pictures, reviews = self.found()
        assert rows == whole[0], "rows differ"
        assert pictures == whole[1], f"pictures differ: {sorted(pictures.keys() ^ whole[1].keys())}"
        assert reviews == whole[2], f"the review holds runs of {reviews} images"
        with suppress(OSError):
            (self.folder / f"{self.table.name}.chunks").rmdir()
        left = {path.name for path in self.folder.iterdir()} - {
            self.table.name,
            "flagged",
            "overlays",
        }
        assert all(name.startswith("review.db") for name in left), f"{sorted(left)} left behind"
        shutil.rmtree(self.folder)
        self.folder.mkdir()


def kill(job: Job, rounds: int, seed: int) -> dict[str, int]:
    """Kills ``rounds`` times and returns how many runs ended in between, and how many rows were
    gone on from.
    """
    choose = random.Random(seed)
    began = time.monotonic()
    out, err = (process := job.start()).communicate()
    assert process.returncode in DONE, err
    took, whole = time.monotonic() - began, job.found()
    job.check(whole)
    counts = {"kills": 0, "ended": 0, "resumed": 0}
    while counts["kills"] < rounds:
        process = job.start()
        with suppress(subprocess.TimeoutExpired):
            process.wait(
                choose.choice((choose.uniform(0, took), choose.uniform(0.8 * took, 1.1 * took)))
            )
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
        counts["kills"] += process.returncode == -signal.SIGKILL
        counts["resumed"] += "before this run" in out
        if process.returncode != -signal.SIGKILL:
            assert process.returncode in DONE, f"{process.returncode}: {err}"
        if process.returncode in DONE or (job.table.exists() and not job.under_way):
            assert "\nreview " in out, f"done without a word: {out}{err}"
            job.check(whole)
            counts["ended"] += 1
    out, err = (process := job.start()).communicate()
    assert process.returncode in DONE, err
    job.check(whole)
    return counts


def inputs_of(images: Path, folder: Path) -> list[Path]:
    """Returns a folder, a zip and a tar, each of a third of the images and one file that
    is none.
    """
    paths = sorted(images.rglob("*.png"))
    members = {path.name: path.read_bytes() for path in paths} | {"broken.png": b"no image"}
    third = len(paths) // 3
    (folder / "plain").mkdir()
    for path in paths[:third]:
        shutil.copy(path, folder / "plain")
    names = list(members)
    return [
        folder / "plain",
        write_zip(folder / "x.zip", {name: members[name] for name in names[third : 2 * third]}),
        write_tar(folder / "x.tar.gz", {name: members[name] for name in names[2 * third :]}, "gz"),
    ]


def made_up(folder: Path) -> tuple[Path, Path]:
    """Returns a run and a folder of images, made in half a minute."""
    from data.synthetic import write_dataset
    from tests.support.runs import trained

    write_dataset(folder / "chunks", kind="disc", train=120, good=240, per_defect=20, size=64)
    return trained(folder / "run", folder / "chunks", space="pixels"), folder / "chunks" / "test"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument(
        "--run", type=Path, help="a detector, with --images (default: synthetic parts)"
    )
    parser.add_argument("--images", type=Path)
    parser.add_argument("--suffix", default=".csv", help="of the table")
    parser.add_argument("--score", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.score:
        batch.RunOptions = partial(batch.RunOptions, chunk_rows=CHUNK_ROWS)  # type: ignore
        raise SystemExit(anomaly(options.score))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run, images = (options.run, options.images) if options.run else made_up(folder)
        (folder / "out").mkdir()
        job = Job(run, inputs_of(images, folder), folder / "out", options.suffix)
        print(f"seed {options.seed}", flush=True)
        counts = kill(job, options.rounds, options.seed)
    print(
        f"killed {counts['kills']} times, gone on with {counts['resumed']}, {counts['ended']} "
        "ended in between: all alike"
    )


if __name__ == "__main__":
    main()
