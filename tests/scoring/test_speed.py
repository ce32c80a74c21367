"""What bounds the speed of a detector."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anomaly.scoring.speed import Bench

FIGURES = Bench(
    detector="run@1 sha256:00ff",
    device="cpu",
    threads=2,
    images=60,
    sizes="300x300 JPEG",
    decode=300.0,
    model=100.0,
    end_to_end=60.0,
    one_image={"p50": 10.0, "p95": 11.5, "p99_9": 20.0, "max": 31.25},
    calls=1200,
    start_up=0.5,
    loaded=90.0,
    peak=120.4,
)


def test_on_a_cpu_decoder_and_model_share_the_cores() -> None:
    assert FIGURES.bound == pytest.approx(75)  # 1 / (1/300 + 1/100)
    assert FIGURES.reached == pytest.approx(0.8)
    assert FIGURES.bounded_by == "the model"


def test_on_a_gpu_the_slower_one_bounds() -> None:
    on_gpu = replace(FIGURES, device="cuda", decode=80.0)
    assert (on_gpu.bound, on_gpu.reached, on_gpu.bounded_by) == (80, 0.75, "decoding")
