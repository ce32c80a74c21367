"""The checkpoint: one safetensors file, tensors by name and facts as text, that appears whole or
not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from anomaly.errors import AnomalyError, TrainingError
from anomaly.files.atomic import write_atomically
from anomaly.files.regular_files import open_regular


def save_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
    """Writes tensors and facts; a run that is killed meanwhile leaves the file that was there
    before.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(whole, facts))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors, on the CPU, and the facts; TrainingError where the file is not a
    checkpoint.
    """
    if path.exists():
        open_regular(path, TrainingError).close()  # a pipe would be waited for
    try:
        with safe_open(path, framework="pt") as file:
            return {
                name: file.get_tensor(name) for name in sorted(file.keys())
            }, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{path}: no checkpoint that can be read ({error}), one that anomaly train wrote "
            "expected: remove it and train again"
        ) from None


# what code inside torch stumbles over where tensors do not fit
MISFITS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Says in one line that what a checkpoint holds does not fit together, whatever the code inside
    stumbles over.
    """
    try:
        yield
    except AnomalyError:
        raise
    except MISFITS as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise TrainingError(
            f"{path}: facts or weights that do not fit found ({what}), those that anomaly train "
            "wrote expected: the file is damaged or of another version; train again in a new --out"
        ) from error


def tensors_of(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Returns the tensors whose names begin with ``name.``, without it."""
    return {
        key.removeprefix(f"{name}."): value
        for key, value in tensors.items()
        if key.startswith(f"{name}.")
    }
