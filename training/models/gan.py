"""Generative adversarial networks: what the generator cannot draw, or the discriminator takes for
generated, is anomalous.
"""

from __future__ import annotations

import itertools
import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.base import GenerativeModel
from training.models.networks import Decoder, Encoder, pyramid
from training.models.sample_distance import nearest_distance
from training.models.vae import divergence
from training.pixels import to_unit
from training.scores import squared_error

# of Adam: the other player moves on, so old gradients mislead (Radford et al., ICLR 2016)
BETAS = (0.5, 0.99)

# In pixels.
LATENT = 10  # few numbers: of 32 the generator could draw digits that it was not shown
WIDTHS = (32, 64, 64, 64)  # channels after each halving; the last is repeated
RECONSTRUCTION = 160.0  # weight of the mean squared error against the adversarial term
# weight of the divergence, which keeps latents of images where the generator has learned to draw
DIVERGENCE = 0.1
PENALTY = 0.5  # weight of the discriminator's squared gradient: see docs/research/trials.md
COLLAPSE_SAMPLES = 256  # samples, and as many normal images, in which mode collapse is looked for
# Samples that differ by less than this share of what normal images differ by have collapsed: of
# digits, clothes and tiles it is 0.9 to 1.1, where the latent says nothing 0.05, where the
# generator moves thirty times as often 0.1 to 0.3.
COLLAPSE_SHARE = 0.5

# In features and filters.
# standard deviation of what makes a feature vector near-normal: that of the whitened features
# themselves
NOISE = 1.0
WIDTH = 128  # channels of the discriminator
CODE = 64  # numbers that the generator describes a whole map by


def make_gan(
    channels: int, height: int, width: int, pixels: bool, dropout: float = 0.0
) -> PixelGAN | FeatureGAN:
    """Returns a GAN that draws images of pixels, ``dropout`` of its discriminator's channels left
    out of each step; of other maps one that spoils and restores features.
    """
    if pixels:
        return PixelGAN(channels, height, width, dropout)
    return FeatureGAN(channels, height, width)


