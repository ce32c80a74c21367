"""Restricted Boltzmann machine: an energy for each map, low where normal maps lie, learned by
running the model itself.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.base import GenerativeModel

HIDDEN = 256  # binary units
CHAINS = 64  # that live on from step to step
STEPS = 200  # of Gibbs sampling before a sample is shown
# biases and sigma learn so much faster than weights, or they would not arrive within the steps
SCALE_RATE_FACTOR = 10.0
MIN_LOGIT_DISTANCE = 1 / 510  # half a grey level: a pixel's logit cannot be known better


class BoltzmannMachine(GenerativeModel):
    """Binary hidden units h, visible units v, and nothing that joins two of a kind; p(v) =
    exp(-F(v)) / Z.

    Smolensky (1986); Hinton, "Training products of experts by minimizing contrastive divergence"
    (Neural Computation 2002) and "A practical guide to training restricted Boltzmann machines"
    (2012). Pixels are Bernoulli units: an image's grey levels are taken for their probabilities, as
    usual, and what the machine itself makes is drawn, black or white. Maps are Gaussian units,
    sigma learned for each channel, as Cho, Ilin & Raiko write them, "Improved learning of
    Gaussian-Bernoulli restricted Boltzmann machines" (ICANN 2011), but for v / sigma in place of v
    / sigma^2, as in Hinton's guide. Hidden units count from 1/2, or what they have in common would
    move with the visible biases and slow them down (the centring of Montavon & Mueller, "Deep
    Boltzmann machines and the centering trick", 2012, of this layer alone):

        E(v, h) = -b v - c h - (h - 1/2) W v                            of pixels
        E(v, h) = |(v - b) / sigma|^2 / 2 - c h - (h - 1/2) W v / sigma  of maps
    """

    can_sample: ClassVar[bool] = True
    can_encode: ClassVar[bool] = True
    loss_name: ClassVar[str] = "squared error of reconstruction"
    chains: Tensor

    def __init__(self, channels: int, height: int, width: int, pixels: bool) -> None:
        super().__init__(pixels)
        self.shape = (channels, height, width)
        self.visible = channels * height * width
        self.weight = nn.Parameter(0.01 * torch.randn(HIDDEN, self.visible))
        self.hidden_bias = nn.Parameter(torch.zeros(HIDDEN))
        self.visible_bias = nn.Parameter(torch.zeros(self.visible))  # b / 10
        if not pixels:
            self.channel_sigma = nn.Parameter(torch.zeros(channels, 1))  # log sigma / 10
        # part of the checkpoint: a resumed run goes on with them
        self.register_buffer("chains", torch.zeros(CHAINS, HIDDEN))

    def noise_size(self) -> int:
        return 2 * (HIDDEN + self.visible)

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        """Returns the squared error of the reconstruction, (N,), whose gradient is replaced by the
        contrastive divergence.

        Contrastive divergence follows the gradient of no function (Sutskever & Tieleman, AISTATS
        2010), and a difference of free energies is 0 for a finished model as for an empty one; so
        the history shows what Hinton's guide says to look at, and the parameters move by the
        difference.
        """
        with torch.autocast(x.device.type, enabled=False):
            v = x.flatten(1)
            error = ((v - self.reconstruct(v)) ** 2).mean(1)
            difference = (self.free_energy(v) - self.negative_energy(v, noise)) / self.visible
            return error.detach() + difference - difference.detach()

    def negative_energy(self, v: Tensor, noise: Tensor) -> Tensor:
        """Returns the mean free energy, (N,), of what the model makes of v in one step and of what
        its chains have come to.

        From the images (contrastive divergence) the model learns best what is normal, but far from
        them it keeps valleys where no image is; the chains (persistent contrastive divergence:
        Tieleman, ICML 2008) find and fill them.
        """
        to_data, to_chains = noise.chunk(2, 1)
        with torch.no_grad():
            near = self.draw_hidden(v, to_data[:, :HIDDEN])
            # of pixels the probabilities: one step from the data they are as good as draws, with
            # less noise (Hinton's guide, section 3.2); the chains are draws
            near = (
                self.mean_visible(near)
                if self.pixels
                else self.draw_visible(near, to_data[:, HIDDEN:])
            )
        # a held-out loss leaves the chains alone
        if not (self.training and torch.is_grad_enabled()):
            return self.free_energy(near)
        with torch.no_grad():
            states = self.chains.repeat(math.ceil(len(v) / CHAINS), 1)[: len(v)]
            far = self.draw_visible(states, to_chains[:, HIDDEN:])
            self.chains[: len(v)] = self.draw_hidden(far, to_chains[:, :HIDDEN])[:CHAINS]
        return 0.5 * (self.free_energy(near) + self.free_energy(far))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the heatmap (N, h, w), higher = more anomalous, and the mean-field reconstruction
        (N, C, h, w).

        A location's value is the squared slope of the free energy there, mean over channels: how
        strongly the model would change it. Zhai et al., "Deep structured energy based models for
        anomaly detection" (ICML 2016), equation 11. For Gaussian units that is the error of the
        reconstruction in units of sigma. For pixels, which are probabilities, the free energy has
        their entropy subtracted, and its slope is the difference of two logits.
        """
        v = x.flatten(1)
        y = self.reconstruct(v)
        slope = logit(v) - logit(y) if self.pixels else (v - y) / self.sigma()
        return (slope**2).unflatten(1, self.shape).mean(1), y.unflatten(1, self.shape)

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        """Returns the free energy in nats per number of the map, (N,); the constant log Z is left
        out.
        """
        return {"free-energy": self.free_energy(x.flatten(1)) / self.visible}

    def sample(self, noise: Tensor) -> Tensor:
        """Returns maps (N, C, h, w), as their means, after 200 Gibbs steps; noise (N, 2).

        They start where the chains of the training ended: from a random state a part of them stays
        for long in valleys that no image is in, the negative of a digit for one. Two normal numbers
        seed all that a chain draws.
        """
        return self.mean_visible(self.gibbs(noise, STEPS)).unflatten(1, self.shape)

    def gibbs(self, noise: Tensor, steps: int) -> Tensor:
        """Returns the hidden units (N, 256) after so many steps of block Gibbs sampling: all of v ~
        p(v | h), then all of h ~ p(h | v), with new random numbers each time.
        """
        seeds = noise[:, :2].float().cpu().contiguous().view(torch.int64)[:, 0].tolist()
        chains = [torch.Generator().manual_seed(seed & (2**63 - 1)) for seed in seeds]
        h = self.chains.repeat(math.ceil(len(noise) / CHAINS), 1)[: len(noise)]
        for _ in range(steps):
            fresh = torch.stack([torch.randn(HIDDEN + self.visible, generator=c) for c in chains])
            fresh = fresh.to(h)
            h = self.draw_hidden(self.draw_visible(h, fresh[:, HIDDEN:]), fresh[:, :HIDDEN])
        return h

    def sample_size(self) -> int:
        return 2

    def encode(self, x: Tensor) -> Tensor:
        """Returns the probability of each hidden unit, (N, 256)."""
        return torch.sigmoid(self.hidden_input(x.flatten(1)))

    # --- the machine: v (N, D), h (N, 256) --------------------------------------------------------
    def free_energy(self, v: Tensor) -> Tensor:
        """Returns F(v) = -log sum_h exp(-E(v, h)), (N,) (Hinton's guide, equation 25)."""
        b = SCALE_RATE_FACTOR * self.visible_bias
        own = -(v @ b) if self.pixels else 0.5 * (((v - b) / self.sigma()) ** 2).sum(1)
        a = self.hidden_input(v)
        return own - (F.softplus(a) - 0.5 * (a - self.hidden_bias)).sum(1)  # a - c = W v

    def hidden_input(self, v: Tensor) -> Tensor:
        return F.linear(v if self.pixels else v / self.sigma(), self.weight, self.hidden_bias)

    def mean_visible(self, h: Tensor) -> Tensor:
        b, joined = SCALE_RATE_FACTOR * self.visible_bias, (h - 0.5) @ self.weight
        return torch.sigmoid(b + joined) if self.pixels else b + self.sigma() * joined

    def reconstruct(self, v: Tensor) -> Tensor:
        return self.mean_visible(torch.sigmoid(self.hidden_input(v)))

    def draw_hidden(self, v: Tensor, noise: Tensor) -> Tensor:
        """Returns h ~ p(h | v) by standard normal noise (N, 256)."""
        return (torch.sigmoid(self.hidden_input(v)) > torch.special.ndtr(noise)).to(v.dtype)

    def draw_visible(self, h: Tensor, noise: Tensor) -> Tensor:
        """Returns v ~ p(v | h) by standard normal noise (N, D)."""
        mean = self.mean_visible(h)
        if self.pixels:
            return (mean > torch.special.ndtr(noise)).to(mean.dtype)
        return mean + self.sigma() * noise

    def sigma(self) -> Tensor:
        """Returns the standard deviation of each visible unit, (D,)."""
        return (
            (SCALE_RATE_FACTOR * self.channel_sigma)
            .exp()
            .expand(-1, self.shape[1] * self.shape[2])
            .flatten()
        )


def logit(p: Tensor) -> Tensor:
    return torch.logit(p, MIN_LOGIT_DISTANCE)
