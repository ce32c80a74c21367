from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from anomaly.errors import TrainingError
from training.checkpoint import load_checkpoint, save_checkpoint
from training.fit import enough_epochs, fit, generator, learning_rate
from training.models import MODELS
from training.models.base import GenerativeModel
from training.options import FitOptions
from training.processes import crowded, pick_device, shard
from training.protocols import Model

ROOT = Path(__file__).parents[2]
OPTIONS = FitOptions(epochs=4, batch_size=8, warm_up=2)


pytestmark = pytest.mark.usefixtures("one_thread")


def maps(count: int, seed: int) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def new_model(name: str = "vae") -> Model:
    torch.manual_seed(0)
    return MODELS[name](4, 8, 8, pixels=False)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


class Stumbling(GenerativeModel):
    """One number that is learned; its loss is not finite from the third epoch (of three batches)
    on.
    """

    def __init__(self, stumble: float) -> None:
        super().__init__(pixels=False)
        self.level = nn.Parameter(torch.zeros(()))
        self.calls, self.stumble = 0, stumble

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        self.calls += torch.is_grad_enabled()
        loss = ((x - self.level) ** 2).mean((1, 2, 3))
        return loss * self.stumble if self.calls > 6 else loss


class Duel(Stumbling):
    """Two players that want opposite things of each other's number."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.other = nn.Parameter(torch.ones(()))

    def players(self) -> dict[str, list[nn.Parameter]]:
        return {"discriminator": [self.level], "generator": [self.other]}

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        product = (self.level * self.other).expand(len(x))
        return product if player == "discriminator" else -product


# --- options, devices, schedule -------------------------------------------------------------------
def test_options_that_make_no_sense_are_refused() -> None:
    for name in ("epochs", "batch_size"):
        with pytest.raises(
            TrainingError, match=f"{name.replace('_', ' ')} 0 found, 1 or more expected"
        ):
            FitOptions(**{name: 0})
    with pytest.raises(TrainingError, match="seed -1 found, 0 or more expected"):
        FitOptions(seed=-1)


def test_pick_device() -> None:
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") == ("cuda:0" if torch.cuda.is_available() else "cpu")
    with pytest.raises(TrainingError, match="device 'gpu' found, one of auto, cpu, cuda expected"):
        pick_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_cuda_by_name_where_there_is_none_is_refused() -> None:
    with pytest.raises(
        TrainingError, match="no CUDA device found, one was asked for: use --device cpu"
    ):
        pick_device("cuda")


@given(steps=st.integers(1, 5000))
def test_learning_rate_warms_up_and_falls(steps: int) -> None:
    rates = [learning_rate(FitOptions(), step, steps) for step in range(steps)]
    peak = rates.index(max(rates))
    assert (
        min(rates) > 0
        and max(rates) <= FitOptions().learning_rate
        and peak <= min(FitOptions().warm_up, steps // 10)
    )
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_enough_epochs_is_1500_steps_within_reason() -> None:
    assert [enough_epochs(n, 16) for n in (2, 80, 800, 100_000)] == [300, 300, 30, 10]


def test_random_numbers_of_seeds_and_epochs_differ() -> None:
    drawn = {
        float(torch.rand((), generator=generator(seed, epoch)))
        for seed in range(10)
        for epoch in range(10)
    }
    assert len(drawn) == 100


@given(count=st.integers(0, 40), world=st.integers(1, 7))
def test_shards_join_to_the_batch(count: int, world: int) -> None:
    batch, parts = torch.arange(count), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(world))
        for rank in range(world):
            patch.setenv("RANK", str(rank))
            parts.append(shard(batch))
    assert torch.equal(torch.cat(parts), batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


# --- the loop -------------------------------------------------------------------------------------
def test_history_has_a_row_for_each_epoch(tmp_path: Path) -> None:
    history = fit(new_model(), maps(20, 1), maps(5, 2), OPTIONS, tmp_path / "run" / "c.safetensors")
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert [list(row) for row in history] == [
        ["epoch", "loss", "held_out", "terms", "learning_rate", "seconds"]
    ] * 4
    assert rows(tmp_path / "run") == history


def test_uint8_pixels_are_divided_by_255(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (12, 4, 8, 8), dtype=torch.uint8)
    histories = [
        fit(new_model(), x[:8], x[8:], OPTIONS, tmp_path / str(i) / "c.safetensors")
        for i, x in enumerate((pixels, pixels.float() / 255))
    ]
    assert [row["loss"] for row in histories[0]] == [row["loss"] for row in histories[1]]


def test_players_alternate_and_each_moves_its_own_numbers_only(tmp_path: Path) -> None:
    model = Duel()
    # Of one batch: the discriminator moves first, down the product's slope, then the generator up
    # the other's.
    history = fit(
        model,
        maps(8, 1),
        maps(2, 2),
        FitOptions(epochs=1, batch_size=8, warm_up=0),
        tmp_path / "c.safetensors",
    )
    assert history[0]["loss"]["discriminator"] == 0.0
    assert history[0]["loss"]["generator"] == pytest.approx(0.001, rel=0.01)
    assert (model.level.item(), model.other.item()) == (
        pytest.approx(-0.001, rel=0.01),
        pytest.approx(0.999, rel=0.01),
    )


def test_closed_form_models_say_what_they_ignore(tmp_path: Path) -> None:
    said: list[str] = []
    history = fit(
        new_model("linear"),
        maps(20, 1),
        maps(5, 2),
        OPTIONS,
        tmp_path / "c.safetensors",
        say=said.append,
    )
    assert said == [
        "LinearAutoencoder is fitted to all maps at once: epochs and further processes are ignored"
    ]
    assert [row["epoch"] for row in history] == [0]
    kept = ["components", "gain", "mean", "ridge", "scale", "share", "usual", "variances"]
    assert list(load_checkpoint(tmp_path / "c.safetensors")[0]) == [
        "fingerprint",
        *(f"model.{name}" for name in kept),
    ]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "fitted, held_out, message",
    [
        (
            maps(1, 1),
            maps(5, 2),
            "1 images to fit and 5 to validate found, at least 2 and [01] expected",
        ),
        (maps(1, 1).repeat(6, 1, 1, 1), maps(5, 2), "all 6 images to fit look the same"),
        (
            maps(5, 1).index_fill(0, torch.tensor(3), math.nan),
            maps(5, 2),
            "images to fit hold numbers that are not finite",
        ),
        (
            maps(5, 1),
            maps(5, 2).index_fill(0, torch.tensor(3), math.inf),
            "images to validate hold numbers that are not",
        ),
    ],
)
def test_maps_that_cannot_be_fitted_are_refused(
    name: str, fitted: Tensor, held_out: Tensor, message: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=message):
        fit(new_model(name), fitted, held_out, OPTIONS, tmp_path / "c.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_only_models_in_closed_form_need_no_held_out_images(tmp_path: Path) -> None:
    for name in MODELS:
        model, checkpoint = new_model(name), tmp_path / name / "c.safetensors"
        if model.closed_form:
            history = fit(model, maps(5, 1), maps(0, 2), OPTIONS, checkpoint, say=lambda line: None)
            assert history[0]["held_out"] == {} and math.isfinite(history[0]["loss"]["model"])
        else:
            with pytest.raises(
                TrainingError,
                match="5 images to fit and 0 to validate found, at least 2 and 1 expected",
            ):
                fit(model, maps(5, 1), maps(0, 2), OPTIONS, checkpoint)


@pytest.mark.parametrize("stumble", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_the_epoch_and_keeps_the_last_good_one(
    stumble: float, tmp_path: Path
) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(
        TrainingError,
        match=r"training broke down in epoch 3: .* epoch 2 is kept in .*c.safetensors",
    ):
        fit(Stumbling(stumble), maps(24, 1), maps(5, 2), OPTIONS, path)
    tensors, facts = load_checkpoint(path)
    assert bool(tensors["model.level"].isfinite())
    assert [row["epoch"] for row in json.loads(facts["history"])] == [1, 2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is there")
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_fits_what_a_cpu_does(name: str, tmp_path: Path) -> None:
    losses = []
    for device in ("cpu", pick_device("cuda")):
        options = FitOptions(epochs=8, batch_size=8, warm_up=2, device=device)
        history = fit(
            new_model(name), maps(40, 1), maps(8, 2), options, tmp_path / device / "c.safetensors"
        )
        losses.append(history[-1]["held_out"])  # for each player
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


# --- resume ---------------------------------------------------------------------------------------
class Stop(Exception):
    pass


def stopped_after(
    epochs: int, path: Path, name: str, options: FitOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops a fit after so many epochs, the last of them before its row is in train.jsonl."""
    written = []

    def stop(*_: object) -> None:
        written.append(1)
        if len(written) == epochs:
            raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr("training.fit.append_history", stop)
        fit(new_model(name), maps(20, 1), maps(5, 2), options, path)