class PixelGAN(GenerativeModel):
    """Goodfellow et al., "Generative adversarial nets" (NeurIPS 2014), with an encoder so that
    scoring needs no search.

    The encoder takes the place of AnoGAN's search for the latent that draws an image best, as in
    Schlegl et al., "f-AnoGAN" (Medical Image Analysis 2019); it is trained together with the
    generator: Larsen et al., "Autoencoding beyond pixels using a learned similarity metric" (ICML
    2016). The generator so must draw every normal image, and cannot drop the rare ones, whose
    residual would be that of an anomaly.
    """

    can_sample: ClassVar[bool] = True
    can_encode: ClassVar[bool] = True
    betas: ClassVar[tuple[float, float]] = BETAS
    scales: Tensor

    def __init__(self, channels: int, height: int, width: int, dropout: float = 0.0) -> None:
        super().__init__(pixels=True)
        self.dropout = dropout  # chance that a channel of the discriminator is left out of a step
        self.generator = Generator(channels, height, width, LATENT, WIDTHS)
        self.encoder = Encoder(channels, height, width, 2 * LATENT, WIDTHS)
        self.discriminator = Discriminator(channels, height, width, WIDTHS)
        # means over normal images of the heatmap's two residuals
        self.register_buffer("scales", torch.ones(2))

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}"

    def players(self) -> dict[str, list[nn.Parameter]]:
        return {
            "discriminator": list(self.discriminator.parameters()),
            "generator": [*self.generator.parameters(), *self.encoder.parameters()],
        }

    def noise_size(self) -> int:
        return 2 * LATENT + (2 * self.discriminator.channels if self.dropout else 0)

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        """Returns the loss of each image, (N,); noise (N, noise_size): a latent of the prior, what
        the posterior's needs, and what is dropped.
        """
        terms = self.of_discriminator if player == "discriminator" else self.of_generator
        return torch.stack(list(terms(x, noise).values())).sum(0)

    def terms(self, x: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Returns the terms of both players' losses."""
        return self.of_discriminator(x, noise) | self.of_generator(x, noise)

    def of_discriminator(self, x: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Returns the terms of the discriminator's loss, (N,).

        -log D(x) - log(1 - D(G(z))) (Goodfellow et al., equation 1), and the penalty R1 (Mescheder
        et al., "Which training methods for GANs do actually converge?", ICML 2018, equation 9).
        """
        with torch.no_grad():
            drawn = self.sample(noise[:, :LATENT])
        keep_real, keep_drawn = self.kept(noise)
        logit, squared_gradient = logit_and_squared_gradient(self.discriminator, x, keep_real)
        return {
            "discriminator: real and drawn": F.softplus(-logit)
            + F.softplus(self.discriminator(drawn, keep_drawn)),
            "discriminator: gradient penalty": PENALTY / 2 * squared_gradient,
        }

    def of_generator(self, x: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Returns the terms of the loss of generator and encoder, (N,).

        -log D(G(z)): Goodfellow et al., section 3: unlike log(1 - D(G(z))) it does not saturate
        where D is sure.
        """
        prior, posterior = noise[:, :LATENT], noise[:, LATENT : 2 * LATENT]
        mean, log_sigma = self.posterior(x)
        y = self.sample(mean + log_sigma.exp() * posterior)
        _, keep_drawn = self.kept(noise)
        return {
            "generator: adversarial": F.softplus(
                -self.discriminator(self.sample(prior), keep_drawn)
            ),
            "generator: residual": RECONSTRUCTION * squared_error(x, y).mean((1, 2)),
            "generator: divergence (KL)": DIVERGENCE * divergence(mean, log_sigma),
        }

    def kept(self, noise: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Returns which channels the discriminator keeps of real and of drawn images, (N, channels)
        each, scaled so that their mean is 1; None where nothing is dropped, as in a held-out loss.
        """
        if not (self.dropout and self.training and torch.is_grad_enabled()):
            return None, None
        stays = torch.special.ndtr(noise[:, 2 * LATENT :]) >= self.dropout
        real, drawn = (stays.to(noise.dtype) / (1 - self.dropout)).chunk(2, 1)
        return real, drawn

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the heatmap (N, h, w), higher = more anomalous, and G(E(x)), the reconstruction
        (N, C, h, w).

        A location's value is the squared difference of image and reconstruction, and that of the
        discriminator's features there (Schlegl et al., equation 5); each in units of its mean over
        normal images.
        """
        y = self.reconstruct(x)
        pixels, features = self.residuals(x, y)
        return pixels / self.scales[0] + features / self.scales[1], y

    def residuals(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what two images (N, C, h, w) differ by, in pixels and in the discriminator's
        features: twice (N, h, w).
        """
        pairs = zip(self.discriminator.features(x), self.discriminator.features(y), strict=True)
        differences = [squared_error(f.float(), g.float())[:, None] for f, g in pairs]
        size = (x.shape[2], x.shape[3])
        features = [
            F.interpolate(d, size, mode="bilinear", align_corners=False) for d in differences
        ]
        return squared_error(x, y), torch.cat(features, 1).mean(1)

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        """Returns image scores (N,): -log D / (1 - D) of the image, and the parts of its mean
        residual.
        """
        pixels, features = self.residuals(x, self.reconstruct(x))
        return {
            "discriminator": -self.discriminator(x),
            "features": features.mean((1, 2)),
            "residual": pixels.mean((1, 2)),
        }

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.sample(self.encode(x))

    def sample(self, noise: Tensor) -> Tensor:
        """Returns images (N, C, h, w) in 0..1 that the generator draws from standard normal noise
        (N, 10).
        """
        return torch.sigmoid(self.generator(noise).float())

    def sample_size(self) -> int:
        return LATENT

    def encode(self, x: Tensor) -> Tensor:
        """Returns the latents (N, 10) that the generator draws these images from."""
        return self.posterior(x)[0]

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log standard deviation of the latent, twice (N, 10)."""
        mean, log_sigma = self.encoder(x).float().chunk(2, 1)
        return mean, log_sigma.clamp(-8.0, 4.0)

    @torch.no_grad()
    def finish(self, maps: Tensor) -> None:
        """Sets the scales of the heatmap's two terms to their means over normal images."""
        sums = torch.zeros_like(self.scales)
        for part in maps.split(64):
            x = to_unit(part.to(self.scales.device))
            sums += torch.stack(
                [residual.mean((1, 2)).sum() for residual in self.residuals(x, self.reconstruct(x))]
            )
        self.scales.copy_((sums / len(maps)).clamp(min=1e-8))

    @torch.no_grad()
    def warnings(self, maps: Tensor) -> list[str]:
        """Returns a line where the generator has collapsed: it draws fewer kinds of images than
        there are.
        """
        share = self.diversity(maps)
        if share >= COLLAPSE_SHARE:
            return []
        return [
            f"mode collapse: what the generator draws varies {100 * share:.0f} % as much as the "
            f"good images do, at least {100 * COLLAPSE_SHARE:.0f} % expected: it shows few kinds "
            "of good parts only. Try another --seed or more --epochs"
        ]

    def diversity(self, maps: Tensor) -> float:
        """Returns how far a sample is from the sample most like it, against the same among normal
        images: about 1.

        Median over 256 of each, by images averaged in blocks of 4 x 4, so that neither noise nor
        sharpness counts. Near-duplicates among samples give away that there are few: Arora & Zhang,
        "Do GANs actually learn the distribution?" (2017). The mean distance of pairs would miss a
        generator with two modes.
        """
        random = torch.Generator().manual_seed(0)
        maps = maps[torch.randperm(len(maps), generator=random)[:COLLAPSE_SAMPLES]]
        noise = torch.randn(len(maps), LATENT, generator=random)
        drawn = torch.cat([self.sample(part.to(self.scales.device)) for part in noise.split(64)])
        return nearest_distance(drawn) / max(
            nearest_distance(to_unit(maps.to(self.scales.device))), 1e-8
        )


class FeatureGAN(GenerativeModel):
    """A discriminator that tells each location's normal feature vector from near-normal ones, made
    by noise.

    Liu et al., "SimpleNet" (CVPR 2023): features with noise added stand for the anomalies that
    there are none of. It judges a location by its own vector only: of neighbours it would learn
    that noise is not smooth. The generator is a restorer: it takes the noise out, and the
    discriminator must take the outcome for normal. What it makes of a map is the expectation that
    ``forward`` returns.
    """

    betas: ClassVar[tuple[float, float]] = BETAS

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__(pixels=False)
        self.shape = (channels, height, width)
        self.discriminator = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 1),
            nn.SiLU(),
            nn.Conv2d(WIDTH, WIDTH, 1),
            nn.SiLU(),
            nn.Conv2d(WIDTH, 1, 1),
        )
        self.encoder = Encoder(channels, height, width, CODE, (64,))
        self.generator = Decoder(channels, height, width, CODE, (64,))

    def players(self) -> dict[str, list[nn.Parameter]]:
        return {
            "discriminator": list(self.discriminator.parameters()),
            "generator": [*self.encoder.parameters(), *self.generator.parameters()],
        }

    def noise_size(self) -> int:
        return math.prod(self.shape)

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        """Returns the loss of each map, (N,), under noise (N, C h w) that makes it near-normal."""
        spoilt = x + NOISE * noise.unflatten(1, self.shape)
        if player == "discriminator":
            return (F.softplus(-self.logit(x)) + F.softplus(self.logit(spoilt))).mean((1, 2))
        restored = self.reconstruct(spoilt)
        return (squared_error(x, restored) + F.softplus(-self.logit(restored))).mean((1, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns -log D / (1 - D) at each location (N, h, w), higher = more anomalous; what G
        makes of it (N, C, h, w).
        """
        return -self.logit(x), self.reconstruct(x)

    def logit(self, x: Tensor) -> Tensor:
        return self.discriminator(x)[:, 0].float()

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.generator(self.encoder(x)).float()


class Generator(nn.Module):
    """Latents (N, ``code``) -> images (N, C, h, w), unbounded: transposed convolutions (Radford et
    al., ICLR 2016).

    A quarter of the cost of the decoder that convolves at full size: a GAN draws several times for
    each step.
    """

    def __init__(
        self, channels: int, height: int, width: int, code: int, widths: tuple[int, ...]
    ) -> None:
        super().__init__()
        sizes = [(height, width), *pyramid(height, width)]
        widths = (channels, *widths, *widths[-1:] * len(sizes))[: len(sizes)]
        self.start = (widths[-1], *sizes[-1])
        self.first = nn.Linear(code, math.prod(self.start))
        layers: list[nn.Module] = []
        for level in range(len(sizes) - 1, 0, -1):
            odd = (sizes[level - 1][0] % 2, sizes[level - 1][1] % 2)
            enlarge = nn.ConvTranspose2d(
                widths[level], widths[level - 1], 4, 2, 1, output_padding=odd
            )
            layers += [nn.GroupNorm(8, widths[level]), nn.SiLU(), enlarge]
        self.layers = nn.Sequential(*layers)

    def forward(self, code: Tensor) -> Tensor:
        return self.layers(self.first(code).unflatten(1, self.start))


class Discriminator(nn.Module):
    """Images (N, C, h, w) -> log D / (1 - D), (N,): strided convolutions without normalisation.

    Normalisation would hide from it how strong an edge is.
    """

    def __init__(self, channels: int, height: int, width: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = pyramid(height, width)
        widths = (channels, *widths, *widths[-1:] * len(sizes))[: len(sizes) + 1]
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 4, 2, 1) for before, after in itertools.pairwise(widths)
        )
        self.widths = widths[1:]
        self.last = nn.Linear(widths[-1] * sizes[-1][0] * sizes[-1][1], 1)

    @property
    def channels(self) -> int:
        """Channels of all layers together."""
        return sum(self.widths)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        return self.last(self.features(x, kept)[-1].flatten(1))[:, 0].float()

    def features(self, x: Tensor, kept: Tensor | None = None) -> list[Tensor]:
        """Returns what each layer sees, the finest first: (N, C', h', w').

        ``kept``: factors of all channels, (N, channels), 0 where one is dropped (Tompson et al.,
        "Efficient object localization using convolutional networks", CVPR 2015).
        """
        features = []
        factors = [None] * len(self.widths) if kept is None else kept.split(self.widths, 1)
        for layer, factor in zip(self.layers, factors, strict=True):
            x = F.leaky_relu(layer(x), 0.2)
            x = x if factor is None else x * factor[:, :, None, None]
            features.append(x)
        return features


def logit_and_squared_gradient(
    discriminator: nn.Module, x: Tensor, kept: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the discriminator's logits of images and the squared length of their gradients by the
    image, twice (N,).
    """
    training = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():  # a held-out loss has the penalty too
        x = x.detach().clone().requires_grad_()
        logit = discriminator(x, kept)
        (gradient,) = torch.autograd.grad(logit.sum(), x, create_graph=training)
    return logit, gradient.float().square().sum((1, 2, 3))
