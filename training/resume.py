"""A training that goes on from its checkpoint, and the history that it writes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomaly.errors import TrainingError
from anomaly.files.atomic import errors_naming, write_atomically
from training.checkpoint import fitting, load_checkpoint, save_checkpoint, tensors_of
from training.options import FitOptions
from training.protocols import Model

# seconds between two writings of the checkpoint at least: an epoch may be shorter than the writing
WRITE_EVERY = 3.0


# --- checkpoint -----------------------------------------------------------------------------------
def state(
    model: Model,
    players: dict[str, torch.optim.Optimizer],
    facts: dict[str, Any],
    fingerprints: Tensor,
    history: list[dict[str, Any]],
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns what a checkpoint holds after the last epoch of ``history``: copies of all tensors,
    and the facts.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()} | {
        "fingerprint": fingerprints
    }
    for player, optimiser in players.items():
        for number, moments in optimiser.state_dict()["state"].items():
            tensors |= {
                f"optimiser.{player}.{number}.{name}": value for name, value in moments.items()
            }
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    return copies, {"identity": json.dumps(facts), "history": json.dumps(history)}


class Keeper:
    """Keeps the last finished epoch: writes it every few seconds, and at the end whatever ends the
    training.
    """

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self.write()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            message = "stopped before the first epoch was finished: nothing is kept"
            if self.path.exists():
                finished = len(json.loads(load_checkpoint(self.path)[1]["history"]))
                message = (
                    f"stopped; epoch {finished} is kept in {self.path}: run the same command with "
                    "--resume to go on"
                )
            raise KeyboardInterrupt(message) from None


def history_of(text: str) -> list[dict[str, Any]]:
    """Returns the history of a checkpoint; ValueError where it is no list of epochs."""
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(epoch, dict) for epoch in found):
        raise ValueError("a history that is no list of epochs")
    return found


def restore(
    model: Model,
    players: dict[str, torch.optim.Optimizer],
    facts: dict[str, Any],
    fingerprints: Tensor,
    path: Path,
    resume: bool,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Puts model and optimisers where the checkpoint left them and returns its history; empty for a
    new run.
    """
    if path.exists() and not resume:
        raise TrainingError(
            f"{path} is there from an earlier run, a new folder expected: add --resume to go on "
            "with it, or choose another --out"
        )
    if not path.exists():
        if resume:
            say(f"{path}: no checkpoint yet, training starts at the first epoch")
        return []
    tensors, metadata = load_checkpoint(path)
    if not {"identity", "history"} <= metadata.keys():
        raise TrainingError(
            f"{path} is not from training, the checkpoint of an earlier run expected: choose "
            "another --out"
        )
    with fitting(path):
        refuse_another(path, json.loads(metadata["identity"]), facts)
        if not torch.allclose(tensors["fingerprint"], fingerprints, rtol=0.01):
            raise TrainingError(
                f"{path} was made from other images: give the same ones as before, or choose "
                "another --out"
            )
        try:
            model.load_state_dict(tensors_of(tensors, "model"))
        except RuntimeError as error:  # torch's word for weights that do not fit
            raise TrainingError(
                f"{path} holds weights of another model or version: train again in a new --out"
            ) from error
        for player, optimiser in players.items():
            numbers = range(len(optimiser.param_groups[0]["params"]))
            state = {
                number: tensors_of(tensors, f"optimiser.{player}.{number}") for number in numbers
            }
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict(
                {"state": {n: s for n, s in state.items() if s}, "param_groups": groups}
            )
        return history_of(metadata["history"])


def refuse_another(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises TrainingError, naming what differs, where the checkpoint is of a run with other
    options.
    """
    differing = [
        f"{name.replace('_', ' ')} {before.get(name)}, not {value}"
        for name, value in now.items()
        if before.get(name) != value
    ]
    if differing:
        raise TrainingError(
            f"{path} was made with {'; '.join(differing)}: resume with the options of before, or "
            "choose another --out"
        )


def identity(model: Model, maps: Tensor, options: FitOptions) -> dict[str, Any]:
    """Returns what a run must have in common with a checkpoint to go on with it; it may do so on
    another device.
    """
    chosen = {name: value for name, value in asdict(options).items() if name != "device"}
    name = f"{type(model).__name__}({model.extra_repr()})"
    return {"model": name, "images": len(maps), "map": list(maps.shape[1:]), **chosen}


def fingerprint(maps: Tensor) -> Tensor:
    """Returns the mean square of each map, (n,): by it a checkpoint knows its images, whatever
    rounding did to them.
    """
    return torch.cat([batch.float().square().mean((1, 2, 3)) for batch in maps.split(64)]).cpu()


def write_history(checkpoint: Path, history: list[dict[str, Any]]) -> None:
    """Writes train.jsonl beside the checkpoint anew, so that no epoch is in it twice where a run
    goes on.
    """
    rows = "".join(json.dumps(row) + "\n" for row in history)
    write_atomically(checkpoint.with_name("train.jsonl"), rows.encode())


def append_history(checkpoint: Path, row: dict[str, Any]) -> None:
    history = checkpoint.with_name("train.jsonl")
    with errors_naming(history), open(history, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
