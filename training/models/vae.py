"""Variational autoencoder: a lower bound of a map's likelihood, under a model with a dense latent
for the whole map.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.models.autoencoder import WIDTHS
from training.models.base import GenerativeModel
from training.models.networks import Decoder, Encoder, dense_decoder, dense_encoder
from training.pixels import to_unit

LATENT = 64
DENSE_LATENT = 10
# of the posterior, that the importance-weighted bound and the reconstruction probability average
# over
DRAWS = 16
# the decoder's sigma learns so much faster than the weights, or it would not arrive within the
# steps
SIGMA_RATE_FACTOR = 10.0
# log standard deviation of the decoder, so that a constant background does not decide everything
MIN_LOG_SIGMA = -4.0


class VAE(GenerativeModel):
    """Kingma & Welling, "Auto-encoding variational Bayes" (ICLR 2014): z ~ N(0, 1), x | z ~
    N(mu(z), sigma^2).

    sigma is learned, for each channel and each location: Rybkin, Daniilidis & Levine, "Simple and
    effective VAE training with calibrated decoders" (ICML 2021); so beta is 1 and the score has a
    unit, nats.
    """

    likelihood: ClassVar[bool] = True
    can_sample: ClassVar[bool] = True
    can_encode: ClassVar[bool] = True
    latent: ClassVar[int] = LATENT
    latent_mean: Tensor
    latent_factor: Tensor
    draws: Tensor

    def __init__(self, channels: int, height: int, width: int, pixels: bool) -> None:
        super().__init__(pixels)
        self.density = self.density_of(channels, height, width)
        self.encoder, self.decoder = self.networks(channels, height, width)
        self.register_buffer("latent_mean", torch.zeros(self.latent))
        self.register_buffer("latent_factor", torch.eye(self.latent))
        # The same draws for every image, in the file too: same input, same score.
        draws = torch.randn(DRAWS, self.latent, generator=torch.Generator().manual_seed(0))
        self.register_buffer("draws", draws, persistent=False)

    def density_of(self, channels: int, height: int, width: int) -> Gaussian | Bernoulli:
        return Gaussian(channels, height, width)

    def networks(self, channels: int, height: int, width: int) -> tuple[nn.Module, nn.Module]:
        # Wider ones fit better and generalise worse: the held-out bound decided.
        widths = WIDTHS if self.pixels else (64,)
        encoder = Encoder(channels, height, width, 2 * self.latent, widths)
        return encoder, Decoder(channels, height, width, self.latent, widths)

    def noise_size(self) -> int:
        return self.latent

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        """Returns the negative evidence lower bound of each map in nats per number of the map,
        (N,).
        """
        return torch.stack(list(self.terms(x, noise).values())).sum(0)

    def terms(self, x: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Returns the two terms of the bound, (N,), in nats per number of the map."""
        mean, log_sigma = self.posterior(x)
        z = mean + log_sigma.exp() * noise  # reparametrisation (Kingma & Welling, equation 4)
        nll = -self.density.log_likelihood(x, self.decode(z)).sum((1, 2))
        return {
            "negative log-likelihood": nll / x[0].numel(),
            "divergence (KL)": divergence(mean, log_sigma) / x[0].numel(),
        }

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the heatmap (N, h, w) in nats, higher = more anomalous, and the reconstruction
        (N, C, h, w).

        A location's value is the negative log-likelihood of what is there, given the posterior's
        mean, and an equal share of the divergence between posterior and prior, which knows no
        location. So a heatmap sums to the negative evidence lower bound (Kingma & Welling, equation
        10), with the posterior's mean in place of draws: same image, same score.
        """
        mean, log_sigma = self.posterior(x)
        y = self.decode(mean)
        share = divergence(mean, log_sigma) / (x.shape[2] * x.shape[3])
        return share[:, None, None] - self.density.log_likelihood(x, y), y

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        """Returns further scores (N,), in nats for a number of the map, higher = more anomalous.

        ``kl``: how far the posterior is from the prior. ``reconstruction``: the reconstruction
        probability, the negative log-likelihood averaged over draws of the posterior (An & Cho,
        "Variational autoencoder based anomaly detection using reconstruction probability", 2015).
        ``iwae``: the importance-weighted bound of 16 draws (Burda, Grosse & Salakhutdinov,
        "Importance weighted autoencoders", ICLR 2016, equation 8).
        """
        mean, log_sigma = self.posterior(x)
        noise = self.draws[:, None]  # (K, 1, latent)
        z = mean + log_sigma.exp() * noise  # (K, N, latent)
        y = self.decode(z.flatten(0, 1)).unflatten(0, (DRAWS, -1))  # (K, N, C, h, w)
        # (K, N)
        log_likelihood = torch.stack(
            [self.density.log_likelihood(x, y[k]).sum((1, 2)) for k in range(DRAWS)]
        )
        # log p(z) - log q(z | x): the constants of the two Gaussians cancel.
        log_ratio = (0.5 * noise**2 + log_sigma - 0.5 * z**2).sum(2)
        iwae = math.log(DRAWS) - (log_likelihood + log_ratio).logsumexp(0)
        scores = {
            "kl": divergence(mean, log_sigma),
            "reconstruction": -log_likelihood.mean(0),
            "iwae": iwae,
        }
        return {name: score / x[0].numel() for name, score in scores.items()}

    def sample(self, noise: Tensor) -> Tensor:
        """Returns maps (N, C, h, w) drawn from the model, as their means, from standard normal
        noise (N, latent).

        Latents come from the Gaussian that ``finish`` found: few images leave holes in the standard
        normal prior, where the decoder has never been (Ghosh et al., "From variational to
        deterministic autoencoders", ICLR 2020).
        """
        return self.decode(self.latent_mean + noise @ self.latent_factor.T)

    @torch.no_grad()
    def finish(self, maps: Tensor) -> None:
        """Fits the Gaussian that ``sample`` draws latents from to the posterior means of normal
        maps; scores ignore it.
        """
        device = self.latent_mean.device
        latents = torch.cat(
            [self.posterior(to_unit(batch.to(device)))[0] for batch in maps.split(64)]
        ).double()
        covariance = torch.cov(latents.T) + 1e-6 * torch.eye(
            self.latent, dtype=torch.float64, device=device
        )
        self.latent_mean.copy_(latents.mean(0))
        self.latent_factor.copy_(torch.linalg.cholesky(covariance))

    def sample_size(self) -> int:
        return self.latent

    def encode(self, x: Tensor) -> Tensor:
        """Returns the latents of maps, the posterior's mean, (N, latent)."""
        return self.posterior(x)[0]

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the posterior's mean and log standard deviation, (N, latent) each."""
        mean, log_sigma = self.encoder(x).float().chunk(2, 1)
        return mean, log_sigma.clamp(-8.0, 4.0)

    def decode(self, z: Tensor) -> Tensor:
        y = self.decoder(z).float()
        return torch.sigmoid(y) if self.pixels else y


class DenseVAE(VAE):
    """The textbook one: two hidden layers and a latent of 10 numbers (Kingma & Welling, section 5).
    For small images.
    """

    # of pixels it is a ratio of likelihoods, which needs no correction by complexity
    likelihood: ClassVar[bool] = False
    latent: ClassVar[int] = DENSE_LATENT

    def density_of(self, channels: int, height: int, width: int) -> Gaussian | Bernoulli:
        return Bernoulli() if self.pixels else Gaussian(channels, height, width)

    def networks(self, channels: int, height: int, width: int) -> tuple[nn.Module, nn.Module]:
        encoder = dense_encoder(channels, height, width, 512, 2 * self.latent)
        return encoder, dense_decoder(channels, height, width, 512, self.latent)


class Gaussian(nn.Module):
    """x | z ~ N(mu(z), sigma^2), sigma learned: log sigma = 10 (a_c + b_hw)."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.channel_sigma = nn.Parameter(torch.zeros(channels, 1, 1))
        self.location_sigma = nn.Parameter(torch.zeros(height, width))

    def log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns log N(x; y, sigma^2) summed over channels, (N, h, w), in nats."""
        log_sigma = self.log_sigma()
        normed = ((x - y) / log_sigma.exp()) ** 2
        return -(0.5 * normed + log_sigma + 0.5 * math.log(2 * math.pi)).sum(1)

    def log_sigma(self) -> Tensor:
        """Returns the decoder's log standard deviation, (C, h, w), softly limited below (Rybkin et
        al., section 3).
        """
        log_sigma = SIGMA_RATE_FACTOR * (self.channel_sigma + self.location_sigma)
        return MIN_LOG_SIGMA + nn.functional.softplus(log_sigma - MIN_LOG_SIGMA)


class Bernoulli(nn.Module):
    """Pixels as chances, which have no spread of their own."""

    def log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns log p(x | y) - log p(x | x) of Bernoulli pixels, summed over channels, (N, h, w),
        in nats; at most 0.

        The second term is the best that any decoder could do: without it grey pixels would be
        unlikely whatever is expected (Chauhan et al., "Robust outlier detection by de-biasing VAE
        likelihoods", CVPR 2022, section 3). Training ignores it.
        """
        x, y = x.clamp(1e-4, 1 - 1e-4), y.clamp(1e-4, 1 - 1e-4)
        return (x * (y / x).log() + (1 - x) * ((1 - y) / (1 - x)).log()).sum(1)


def divergence(mean: Tensor, log_sigma: Tensor) -> Tensor:
    """Returns KL(N(mean, sigma^2) || N(0, 1)), (N,), in nats (Kingma & Welling, appendix B)."""
    return 0.5 * (mean**2 + (2 * log_sigma).exp() - 1 - 2 * log_sigma).sum(1)
