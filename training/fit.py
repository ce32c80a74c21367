"""The training loop: it reads from top to bottom, and every model goes through it.

    fit(model, maps, validation, FitOptions(seed=0), run / "checkpoint.safetensors")
    # the same loop, each batch shared among the processes
    torchrun --nproc-per-node 2 -m anomaly train ...

Order, noise and learning rate are pure functions of (seed, epoch, step): a resumed run ends like an
undisturbed one, and two processes compute what one would.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from anomaly.detector.session import available_cores
from anomaly.errors import TrainingError
from anomaly.files.progress import Progress
from training.checkpoint import save_checkpoint
from training.folds import all_alike
from training.options import FitOptions
from training.pixels import to_unit
from training.processes import crowded, joined_processes, processes, rank, shard, sum_over_processes
from training.protocols import Model
from training.resume import (
    Keeper,
    append_history,
    fingerprint,
    identity,
    restore,
    state,
    write_history,
)

STEPS = 1500  # of the optimiser, that training makes where no number of epochs is asked for


def fit(
    model: Model,
    maps: Tensor,
    validation: Tensor,
    options: FitOptions,
    checkpoint: Path,
    resume: bool = False,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> list[dict[str, Any]]:
    """Fits a model on maps (n, C, h, w) and returns its history, a row for each epoch; the model
    ends on the device.

    ``maps`` and ``validation`` (held-out normal images) are float32, or uint8 pixels that are
    divided by 255. A model in closed form needs no held-out ones, and its row has no ``held_out``
    loss then. A row has ``epoch``, ``loss`` and ``held_out`` (for each player the mean over the
    images), ``terms`` of the held-out losses, ``learning_rate`` and ``seconds``. Rows go to
    train.jsonl beside the checkpoint, which holds the last finished epoch whatever ends the
    training (and one of a few seconds earlier where the process is killed outright). ``say`` gets
    news, a line each.

    Raises TrainingError where images are too few or all the same, where numbers stop being finite,
    and where ``resume`` finds the checkpoint of another run. KeyboardInterrupt says in its message
    how to go on.
    """
    check_maps(maps, validation, least=0 if model.closed_form else 1)
    # Convolutions on a CPU are half as fast again where the channels of a pixel lie together.
    model.to(options.device, memory_format=torch.channels_last).train()
    if not model.closed_form and options.device == "cpu" and hasattr(os, "getloadavg"):
        for line in crowded(os.getloadavg()[0], available_cores(), torch.get_num_threads()):
            say(line)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if model.closed_form:
        if options.epochs is not None or processes() > 1:
            say(
                f"{type(model).__name__} is fitted to all maps at once: epochs and further "
                "processes are ignored"
            )
        history = fit_closed_form(model, maps, validation, options)
        if rank() == 0:
            save_checkpoint(
                checkpoint,
                *state(model, {}, identity(model, maps, options), fingerprint(maps), history),
            )
            write_history(checkpoint, history)
    else:
        with joined_processes(options.device):
            history = train_epochs(model, maps, validation, options, checkpoint, resume, say)
    model.to(memory_format=torch.contiguous_format).eval()
    return history


def fit_closed_form(
    model: Model, maps: Tensor, validation: Tensor, options: FitOptions
) -> list[dict[str, Any]]:
    """Fits a model that needs no gradient; every process computes the same. Returns a history of
    one row, epoch 0.
    """
    began = time.monotonic()
    model.fit_maps(maps)
    loss, held_out = (
        mean_loss(model, ["model"], images, options, False) if len(images) else {}
        for images in (maps, validation)
    )
    seconds = round(time.monotonic() - began, 3)
    return [
        {
            "epoch": 0,
            "loss": loss,
            "held_out": held_out,
            "terms": {},
            "learning_rate": 0.0,
            "seconds": seconds,
        }
    ]


def train_epochs(
    model: Model,
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
    players = optimisers(model, options)
    facts, fingerprints = identity(model, maps, options), fingerprint(maps)
    history = restore(model, players, facts, fingerprints, checkpoint, resume, say)
    if rank() == 0:
        write_history(checkpoint, history)
    note = ""
    with (
        Progress(epochs * len(maps), "training", quiet=rank() > 0) as progress,
        Keeper(checkpoint) as keeper,
    ):
        progress.skip(len(history) * len(maps))
        for epoch in range(len(history) + 1, epochs + 1):
            began = time.monotonic()
            seen = partial(progress.advance, note=note)
            losses, rate = train_epoch(model, maps, players, options, epoch, checkpoint, seen)
            held_out = mean_loss(model, list(players), validation, options)
            row = {
                "epoch": epoch,
                "loss": losses,
                "held_out": held_out,
                "terms": mean_terms(model, validation, options),
                "learning_rate": rate,
                "seconds": round(time.monotonic() - began, 3),
            }
            history.append(row)
            if rank() == 0:
                keeper.keep(*state(model, players, facts, fingerprints, history))
                append_history(checkpoint, row)
            note = f"epoch {epoch} of {epochs}, " + ", ".join(
                f"{player} {model.loss_name} {losses[player]:.4g} (held out {held_out[player]:.4g})"
                for player in players
            )
        progress.advance(0, note)
    return history


def optimisers(model: Model, options: FitOptions) -> dict[str, torch.optim.Optimizer]:
    """Returns an optimiser for each player."""
    # players who answer each other want a short memory: the model's betas
    return {
        player: torch.optim.AdamW(
            parameters, options.learning_rate, model.betas, weight_decay=options.weight_decay
        )
        for player, parameters in model.players().items()
    }


def train_epoch(
    model: Model,
    maps: Tensor,
    players: dict[str, torch.optim.Optimizer],
    options: FitOptions,
    epoch: int,
    checkpoint: Path,
    seen: Callable[[int], object],
) -> tuple[dict[str, float], float]:
    """Moves the players once through all maps; returns the mean loss of each, and the last learning
    rate. ``seen`` gets the size of each batch.
    """
    random, rate = generator(options.seed, epoch), 0.0
    sums = dict.fromkeys(players, 0.0)
    batches = torch.randperm(len(maps), generator=random).split(options.batch_size)
    for i, index in enumerate(batches):
        done, steps = (epoch - 1) * len(batches) + i, (options.epochs or epoch) * len(batches)
        rate = learning_rate(options, done, steps)
        x = to_float(maps[shard(index)], options.device)
        for player, optimiser in players.items():
            # The noise of the whole batch on every process, so that their number changes nothing.
            noise = torch.randn(len(index), model.noise_size(), generator=random)
            loss = step(model, player, optimiser, rate, x, shard(noise), len(index), options)
            if not math.isfinite(loss):
                raise TrainingError(broke_down(epoch, loss, epoch - 1, options, checkpoint))
            sums[player] += loss * len(index)
        seen(len(index))
    return {player: total / len(maps) for player, total in sums.items()}, rate


def step(
    model: Model,
    player: str,
    optimiser: torch.optim.Optimizer,
    rate: float,
    x: Tensor,
    noise: Tensor,
    count: int,
    options: FitOptions,
) -> float:
    """Moves one player by one step and returns the mean loss of the whole batch of ``count``
    images.

    ``x`` and ``noise`` are this process's shard, which may be smaller than the others' or empty:
    each adds its losses divided by ``count``, and gradients are summed over the processes. Nothing
    moves where a number is not finite.
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


