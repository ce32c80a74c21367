"""Autoencoders: what does not pass the bottleneck was not seen in normal images. Score: the
reconstruction error.

The linear one knows besides how far a code may lie from the mean: it is a Gaussian of whole maps.
And it compares the heatmap of a place with what is usual there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.errors import TrainingError
from training.folds import folds, seeded_subset
from training.models.base import GenerativeModel
from training.models.gaussian import KnownMaps, components, inner_products, spectrum
from training.models.networks import Decoder, Encoder, dense_decoder, dense_encoder
from training.pixels import to_unit
from training.scores import ERRORS, averaged, squared_error

MAX_MAPS = 4096  # that the closed form uses: its cost grows with their square
# with as many maps the root of a place's location scale is divided out: see
# docs/research/2026-11-settings.md
LOCATION_SCALE_PRIOR_MAPS = 100
# Of the mean heatmap value that a place has usually at least: where nothing varies there is
# rounding noise only
MIN_LOCATION_SCALE = 0.5
LOCATION_SCALE_MAPS = 800  # maps that the location scale is taken of
CODE = 256  # numbers in the convolutional autoencoder's bottleneck
DENSE_CODE = 128  # and in the dense one's
DROPOUT = 0.2  # standard deviation of the noise that multiplies the code in training
# weight of the squared error beside a similarity, which is about so much larger in 0..1
SQUARED_ERROR_WEIGHT = 10.0
WIDTHS = (32, 48, 64, 96, 128)  # channels after each halving of pixels; the last is repeated


class LinearAutoencoder(GenerativeModel):
    """The linear autoencoder of whole maps and its Gaussian, in closed form, from their principal
    components.

    Baldi & Hornik, "Neural networks and principal component analysis" (Neural Networks 1989): the
    squared error of a linear autoencoder has no other minimum. Tipping & Bishop, "Probabilistic
    principal component analysis" (J. R. Stat. Soc. B 1999): the components with their variances v
    and one variance s for all other directions are a Gaussian,

        p(x) = N(mean, U v U' + s I)    s: the ridge

    Of few images it does not learn how much each place varies: the edge of a part is hotter than a
    plain surface in every new good image. So the heatmap at a place is divided by its scale u there
    in images that the model has not seen, the more so the fewer maps (n) there are: by u^a, a =
    100 / (n + 100). Heatmaps brought to one scale by good images not seen: Batzner et al.,
    "EfficientAD" (WACV 2024), for whole maps; here for each place.
    """

    closed_form: ClassVar[bool] = True
    can_sample: ClassVar[bool] = True
    can_encode: ClassVar[bool] = True
    can_describe: ClassVar[bool] = True
    # inspected: what a mask leaves out has no variance to take a mean of
    # groups, of the maps to fit on; None: a place has no location scale
    mean: Tensor
    usual: Tensor
    components: Tensor
    variances: Tensor
    ridge: Tensor
    # what the graph computes with, by names of their own: see training.update
    scale: Tensor
    gain: Tensor
    share: Tensor

    def __init__(self, channels: int, height: int, width: int, pixels: bool) -> None:
        super().__init__(pixels)
        self.shape = (channels, height, width)
        self.register_buffer("mean", torch.zeros(channels * height * width))
        # (r, D), orthonormal rows
        self.register_buffer("components", torch.zeros(0, channels * height * width))
        self.register_buffer("variances", torch.zeros(0))  # (r,), of the codes
        self.register_buffer("ridge", torch.ones(()))
        self.register_buffer("usual", torch.ones(height, width))  # u^a
        self.register_buffer("scale", torch.ones(()))  # s^(-1/2)
        self.register_buffer("gain", torch.zeros(0))  # (v + s)^(-1/2) - s^(-1/2)
        self.register_buffer("share", torch.zeros(0))  # v / (v + s)
        # How many components there are is only known after the fit: a saved state brings its own
        # number.
        self.register_load_state_dict_pre_hook(_make_room_for_components)  # type: ignore[no-untyped-call]

    def fit_maps(self, maps: Tensor) -> None:
        """Sets the Gaussian from maps (n, C, h, w), and the location scale of each place where
        their groups are known.

        Of more than 4096 maps it takes a random subset, always the same.

        Maps are float32, or uint8 that stands for 0..1. Raises TrainingError where maps are too few
        or all alike.
        """
        if self.groups is not None and not self.pixels:  # in pixels it was not measured
            scale = location_scale(maps, self.groups)
            self.usual = (scale ** shrinkage(len(maps))).to(self.mean)
        if len(maps) > MAX_MAPS:
            maps = maps[seeded_subset(len(maps), MAX_MAPS)]
        rows = to_unit(maps.flatten(1).to(self.mean.device), self.mean.dtype)
        gaussian = spectrum(rows, inner_products(rows), self.inspected)
        mean, found = rows.mean(0, dtype=torch.float64), components(rows, gaussian)
        self.mean, self.components, self.variances, self.ridge = (
            x.to(self.mean) for x in (mean, found, gaussian.variances, gaussian.ridge)
        )
        self.scale = self.ridge.rsqrt()
        self.gain = (self.variances + self.ridge).rsqrt() - self.scale
        self.share = self.variances / (self.variances + self.ridge)

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        """Returns the mean squared error of each map, (N,)."""
        return squared_error(x, self.reconstruct(x)).mean((1, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the heatmap (N, h, w), higher = more anomalous, and the reconstruction (N, C, h,
        w).

        A location's value is the mean over channels of w^2, w = C^(-1/2) (x - mean) with C the
        covariance of the Gaussian, divided by u^a. The w^2 of the whole map sum to the squared
        Mahalanobis distance. Unlike the error it also tells a map whose code no normal map has, and
        what often varies counts less.
        """
        return self.whitened(x).square().mean(1) / self.usual, self.reconstruct(x)

    def whitened(self, x: Tensor) -> Tensor:
        """Returns w of maps, (N, C, h, w)."""
        deviation, code = x.flatten(1) - self.mean, self.encode(x)
        w = deviation * self.scale + (code * self.gain) @ self.components
        return w.reshape(x.shape)

    def deviation(self, x: Tensor) -> Tensor:
        """Returns how maps deviate from good ones at each place, (N, C, h, w), with their sign: of
        its squares the heatmap is the mean over channels.
        """
        return self.whitened(x) / self.usual.sqrt()

    def encode(self, x: Tensor) -> Tensor:
        """Returns the codes of maps, (N, r)."""
        return F.linear(x.flatten(1) - self.mean, self.components)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Returns the expectation of maps without what the ridge stands for (Tipping & Bishop,
        section 3.4): (N, C, h, w).
        """
        return self.as_map(self.encode(x) * self.share, x.shape)

    def sample(self, noise: Tensor) -> Tensor:
        """Returns maps (N, C, h, w) from standard normal noise (N, r), without what the ridge
        stands for.
        """
        return self.as_map(noise * self.variances.sqrt(), (len(noise), *self.shape))

    def sample_size(self) -> int:
        return len(self.variances)

    def as_map(self, code: Tensor, shape: tuple[int, ...]) -> Tensor:
        y = (self.mean + code @ self.components).reshape(shape)
        return y.clamp(0.0, 1.0) if self.pixels else y


def _make_room_for_components(
    model: LinearAutoencoder, state: dict[str, Tensor], prefix: str, *_: object
) -> None:
    saved = state.get(f"{prefix}components")
    if saved is not None and saved.shape[1:] == model.components.shape[1:]:
        model.components = model.components.new_zeros(saved.shape)
        for name in ("variances", "gain", "share"):
            setattr(model, name, model.variances.new_zeros(len(saved)))


@torch.no_grad()
def location_scale(maps: Tensor, groups: Sequence[str], products: Tensor | None = None) -> Tensor:
    """Returns the mean heatmap of images not seen (h, w), smoothed, in units of the mean over the
    map, at least 0.5.

    Five Gaussians, each without a fifth of the groups, judge the maps (n, C, h, w) of those. Ones
    where maps are too few or too alike for that. ``products``: the inner products of the maps,
    float64 (n, n), where they are known.
    """
    chosen = seeded_subset(len(maps), LOCATION_SCALE_MAPS)  # of more than 800, always the same
    maps, groups = to_unit(maps[chosen].cpu()), [groups[i] for i in chosen.tolist()]
    fold_numbers = torch.from_numpy(folds(groups))
    products = inner_products(maps.flatten(1)) if products is None else products[chosen][:, chosen]
    total = torch.zeros(maps.shape[2:])
    for fold in fold_numbers.unique():
        left, kept = fold_numbers == fold, fold_numbers != fold
        among, others = products[kept][:, kept], products[left][:, kept]
        try:
            total += KnownMaps.of(maps[kept], among).errors(maps[left], others).sum(0)
        except TrainingError:
            return torch.ones(maps.shape[2:])
    return location_scale_of(total)


def location_scale_of(errors: Tensor) -> Tensor:
    """Returns the location scale of each place (h, w) from the sum of maps of errors."""
    smoothed = averaged(errors[None])[0]
    return (smoothed / smoothed.mean()).clamp(min=MIN_LOCATION_SCALE)


def shrinkage(maps: int) -> float:
    """Returns the power that a location scale is raised to: less, the more maps are learnt from."""
    return LOCATION_SCALE_PRIOR_MAPS / (maps + LOCATION_SCALE_PRIOR_MAPS)


class ConvolutionalAutoencoder(GenerativeModel):
    """Strided convolutions down to 8 x 8 or so, a dense code of 256 numbers for the whole map, and
    the way back.

    Hinton & Salakhutdinov (Science 2006); for defects: Bergmann et al., "Improving unsupervised
    defect segmentation by applying structural similarity to autoencoders" (VISAPP 2019). The code
    is dense, so that it knows the whole part, and noisy, so that the decoder learns to come back to
    what is normal (Vincent et al., ICML 2008; as "noisy bottleneck": Guo et al., "Dinomaly", CVPR
    2025).
    """

    can_encode: ClassVar[bool] = True
    own_error: ClassVar[str] = "gradient"
    code: ClassVar[int] = CODE

    def __init__(
        self, channels: int, height: int, width: int, pixels: bool, error: str | None = None
    ) -> None:
        super().__init__(pixels)
        self.error_name = (error or self.own_error) if pixels else "l2"
        self.error = ERRORS[self.error_name]
        self.encoder, self.decoder = self.networks(channels, height, width)

    def networks(self, channels: int, height: int, width: int) -> tuple[nn.Module, nn.Module]:
        widths = WIDTHS if self.pixels else (128,)
        encoder = Encoder(channels, height, width, self.code, widths)
        return encoder, Decoder(channels, height, width, self.code, widths)

    def extra_repr(self) -> str:
        return f"error={self.error_name}"

    def noise_size(self) -> int:
        return self.code

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        """Returns the reconstruction error of each map, (N,), under noise (N, 256) that multiplies
        the code.
        """
        code = self.encode(x)
        # Gaussian dropout (Srivastava et al., JMLR 2014, section 10): its strength does not depend
        # on the code's scale.
        y = self.decode(code * (1 + DROPOUT * noise))
        # the windows of the similarities need float32
        with torch.autocast(x.device.type, enabled=False):
            loss = squared_error(x, y)
            # alone, similarity leaves the colours open and learns too slowly
            if self.error is not squared_error:
                loss = SQUARED_ERROR_WEIGHT * loss + self.error(x, y)
        return loss.mean((1, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the error at each location, (N, h, w), higher = more anomalous; the
        reconstruction, (N, C, h, w).
        """
        y = self.decode(self.encode(x))
        return self.error(x, y), y

    def encode(self, x: Tensor) -> Tensor:
        """Returns the codes of maps, (N, code)."""
        return self.encoder(x)

    def decode(self, code: Tensor) -> Tensor:
        y = self.decoder(code).float()  # errors are computed in float32, also under autocast
        return torch.sigmoid(y) if self.pixels else y


class DenseAutoencoder(ConvolutionalAutoencoder):
    """The textbook autoencoder: numbers of the map - 256 - 128 - 256 - numbers of the map.

    Hinton & Salakhutdinov, "Reducing the dimensionality of data with neural networks" (Science
    2006). For small images.
    """

    own_error: ClassVar[str] = "l2"
    code: ClassVar[int] = DENSE_CODE

    def networks(self, channels: int, height: int, width: int) -> tuple[nn.Module, nn.Module]:
        encoder = dense_encoder(channels, height, width, 256, self.code)
        return encoder, dense_decoder(channels, height, width, 256, self.code)
