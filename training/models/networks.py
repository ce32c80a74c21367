"""Networks between maps and codes, which several models share."""

from __future__ import annotations

from torch import Tensor, nn


def dense_encoder(channels: int, height: int, width: int, hidden: int, code: int) -> nn.Sequential:
    """Returns the network maps (N, C, h, w) -> codes (N, ``code``), with one hidden layer."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * width, hidden),
        nn.SiLU(),
        nn.Linear(hidden, code),
    )


def dense_decoder(channels: int, height: int, width: int, hidden: int, code: int) -> nn.Sequential:
    """Returns the network codes (N, ``code``) -> maps (N, C, h, w), unbounded, with one hidden
    layer.
    """
    last = nn.Linear(hidden, channels * height * width)
    return nn.Sequential(
        nn.Linear(code, hidden), nn.SiLU(), last, nn.Unflatten(1, (channels, height, width))
    )


class Encoder(nn.Module):
    """Maps (N, C, h, w) -> codes (N, ``code``): strided convolutions, then one dense layer.

    ``widths``: channels after each halving, the last repeated.
    """

    def __init__(
        self, channels: int, height: int, width: int, code: int, widths: tuple[int, ...]
    ) -> None:
        super().__init__()
        sizes = pyramid(height, width)
        widths = (*widths, *widths[-1:] * len(sizes))[: len(sizes)]
        layers: list[nn.Module] = []
        for before, after in zip((channels, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.GroupNorm(8, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(widths[-1] * sizes[-1][0] * sizes[-1][1], code)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(x).flatten(1))


class Decoder(nn.Module):
    """Codes (N, ``code``) -> maps (N, C, h, w), unbounded: the encoder's mirror image.

    Each level convolves before it enlarges, which costs a quarter of the other order.
    """

    def __init__(
        self, channels: int, height: int, width: int, code: int, widths: tuple[int, ...]
    ) -> None:
        super().__init__()
        sizes = pyramid(height, width)
        widths = (*widths, *widths[-1:] * len(sizes))[: len(sizes)]
        self.start = (widths[-1], *sizes[-1])
        self.first = nn.Linear(code, widths[-1] * sizes[-1][0] * sizes[-1][1])
        layers: list[nn.Module] = []
        for before, after, size in zip(
            widths[::-1],
            (*widths[-2::-1], widths[0]),
            (*sizes[-2::-1], (height, width)),
            strict=True,
        ):
            layers += [
                nn.Conv2d(before, after, 3, padding=1),
                nn.GroupNorm(8, after),
                nn.SiLU(),
                nn.Upsample(size),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[0], channels, 3, padding=1))

    def forward(self, code: Tensor) -> Tensor:
        return self.layers(self.first(code).unflatten(1, self.start))


def pyramid(height: int, width: int) -> list[tuple[int, int]]:
    """Returns the sizes after each halving, until the longer side is 8 or less (at least one
    halving).
    """
    sizes = [(height // 2, width // 2)]
    while max(sizes[-1]) > 8:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes
