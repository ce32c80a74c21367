"""A check, known parts and a bench in words."""

from __future__ import annotations

import numpy as np

from anomaly.reporting.quality import bench_text, challenge_text, check_text, repeat_text
from anomaly.statistics.calibration import Calibration
from anomaly.statistics.check import decide
from anomaly.statistics.known_parts import Challenge, Repeat
from tests.scoring.test_speed import FIGURES


def test_a_bench_in_words() -> None:
    assert bench_text(FIGURES).splitlines() == [
        "images                  60 of 300x300 JPEG; 2 threads, cpu",
        "decode alone            300.0 a second (3.33 ms each)",
        "model alone             100.0 a second (10.00 ms each)",
        (
            "end to end              60.0 a second (16.67 ms each): 0.80 of the 75.0 that both "
            "allow; the model bounds it"
        ),
        (
            "one image               p50 10.0 ms, p95 11.5 ms, p99.9 20.0 ms, max 31.2 ms (alone, "
            "of 1,200 calls)"
        ),
        "start-up                0.50 s from a cold start to a table of one image",
        "memory                  120 MB at most, 90 MB of it before the first image",
    ]


def test_a_check_says_what_to_do() -> None:
    calibration = Calibration(np.linspace(0, 1, 99, dtype=np.float32), 1)
    kept = check_text(decide(calibration, calibration.scores, 0), "run", "new").splitlines()
    assert kept[0].startswith("advice                  keep: no sign that good images look")
    assert kept[1] == "next                    nothing to do"
    higher = check_text(decide(calibration, calibration.scores + 1, 0), "run", "new")
    assert "next                    anomaly calibrate run --normal new\n" in higher


def test_missed_parts_are_counted_with_their_bound() -> None:
    assert (
        challenge_text(Challenge(12, (), ()))
        == "challenge parts         0 of 12 missed; up to 22 % could be missed (95 %)"
    )
    assert "3 of 3 missed; up to 100 % could be missed" in challenge_text(
        Challenge(3, ("a", "b", "c"), ())
    )
    assert "2 of 12 missed; up to 44 %" in challenge_text(Challenge(12, ("a", "b"), ()))
    left_out = challenge_text(Challenge(9, tuple("abcdefg"), ("h",), {".txt": 2}))
    assert left_out.splitlines()[1:] == [
        "missed                  a b c d e and 2 more",
        "not judged              h: treat as not OK",
        "passed over             2 .txt",
    ]


def test_parts_that_flip_are_named() -> None:
    assert repeat_text(Repeat(3, 12, ("a",), 2, 0.25, 0)).splitlines() == [
        "repeated parts          3 parts, 12 photographs; 1 parts flip",
        "flipping                a",
        "flips                   2 of 12 photographs differ from most of their part",
        "spread of one part      0.25 of (threshold - typical), standard deviation",
    ]
