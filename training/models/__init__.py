"""The generative models. A new one is a file here and a line below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from training.models.autoencoder import (
    ConvolutionalAutoencoder,
    DenseAutoencoder,
    LinearAutoencoder,
)
from training.models.boltzmann import BoltzmannMachine
from training.models.diffusion import Diffusion
from training.models.flow import Flow
from training.models.gan import make_gan
from training.models.hmm import HMM
from training.models.pixelcnn import PixelCNN
from training.models.vae import VAE, DenseVAE
from training.protocols import Model


@dataclass(frozen=True)
class ModelKind:
    """How a model is made, and what has to be known of it before it is."""

    make: Callable[..., Model]
    closed_form: bool = False
    pixel_size: int = 128  # pixels a side at which it is fitted to pixels, unless asked otherwise
    score: str = "hottest"  # its own choice among the image scores

    def __call__(
        self,
        channels: int,
        height: int,
        width: int,
        pixels: bool,
        error: str | None = None,
        dropout: float | None = None,
    ) -> Model:
        """Returns a new model of maps (C, h, w); ``error``: what an autoencoder calls an error;
        ``dropout``: of a GAN's discriminator.
        """
        given = {"error": error, "dropout": dropout}
        chosen = {name: value for name, value in given.items() if value is not None}
        return self.make(channels, height, width, pixels, **chosen)


MODELS: dict[str, ModelKind] = {
    "linear": ModelKind(LinearAutoencoder, closed_form=True),
    "autoencoder": ModelKind(ConvolutionalAutoencoder),
    "dense-autoencoder": ModelKind(DenseAutoencoder, pixel_size=32),
    "vae": ModelKind(VAE),
    "dense-vae": ModelKind(DenseVAE, pixel_size=32),
    "gan": ModelKind(make_gan, pixel_size=64),
    "pixelcnn": ModelKind(PixelCNN, pixel_size=32, score="cells"),
    "boltzmann": ModelKind(BoltzmannMachine, pixel_size=32),
    "hmm": ModelKind(HMM, closed_form=True, pixel_size=64),
    "flow": ModelKind(Flow, pixel_size=32),
    "diffusion": ModelKind(Diffusion, pixel_size=32),
}