@torch.no_grad()
def mean_loss(
    model: Model, players: list[str], maps: Tensor, options: FitOptions, shared: bool = True
) -> dict[str, float]:
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


@torch.no_grad()
def mean_terms(model: Model, maps: Tensor, options: FitOptions) -> dict[str, float]:
    """Returns the mean over maps of each term of the losses, under the noise of ``mean_loss``;
    every process computes all.
    """
    random = generator(options.seed, 0)
    sums: dict[str, float] = {}
    for batch in maps.split(options.batch_size):
        noise = torch.randn(len(batch), model.noise_size(), generator=random)
        terms = model.terms(to_float(batch, options.device), noise.to(options.device))
        for name, values in terms.items():
            sums[name] = sums.get(name, 0.0) + float(values.double().sum())
    return {name: total / len(maps) for name, total in sums.items()}


def to_float(maps: Tensor, device: str) -> Tensor:
    """Returns maps on the device as float32; uint8 pixels are divided by 255."""
    return to_unit(maps.to(device, memory_format=torch.channels_last))


def learning_rate(options: FitOptions, step: int, steps: int) -> float:
    """Returns the learning rate of a step of so many: a linear warm-up, then a half cosine down to
    zero.
    """
    warm = min(1.0, (step + 1) / (min(options.warm_up, steps // 10) + 1))
    return options.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def enough_epochs(images: int, batch_size: int) -> int:
    """Returns how many passes make about 1500 steps, at least 10 and at most 300."""
    return min(300, max(10, math.ceil(STEPS / math.ceil(images / batch_size))))


def generator(seed: int, epoch: int) -> torch.Generator:
    """Returns the random numbers of an epoch (0: of the held-out loss); those of two epochs have
    nothing in common.
    """
    state = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def check_maps(maps: Tensor, validation: Tensor, least: int) -> None:
    """Raises TrainingError where no model can be fitted on these maps; ``least``: images to
    validate that it needs.
    """
    if len(maps) < 2 or len(validation) < least:
        raise TrainingError(
            f"{len(maps)} images to fit and {len(validation)} to validate found, at least 2 and "
            f"{least} expected: add good images"
        )
    for name, given in (("fit", maps), ("validate", validation)):
        if given.is_floating_point() and not given.isfinite().all():
            raise TrainingError(
                f"the maps of the images to {name} hold numbers that are not finite: please report "
                "this"
            )
    first = maps[0].float()
    rounding = 1e-5 * float(first.abs().max())
    if all(float((other.float() - first).abs().max()) <= rounding for other in maps[1:]):
        raise all_alike(f"all {len(maps)} images to fit")


def broke_down(
    epoch: int, loss: float, finished: int, options: FitOptions, checkpoint: Path
) -> str:
    kept = f"epoch {finished} is kept in {checkpoint}" if finished else "no epoch was finished"
    return (
        f"training broke down in epoch {epoch}: loss or gradient is {loss}, a finite number "
        f"expected; {kept}. Try another --seed, or a learning rate below "
        f"{options.learning_rate:g}, in a new --out"
    )
