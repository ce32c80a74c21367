"""What a model answers where its class says nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn


class GenerativeModel(nn.Module):
    """The members of `training.protocols.Model` that most models have in common."""

    closed_form: ClassVar[bool] = False
    likelihood: ClassVar[bool] = False
    can_sample: ClassVar[bool] = False
    can_encode: ClassVar[bool] = False
    can_describe: ClassVar[bool] = False
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    loss_name: ClassVar[str] = "loss"

    inspected: float = 1.0
    groups: Sequence[str] | None = None

    def __init__(self, pixels: bool) -> None:
        super().__init__()
        self.pixels = pixels

    def fit_maps(self, maps: Tensor) -> None:
        raise NotImplementedError(f"{type(self).__name__} is trained by gradient")

    def players(self) -> dict[str, list[nn.Parameter]]:
        return {} if self.closed_form else {"model": list(self.parameters())}

    def noise_size(self) -> int:
        return 0

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        raise NotImplementedError

    def terms(self, x: Tensor, noise: Tensor) -> dict[str, Tensor]:
        return {}

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        return {}

    def finish(self, maps: Tensor) -> None:
        pass

    def warnings(self, maps: Tensor) -> list[str]:
        return []

    def sample_size(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} draws no samples")

    def sample(self, noise: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} draws no samples")

    def encode(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no encoder")

    def deviation(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not say how a map deviates")
