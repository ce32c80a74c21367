"""Variational autoencoder: a lower bound of a map's likelihood, under a model with a dense latent for the whole map."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.models.autoencoder import WIDTHS, Decoder, Encoder

LATENT = 64
FASTER = 10.0  # the decoder's sigma learns so much faster than the weights, or it would not arrive within the steps
SMALLEST = -4.0  # log standard deviation of the decoder, so that a constant background does not decide everything


class VAE(nn.Module):
    """Kingma & Welling, "Auto-encoding variational Bayes" (ICLR 2014): z ~ N(0, 1), x | z ~ N(mu(z), sigma^2).

    sigma is learned, for each channel and each location: Rybkin, Daniilidis & Levine, "Simple and effective VAE
    training with calibrated decoders" (ICML 2021); so beta is 1 and the score has a unit, nats.
    """

    closed_form: ClassVar[bool] = False

    def __init__(self, channels: int, height: int, width: int, pixels: bool) -> None:
        super().__init__()
        self.pixels = pixels
        # Wider ones fit better and generalise worse: the held-out bound decided.
        widths = WIDTHS if pixels else (64,)
        self.encoder = Encoder(channels, height, width, 2 * LATENT, widths)
        self.decoder = Decoder(channels, height, width, LATENT, widths)
        self.channel_sigma = nn.Parameter(torch.zeros(channels, 1, 1))  # log sigma = 10 (a_c + b_hw)
        self.location_sigma = nn.Parameter(torch.zeros(height, width))
        self.register_buffer("latent_mean", torch.zeros(LATENT))
        self.register_buffer("latent_factor", torch.eye(LATENT))

    def players(self) -> dict[str, list[nn.Parameter]]:
        return {"model": list(self.parameters())}

    def noise_size(self) -> int:
        return LATENT

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        """Returns the negative evidence lower bound of each map in nats per number of the map, (N,)."""
        mean, log_sigma = self.encode(x)
        z = mean + log_sigma.exp() * noise  # reparametrisation (Kingma & Welling, equation 4)
        bound = -self.log_likelihood(x, self.decode(z)).sum((1, 2)) + divergence(mean, log_sigma)
        return bound / x[0].numel()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the heatmap (N, h, w) in nats, higher = more anomalous, and the reconstruction (N, C, h, w).

        A location's value is the negative log-likelihood of what is there, given the posterior's mean, and an equal
        share of the divergence between posterior and prior, which knows no location. So a heatmap sums to the negative
        evidence lower bound (Kingma & Welling, equation 10), with the posterior's mean in place of draws: same image,
        same score.
        """
        mean, log_sigma = self.encode(x)
        y = self.decode(mean)
        share = divergence(mean, log_sigma) / (x.shape[2] * x.shape[3])
        return share[:, None, None] - self.log_likelihood(x, y), y

    def sample(self, noise: Tensor) -> Tensor:
        """Returns maps (N, C, h, w) drawn from the model, as their means, from standard normal noise (N, 64).

        Latents come from the Gaussian that ``fit_prior`` found: few images leave holes in the standard normal prior,
        where the decoder has never been (Ghosh et al., "From variational to deterministic autoencoders", ICLR 2020).
        """
        return self.decode(self.latent_mean + noise @ self.latent_factor.T)

    @torch.no_grad()
    def fit_prior(self, maps: Tensor) -> None:
        """Fits the Gaussian that ``sample`` draws latents from to the posterior means of normal maps; scores ignore it."""
        scale = 255.0 if maps.dtype == torch.uint8 else 1.0
        device = self.latent_mean.device
        latents = torch.cat([self.encode(part.to(device).float() / scale)[0] for part in maps.split(64)]).double()
        covariance = torch.cov(latents.T) + 1e-6 * torch.eye(LATENT, dtype=torch.float64, device=device)
        self.latent_mean.copy_(latents.mean(0))
        self.latent_factor.copy_(torch.linalg.cholesky(covariance))

    def sample_size(self) -> int:
        return LATENT

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the posterior's mean and log standard deviation, (N, 64) each."""
        mean, log_sigma = self.encoder(x).float().chunk(2, 1)
        return mean, log_sigma.clamp(-8.0, 4.0)

    def decode(self, z: Tensor) -> Tensor:
        y = self.decoder(z).float()
        return torch.sigmoid(y) if self.pixels else y

    def log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns log N(x; y, sigma^2) summed over channels, (N, h, w), in nats."""
        log_sigma = self.log_sigma()
        normed = ((x - y) / log_sigma.exp()) ** 2
        return -(0.5 * normed + log_sigma + 0.5 * math.log(2 * math.pi)).sum(1)

    def log_sigma(self) -> Tensor:
        """Returns the decoder's log standard deviation, (C, h, w), softly limited below (Rybkin et al., section 3)."""
        log_sigma = FASTER * (self.channel_sigma + self.location_sigma)
        return SMALLEST + nn.functional.softplus(log_sigma - SMALLEST)


def divergence(mean: Tensor, log_sigma: Tensor) -> Tensor:
    """Returns KL(N(mean, sigma^2) || N(0, 1)), (N,), in nats (Kingma & Welling, appendix B)."""
    return 0.5 * (mean**2 + (2 * log_sigma).exp() - 1 - 2 * log_sigma).sum(1)
