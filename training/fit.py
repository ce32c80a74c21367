"""The training loop: it reads from top to bottom, and every model goes through it.

    fit(model, maps, validation, FitOptions(seed=0), run / "checkpoint.safetensors")
    torchrun --nproc-per-node 2 -m anomaly train ...        # the same loop, each batch shared among the processes

Order, noise and learning rate are pure functions of (seed, epoch, step): a resumed run ends like an undisturbed one,
and two processes compute what one would.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from anomaly.detector.file import write_atomically
from anomaly.errors import TrainingError
from anomaly.files.progress import Progress
from anomaly.files.table import named
from training.checkpoint import fitting, load_checkpoint, save_checkpoint, tensors_of

STEPS = 1500  # of the optimiser, that training makes where no number of epochs is asked for
WRITE_EVERY = 3.0  # seconds between two writings of the checkpoint at least: an epoch may be shorter than the writing


@dataclass(frozen=True)
class FitOptions:
    """What a fit depends on besides model and images."""

    epochs: int | None = None  # passes over the images; None: enough for 1500 steps, from 10 to 300 passes
    batch_size: int = 16  # of all processes together
    learning_rate: float = 1e-3  # its peak: it warms up, then falls to zero as a half cosine
    warm_up: int = 50  # steps, or a tenth of all where these are few
    weight_decay: float = 1e-4
    clip: float = 1.0  # the longest gradient
    seed: int = 0
    device: str = "cpu"  # as pick_device returns it

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("warm_up", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise TrainingError(f"{name.replace('_', ' ')} {value} found, {least} or more expected")


def fit(
    model: nn.Module,
    maps: Tensor,
    validation: Tensor,
    options: FitOptions,
    checkpoint: Path,
    resume: bool = False,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> list[dict[str, Any]]:
    """Fits a model on maps (n, C, h, w) and returns its history, a row for each epoch; the model ends on the device.

    ``maps`` and ``validation`` (held-out normal images) are float32, or uint8 pixels that are divided by 255. A model in
    closed form needs no held-out ones, and its row has no ``held_out`` loss then. A row has
    ``epoch``, ``loss`` and ``held_out`` (for each player the mean over the images), ``learning_rate`` and ``seconds``.
    Rows go to train.jsonl beside the checkpoint, which holds the last finished epoch whatever ends the training (and
    one of a few seconds earlier where the process is killed outright). ``say`` gets news, a line each.

    Raises TrainingError where images are too few or all the same, where numbers stop being finite, and where ``resume``
    finds the checkpoint of another run. KeyboardInterrupt says in its message how to go on.
    """
    check_maps(maps, validation, least=0 if model.closed_form else 1)
    # Convolutions on a CPU are half as fast again where the channels of a pixel lie together.
    model.to(options.device, memory_format=torch.channels_last).train()
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if model.closed_form:
        if options.epochs is not None or processes() > 1:
            say(f"{type(model).__name__} is fitted to all maps at once: epochs and further processes are ignored")
        history = fit_closed_form(model, maps, validation, options)
        if rank() == 0:
            save_checkpoint(checkpoint, *state(model, {}, identity(model, maps, options), fingerprint(maps), history))
            write_history(checkpoint, history)
    else:
        with joined_processes(options.device):
            history = train_epochs(model, maps, validation, options, checkpoint, resume, say)
    model.to(memory_format=torch.contiguous_format).eval()
    return history


def fit_closed_form(model: nn.Module, maps: Tensor, validation: Tensor, options: FitOptions) -> list[dict[str, Any]]:
    """Fits a model that needs no gradient; every process computes the same. Returns a history of one row, epoch 0."""
    began = time.monotonic()
    model.fit_maps(maps)
    loss, held_out = (
        mean_loss(model, ["model"], images, options, False) if len(images) else {} for images in (maps, validation)
    )
    seconds = round(time.monotonic() - began, 3)
    return [{"epoch": 0, "loss": loss, "held_out": held_out, "learning_rate": 0.0, "seconds": seconds}]


def train_epochs(
    model: nn.Module,
    maps: Tensor,
    validation: Tensor,
    options: FitOptions,
    checkpoint: Path,
    resume: bool,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Fits a model by AdamW, its players in alternation on each batch, and returns the history."""
    epochs = options.epochs or enough_epochs(len(maps), options.batch_size)
    options = replace(options, epochs=epochs)
    steps = math.ceil(len(maps) / options.batch_size)  # in an epoch
    betas = getattr(model, "betas", (0.9, 0.999))  # players who answer each other want a short memory
    players = {
        player: torch.optim.AdamW(parameters, options.learning_rate, betas, weight_decay=options.weight_decay)
        for player, parameters in model.players().items()
    }
    facts, fingerprints = identity(model, maps, options), fingerprint(maps)
    history = restore(model, players, facts, fingerprints, checkpoint, resume, say)
    if rank() == 0:
        write_history(checkpoint, history)
    note = ""
    with Progress(epochs * len(maps), "training", quiet=rank() > 0) as progress, Keeper(checkpoint) as keeper:
        progress.skip(len(history) * len(maps))
        for epoch in range(len(history) + 1, epochs + 1):
            began = time.monotonic()
            random = generator(options.seed, epoch)
            sums = dict.fromkeys(players, 0.0)
            for i, index in enumerate(torch.randperm(len(maps), generator=random).split(options.batch_size)):
                rate = learning_rate(options, (epoch - 1) * steps + i, epochs * steps)
                x = to_float(maps[shard(index)], options.device)
                for player, optimiser in players.items():
                    # The noise of the whole batch on every process, so that their number changes nothing.
                    noise = torch.randn(len(index), model.noise_size(), generator=random)
                    loss = step(model, player, optimiser, rate, x, shard(noise), len(index), options)
                    if not math.isfinite(loss):
                        raise TrainingError(broke_down(epoch, loss, len(history), options, checkpoint))
                    sums[player] += loss * len(index)
                progress.advance(len(index), note)

            means = {player: total / len(maps) for player, total in sums.items()}
            held_out = mean_loss(model, list(players), validation, options)
            seconds = round(time.monotonic() - began, 3)
            row = {"epoch": epoch, "loss": means, "held_out": held_out, "learning_rate": rate, "seconds": seconds}
            history.append(row)
            if rank() == 0:
                keeper.keep(*state(model, players, facts, fingerprints, history))
                append_history(checkpoint, row)
            note = f"epoch {epoch} of {epochs}, " + ", ".join(
                f"{player} loss {means[player]:.4g} (held out {held_out[player]:.4g})" for player in players
            )
    return history


