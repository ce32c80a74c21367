"""What training asks of a model and of a space, whatever they compute inside.

Every capability is a member that all of them have: nobody looks whether a method is there.
`training.models.base` has what most models answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor, nn


class Module(Protocol):
    """What is used of torch.nn.Module."""

    training: bool

    def to(self, *args: Any, **kwargs: Any) -> Self: ...

    def cpu(self) -> Self: ...

    def eval(self) -> Self: ...

    def train(self, mode: bool = True) -> Self: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...

    def extra_repr(self) -> str: ...


class Whitener(Module, Protocol):
    """Maps (N, C, h, w) -> maps of unit variance, by the statistics of the maps to fit on."""

    def fit(self, maps: Iterable[Tensor]) -> None:
        """Takes the statistics of batches of raw maps."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Space(Module, Protocol):
    """Prepared pixels, float32 (N, 3, h, w) in 0..1 -> maps, float32 (N, channels, *grid)."""

    channels: int
    grid: tuple[int, int]

    @property
    def whitening(self) -> Whitener | None:
        """What makes the maps of raw ones; None: of pixels."""

    @property
    def early_shape(self) -> tuple[int, ...] | None:
        """(C, h, w) of the maps of a backbone's early stage; None: there is none."""

    def raw(self, x: Tensor) -> Tensor:
        """Returns maps as they are kept before whitening: float32, or pixels as uint8."""

    def with_early(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns raw maps and early ones (N, C, h, w); the second has no meaning where there is no
        early stage.
        """

    def __call__(self, x: Tensor) -> Tensor: ...


class Model(Module, Protocol):
    """A generative model of maps (N, C, h, w)."""

    closed_form: ClassVar[bool]  # fitted to all maps at once by ``fit_maps``, else by gradient
    likelihood: ClassVar[bool]  # its heatmap of pixels sums to a negative log-likelihood
    can_sample: ClassVar[bool]  # ``sample`` makes new maps
    can_encode: ClassVar[bool]  # ``encode`` makes codes
    can_describe: ClassVar[bool]  # ``deviation`` says how a map deviates from good ones
    betas: ClassVar[tuple[float, float]]  # of Adam
    loss_name: ClassVar[str]  # what the history's loss is called

    pixels: bool
    # set before the fit: the share of a map that a mask leaves, and the groups of the maps
    inspected: float
    groups: Sequence[str] | None

    def fit_maps(self, maps: Tensor) -> None:
        """Fits a model in closed form to maps, float32, or uint8 that stands for 0..1."""

    def players(self) -> dict[str, list[nn.Parameter]]:
        """Returns the parameters of each player, which its own loss moves; none in closed form."""

    def noise_size(self) -> int:
        """Returns how many standard normal numbers the loss of a map takes."""

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        """Returns a player's loss of each map, (N,)."""

    def terms(self, x: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Returns what the losses are made of, by name, each (N,); none where that says no more."""

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the heatmap (N, h, w), higher = more anomalous, and the map that is expected."""

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        """Returns the image scores, each (N,), that only this model has."""

    def finish(self, maps: Tensor) -> None:
        """Sets, after the fit, what is not learned by gradient."""

    def warnings(self, maps: Tensor) -> list[str]:
        """Returns what went wrong in a fit on these maps, a line each."""

    def sample_size(self) -> int:
        """Returns how many standard normal numbers a sample takes."""

    def sample(self, noise: Tensor) -> Tensor:
        """Returns new maps from noise (N, sample_size)."""

    def encode(self, x: Tensor) -> Tensor:
        """Returns the codes of maps, (N, k)."""

    def deviation(self, x: Tensor) -> Tensor:
        """Returns how maps deviate from good ones, (N, C, h, w), whitened, with sign."""