@pytest.mark.parametrize("name", ["autoencoder", "vae"])
def test_a_resumed_run_ends_like_an_undisturbed_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "killed" / "c.safetensors", tmp_path / "whole" / "c.safetensors"
    stopped_after(2, path, name, OPTIONS, monkeypatch)
    assert len(json.loads(load_checkpoint(path)[1]["history"])) == 2
    fit(new_model(name), maps(20, 1), maps(5, 2), OPTIONS, path, resume=True)
    fit(new_model(name), maps(20, 1), maps(5, 2), OPTIONS, whole)
    resumed, undisturbed = load_checkpoint(path)[0], load_checkpoint(whole)[0]
    assert resumed.keys() == undisturbed.keys()
    assert all(torch.equal(resumed[key], undisturbed[key]) for key in resumed)
    assert [row["held_out"] for row in rows(tmp_path / "killed")] == [
        row["held_out"] for row in rows(tmp_path / "whole")
    ]


def test_resume_of_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    path, model = tmp_path / "c.safetensors", new_model()
    history = fit(model, maps(20, 1), maps(5, 2), OPTIONS, path)
    before, again = path.read_bytes(), new_model()
    assert fit(again, maps(20, 1), maps(5, 2), OPTIONS, path, resume=True) == history
    assert path.read_bytes() == before
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_resume_refuses_another_run_and_names_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    fit(new_model(), maps(20, 1), maps(5, 2), OPTIONS, path)
    with pytest.raises(
        TrainingError,
        match=r"was made with epochs 4, not 5; seed 0, not 1: resume with the options of before",
    ):
        fit(
            new_model(),
            maps(20, 1),
            maps(5, 2),
            FitOptions(epochs=5, batch_size=8, warm_up=2, seed=1),
            path,
            resume=True,
        )
    with pytest.raises(
        TrainingError,
        match=r"was made with model VAE\(\), not ConvolutionalAutoencoder\(error=l2\)",
    ):
        fit(new_model("autoencoder"), maps(20, 1), maps(5, 2), OPTIONS, path, resume=True)
    with pytest.raises(TrainingError, match=r"was made with images 20, not 21"):
        fit(new_model(), maps(21, 1), maps(5, 2), OPTIONS, path, resume=True)
    with pytest.raises(TrainingError, match="was made from other images"):
        fit(new_model(), maps(20, 3), maps(5, 2), OPTIONS, path, resume=True)