def step(
    model: nn.Module,
    player: str,
    optimiser: torch.optim.Optimizer,
    rate: float,
    x: Tensor,
    noise: Tensor,
    count: int,
    options: FitOptions,
) -> float:
    """Moves one player by one step and returns the mean loss of the whole batch of ``count`` images.

    ``x`` and ``noise`` are this process's shard, which may be smaller than the others' or empty: each adds its losses
    divided by ``count``, and gradients are summed over the processes. Nothing moves where a number is not finite.
    """
    parameters = optimiser.param_groups[0]["params"]
    optimiser.zero_grad()
    loss = torch.zeros((), device=options.device)
    if len(x):
        with torch.autocast("cuda", torch.bfloat16, enabled=options.device.startswith("cuda")):
            loss = model.loss(x, noise.to(options.device), player).sum() / count
        loss.backward(inputs=parameters)
    loss = sum_over_processes(loss.detach(), parameters)
    length = nn.utils.clip_grad_norm_(parameters, options.clip)
    if not math.isfinite(length):
        return math.nan
    optimiser.param_groups[0]["lr"] = rate
    optimiser.step()
    return float(loss)


def sum_over_processes(loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """Sums gradients and loss over the processes, in one message."""
    if not dist.is_initialized():
        return loss
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([loss.reshape(1), *(g.flatten() for g in gradients)])
    dist.all_reduce(flat)
    pieces = flat.split([1, *(p.numel() for p in parameters)])
    for parameter, piece in zip(parameters, pieces[1:], strict=True):
        parameter.grad = piece.view_as(parameter)
    return pieces[0][0]


@torch.no_grad()
def mean_loss(model: nn.Module, players: list[str], maps: Tensor, options: FitOptions, shared: bool = True) -> dict[str, float]:
    """Returns each player's mean loss over maps, in float32 and under the same noise every time."""
    random = generator(options.seed, 0)
    sums = torch.zeros(len(players), dtype=torch.float64, device=options.device)
    for batch in maps.split(options.batch_size):
        noise = torch.randn(len(batch), model.noise_size(), generator=random)
        if shared:
            batch, noise = shard(batch), shard(noise)
        if len(batch):
            x, noise = to_float(batch, options.device), noise.to(options.device)
            sums += torch.stack([model.loss(x, noise, player).double().sum() for player in players])
    if shared and dist.is_initialized():
        dist.all_reduce(sums)
    return {player: float(total) / len(maps) for player, total in zip(players, sums, strict=True)}


def to_float(maps: Tensor, device: str) -> Tensor:
    """Returns maps on the device as float32; uint8 pixels are divided by 255."""
    maps = maps.to(device, memory_format=torch.channels_last)
    return maps.float() / 255 if maps.dtype == torch.uint8 else maps


def learning_rate(options: FitOptions, step: int, steps: int) -> float:
    """Returns the learning rate of a step of so many: a linear warm-up, then a half cosine down to zero."""
    warm = min(1.0, (step + 1) / (min(options.warm_up, steps // 10) + 1))
    return options.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def enough_epochs(images: int, batch_size: int) -> int:
    """Returns how many passes make about 1500 steps, at least 10 and at most 300."""
    return min(300, max(10, math.ceil(STEPS / math.ceil(images / batch_size))))


def generator(seed: int, epoch: int) -> torch.Generator:
    """Returns the random numbers of an epoch (0: of the held-out loss); those of two epochs have nothing in common."""
    state = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def check_maps(maps: Tensor, validation: Tensor, least: int) -> None:
    """Raises TrainingError where no model can be fitted on these maps; ``least``: images to validate that it needs."""
    if len(maps) < 2 or len(validation) < least:
        raise TrainingError(
            f"{len(maps)} images to fit and {len(validation)} to validate found, at least 2 and {least} expected: "
            "add good images"
        )
    for name, given in (("fit", maps), ("validate", validation)):
        if given.is_floating_point() and not given.isfinite().all():
            raise TrainingError(f"the maps of the images to {name} hold numbers that are not finite: please report this")
    first = maps[0].float()
    least = 1e-5 * float(first.abs().max())
    if all(float((other.float() - first).abs().max()) <= least for other in maps[1:]):
        raise TrainingError(
            f"all {len(maps)} images to fit look the same to the model, photographs of different good parts expected: "
            "check that the folder does not hold copies of one image"
        )


# --- checkpoint -------------------------------------------------------------------------------------------------------
def state(
    model: nn.Module,
    players: dict[str, torch.optim.Optimizer],
    facts: dict[str, Any],
    fingerprints: Tensor,
    history: list[dict[str, Any]],
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns what a checkpoint holds after the last epoch of ``history``: copies of all tensors, and the facts."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()} | {"fingerprint": fingerprints}
    for player, optimiser in players.items():
        for number, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{player}.{number}.{name}": value for name, value in moments.items()}
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    return copies, {"identity": json.dumps(facts), "history": json.dumps(history)}


class Keeper:
    """Keeps the last finished epoch: writes it every few seconds, and at the end whatever ends the training."""

    def __init__(self, path: Path) -> None:
        self.path, self.written = path, time.monotonic()
        self.pending: tuple[dict[str, Tensor], dict[str, str]] | None = None

    def __enter__(self) -> Keeper:
        return self

    def keep(self, tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
        self.pending = (tensors, facts)
        if time.monotonic() - self.written > WRITE_EVERY:
            self.write()

    def write(self) -> None:
        if self.pending is not None:
            save_checkpoint(self.path, *self.pending)
            self.pending, self.written = None, time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.write()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            message = "stopped before the first epoch was finished: nothing is kept"
            if self.path.exists():
                finished = len(json.loads(load_checkpoint(self.path)[1]["history"]))
                message = f"stopped; epoch {finished} is kept in {self.path}: run the same command with --resume to go on"
            raise KeyboardInterrupt(message) from None


def history_of(text: str) -> list[dict[str, Any]]:
    """Returns the history of a checkpoint; ValueError where it is no list of epochs."""
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(epoch, dict) for epoch in found):
        raise ValueError("a history that is no list of epochs")
    return found


def restore(
    model: nn.Module,
    players: dict[str, torch.optim.Optimizer],
    facts: dict[str, Any],
    fingerprints: Tensor,
    path: Path,
    resume: bool,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Puts model and optimisers where the checkpoint left them and returns its history; empty for a new run."""
    if path.exists() and not resume:
        raise TrainingError(
            f"{path} is there from an earlier run, a new folder expected: add --resume to go on with it, or choose "
            "another --out"
        )
    if not path.exists():
        if resume:
            say(f"{path}: no checkpoint yet, training starts at the first epoch")
        return []
    tensors, metadata = load_checkpoint(path)
    if not {"identity", "history"} <= metadata.keys():
        raise TrainingError(f"{path} is not from training, the checkpoint of an earlier run expected: choose another --out")
    with fitting(path):
        refuse_another(path, json.loads(metadata["identity"]), facts)
        if not torch.allclose(tensors["fingerprint"], fingerprints, rtol=0.01):
            raise TrainingError(f"{path} was made from other images: give the same ones as before, or choose another --out")
        try:
            model.load_state_dict(tensors_of(tensors, "model"))
        except RuntimeError as error:  # torch's word for weights that do not fit
            raise TrainingError(f"{path} holds weights of another model or version: train again in a new --out") from error
        for player, optimiser in players.items():
            numbers = range(len(optimiser.param_groups[0]["params"]))
            state = {number: tensors_of(tensors, f"optimiser.{player}.{number}") for number in numbers}
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": {n: s for n, s in state.items() if s}, "param_groups": groups})
        return history_of(metadata["history"])


def refuse_another(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises TrainingError, naming what differs, where the checkpoint is of a run with other options."""
    differing = [
        f"{name.replace('_', ' ')} {before.get(name)}, not {value}" for name, value in now.items() if before.get(name) != value
    ]
    if differing:
        raise TrainingError(
            f"{path} was made with {'; '.join(differing)}: resume with the options of before, or choose another --out"
        )


def identity(model: nn.Module, maps: Tensor, options: FitOptions) -> dict[str, Any]:
    """Returns what a run must have in common with a checkpoint to go on with it; it may do so on another device."""
    chosen = {name: value for name, value in asdict(options).items() if name != "device"}
    name = f"{type(model).__name__}({model.extra_repr()})"
    return {"model": name, "images": len(maps), "map": list(maps.shape[1:]), **chosen}


def fingerprint(maps: Tensor) -> Tensor:
    """Returns the mean square of each map, (n,): by it a checkpoint knows its images, whatever rounding did to them."""
    return torch.cat([batch.float().square().mean((1, 2, 3)) for batch in maps.split(64)]).cpu()


def write_history(checkpoint: Path, history: list[dict[str, Any]]) -> None:
    """Writes train.jsonl beside the checkpoint anew, so that no epoch is in it twice where a run goes on."""
    rows = "".join(json.dumps(row) + "\n" for row in history)
    write_atomically(checkpoint.with_name("train.jsonl"), rows.encode())


def append_history(checkpoint: Path, row: dict[str, Any]) -> None:
    history = checkpoint.with_name("train.jsonl")
    with named(history), open(history, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def broke_down(epoch: int, loss: float, finished: int, options: FitOptions, checkpoint: Path) -> str:
    kept = f"epoch {finished} is kept in {checkpoint}" if finished else "no epoch was finished"
    return (
        f"training broke down in epoch {epoch}: loss or gradient is {loss}, a finite number expected; {kept}. "
        f"Try another --seed, or a learning rate below {options.learning_rate:g}, in a new --out"
    )


# --- devices and processes --------------------------------------------------------------------------------------------
def pick_device(name: str) -> str:
    """Returns ``cpu`` or ``cuda:<number>`` for ``auto``, ``cpu`` or ``cuda``.

    Under torchrun each process of a machine gets a GPU of its own. TrainingError where CUDA is asked for and absent.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise TrainingError(f"device {name!r} found, one of auto, cpu, cuda expected")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise TrainingError(
            "no CUDA device found, one was asked for: use --device cpu, or install a PyTorch built for this GPU"
        )
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def rank() -> int:
    """Returns this process's number among those that torchrun started; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """Returns how many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def shard(batch: Tensor) -> Tensor:
    """Returns this process's part of a batch; the parts differ by one at the most and may be empty."""
    return batch.tensor_split(processes())[rank()]


@contextlib.contextmanager
def joined_processes(device: str) -> Iterator[None]:
    """Joins the processes that torchrun started, by gloo on CPUs and NCCL on GPUs; without torchrun it does nothing."""
    if processes() == 1 or dist.is_initialized():
        yield
        return
    if device != "cpu":
        torch.cuda.set_device(device)
    dist.init_process_group("gloo" if device == "cpu" else "nccl")
    try:
        yield
        dist.barrier()  # who leaves while another one still talks to it takes that one down
    finally:
        dist.destroy_process_group()
