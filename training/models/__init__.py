"""The generative models. A new one is a file here and a line below."""

from training.models.autoencoder import ConvolutionalAutoencoder, LinearAutoencoder
from training.models.vae import VAE

MODELS: dict[str, type] = {
    "linear": LinearAutoencoder,
    "autoencoder": ConvolutionalAutoencoder,
    "vae": VAE,
}
