"""The generative models. A new one is a file here and a line below."""

from training.models.autoencoder import (
    ConvolutionalAutoencoder,
    DenseAutoencoder,
    LinearAutoencoder,
)
from training.models.boltzmann import BoltzmannMachine
from training.models.flow import Flow
from training.models.gan import GAN
from training.models.hmm import HMM
from training.models.pixelcnn import PixelCNN
from training.models.vae import VAE, DenseVAE

MODELS: dict[str, type] = {
    "linear": LinearAutoencoder,
    "autoencoder": ConvolutionalAutoencoder,
    "dense-autoencoder": DenseAutoencoder,
    "vae": VAE,
    "dense-vae": DenseVAE,
    "gan": GAN,
    "pixelcnn": PixelCNN,
    "boltzmann": BoltzmannMachine,
    "hmm": HMM,
    "flow": Flow,
}