def test_a_run_does_not_write_over_an_earlier_one_unasked(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    fit(new_model(), maps(20, 1), maps(5, 2), OPTIONS, path)
    with pytest.raises(
        TrainingError, match="is there from an earlier run, a new folder expected: add --resume"
    ):
        fit(new_model(), maps(20, 1), maps(5, 2), OPTIONS, path)


def test_resume_without_a_checkpoint_starts_at_the_first_epoch(tmp_path: Path) -> None:
    said: list[str] = []
    history = fit(
        new_model(),
        maps(20, 1),
        maps(5, 2),
        OPTIONS,
        tmp_path / "c.safetensors",
        resume=True,
        say=said.append,
    )
    assert len(history) == 4
    assert said == [
        f"{tmp_path / 'c.safetensors'}: no checkpoint yet, training starts at the first epoch"
    ]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_damaged_checkpoint_is_one_clear_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"c.safetensors.*expected"):
        fit(new_model(), maps(20, 1), maps(5, 2), OPTIONS, path, resume=True)


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    tensors = {
        "a": torch.arange(6.0).reshape(2, 3).T,
        "b": torch.tensor(3, dtype=torch.int64),
        "c": torch.zeros(0, 4),
    }
    save_checkpoint(tmp_path / "c", tensors, {"fact": "Ünïcode"})
    loaded, facts = load_checkpoint(tmp_path / "c")
    assert facts == {"fact": "Ünïcode"}
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)


