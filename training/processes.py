"""Devices and processes of a training."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from anomaly.errors import TrainingError


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


def pick_device(name: str) -> str:
    """Returns ``cpu`` or ``cuda:<number>`` for ``auto``, ``cpu`` or ``cuda``.

    Under torchrun each process of a machine gets a GPU of its own. TrainingError where CUDA is
    asked for and absent.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise TrainingError(f"device {name!r} found, one of auto, cpu, cuda expected")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise TrainingError(
            "no CUDA device found, one was asked for: use --device cpu, or install a PyTorch built "
            "for this GPU"
        )
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def rank() -> int:
    """Returns this process's number among those that torchrun started; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """Returns how many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def shard(batch: Tensor) -> Tensor:
    """Returns this process's part of a batch; the parts differ by one at the most and may
    be empty.
    """
    return batch.tensor_split(processes())[rank()]


@contextlib.contextmanager
def joined_processes(device: str) -> Iterator[None]:
    """Joins the processes that torchrun started, by gloo on CPUs and NCCL on GPUs; without torchrun
    it does nothing.
    """
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


def crowded(load: float, cores: int, threads: int) -> list[str]:
    """Returns a line where so many threads would wait for each other; ``load``: the mean number of
    other processes that want one of the ``cores``.
    """
    if threads == 1 or load < cores:
        return []
    return [
        f"this machine is busy ({load:.0f} processes want {cores} cores): with one thread "
        "(OMP_NUM_THREADS=1) training may be several times faster"
    ]