# --- processes ------------------------------------------------------------------------------------
PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
import torch
from tests.training.test_fit import OPTIONS, maps, new_model
from training.fit import FitOptions, fit
torch.set_num_threads(1)
"""


def run(folder: Path, *command: str) -> subprocess.Popen[str]:
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


LONG_FIT = (
    "fit(new_model(), maps(20, 1), maps(5, 2), FitOptions(epochs=100_000, batch_size=8), "
    "Path('c.st'))"
)


def test_ctrl_c_leaves_a_checkpoint_that_resume_goes_on_from(tmp_path: Path) -> None:
    program = tmp_path / "long.py"
    program.write_text(PROGRAM + LONG_FIT)
    process = run(tmp_path, sys.executable, str(program))
    while process.poll() is None and not (tmp_path / "train.jsonl").exists():
        time.sleep(0.05)
    while process.poll() is None and not rows(tmp_path):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    finished = len(json.loads(load_checkpoint(tmp_path / "c.st")[1]["history"]))
    kept = f"stopped; epoch {finished} is kept in c.st: run the same command with --resume to go on"
    assert errors.splitlines()[-1] == f"KeyboardInterrupt: {kept}"
    # the row may be the one that Ctrl-C came before
    assert finished - 1 <= len(rows(tmp_path)) <= finished
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.st", "long.py", "train.jsonl"]


def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    """By a real torchrun; 21 images in batches of 8 leave shards of 4 + 4 and 3 + 2, 9 held-out
    ones one of 1 + 0.
    """
    program = tmp_path / "two.py"
    program.write_text(PROGRAM + "fit(new_model(), maps(21, 1), maps(9, 2), OPTIONS, Path('c.st'))")
    process = run(
        tmp_path,
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(program),
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    model = new_model()
    history = fit(model, maps(21, 1), maps(9, 2), OPTIONS, tmp_path / "one" / "c.st")
    assert [row["epoch"] for row in rows(tmp_path)] == [1, 2, 3, 4]
    for two, one in zip(rows(tmp_path), history, strict=True):
        assert two["loss"]["model"] == pytest.approx(one["loss"]["model"], rel=1e-5)
        assert two["held_out"]["model"] == pytest.approx(one["held_out"]["model"], rel=1e-5)
    state = model.state_dict()
    for name, tensor in load_checkpoint(tmp_path / "c.st")[0].items():
        if name.startswith("model."):
            torch.testing.assert_close(
                tensor, state[name.removeprefix("model.")], rtol=1e-3, atol=1e-4
            )


def test_a_busy_machine_is_told_to_train_with_one_thread() -> None:
    assert crowded(0.4, 2, 2) == crowded(9.0, 2, 1) == []
    assert crowded(9.0, 2, 2)[0].startswith("this machine is busy (9 processes want 2 cores)")
