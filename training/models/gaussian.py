"""The linear Gaussian of maps, from their inner products.

Maps have far more numbers than there are images, so all that is asked of their covariance is found
in the n x n matrix of inner products, which has the same non-zero eigenvalues (Schoelkopf, Smola &
Mueller, "Nonlinear component analysis as a kernel eigenvalue problem", Neural Computation 1998).
Cross-fitting asks for many Gaussians of nearly the same maps: each takes its part of one such
matrix, and a whitened map is a weighted sum of maps, so that no component is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from anomaly.errors import TrainingError
from training.folds import all_alike

MAX_COMPONENTS = 256  # so that the file stays small
# what is added to every variance of the Gaussian, in units of their mean: see
# docs/research/2026-11-settings.md
RIDGE = 2.0
# a component with less variance than this share of the ridge changes nothing
MIN_VARIANCE_RIDGES = 0.02


@dataclass(frozen=True)
class Spectrum:
    """The Gaussian N(mean, U v U' + ridge I) of n maps, float64: U of eigenvectors (n, r) of their
    inner products, v by the eigenvalues (r,), the largest first.
    """

    vectors: Tensor
    values: Tensor
    ridge: Tensor

    @property
    def variances(self) -> Tensor:
        return self.values / len(self.vectors)

    @property
    def gain(self) -> Tensor:
        """Returns what a code is multiplied by, beside what all directions are, (r,)."""
        return (self.variances + self.ridge).rsqrt() - self.ridge.rsqrt()


def spectrum(rows: Tensor, products: Tensor, inspected: float = 1.0) -> Spectrum:
    """Returns the Gaussian of rows (n, D) from their inner products, float64 (n, n).

    Directions whose variance is rounding noise or drowned by the ridge are dropped. ``inspected``:
    the share of D that varies at all. Raises TrainingError where rows are too few or all alike.
    """
    count = len(rows)
    if count < 2:
        raise TrainingError(f"{count} image to fit found, at least 2 expected: add good images")
    values, vectors = (x.flip(-1) for x in torch.linalg.eigh(double_centred(products)))
    # float32 maps of one image seen twice differ by about 1e-7 of their size.
    size = rows.mean(0, dtype=torch.float64).square().sum().clamp(min=1e-12)
    if not values[0] > 1e-12 * count * size:
        raise all_alike(f"all {count} images to fit")
    ridge = RIDGE * values.clamp(min=0).sum() / (count * inspected * rows.shape[1])
    kept = (values > 1e-9 * values[0]) & (values > count * MIN_VARIANCE_RIDGES * ridge)
    kept[MAX_COMPONENTS:] = False
    return Spectrum(vectors[:, kept], values[kept], ridge)


def components(rows: Tensor, gaussian: Spectrum) -> Tensor:
    """Returns U' of the Gaussian of rows (n, D), float64 (r, D), orthonormal rows."""
    scaled = gaussian.vectors / gaussian.values.sqrt()
    return torch.cat([scaled.T @ block for block in centred_blocks(rows)], 1)


@dataclass(frozen=True)
class KnownMaps:
    """Maps, float32 (n, C, h, w), that others are judged by, and their inner products, float64
    (n, n).
    """

    maps: Tensor
    products: Tensor
    gaussian: Spectrum

    @staticmethod
    def of(maps: Tensor, products: Tensor, inspected: float = 1.0) -> KnownMaps:
        """Raises TrainingError where maps are too few or all alike."""
        return KnownMaps(maps, products, spectrum(maps.flatten(1), products, inspected))

    def errors(self, judged: Tensor, products: Tensor) -> Tensor:
        """Returns the heatmaps (m, h, w), higher = more anomalous, of maps, float32 (m, C, h, w),
        without a location scale: those of a LinearAutoencoder fitted to the known maps, but for
        rounding. ``products``: inner products of the maps with the known ones, float64 (m, n).
        """
        among, gaussian = self.products, self.gaussian
        # both less the mean of what is known
        centred = products - products.mean(1, keepdim=True) - among.mean(0) + among.mean()
        codes = centred @ gaussian.vectors  # times the root of the eigenvalues
        weights = (codes * gaussian.gain / gaussian.values) @ gaussian.vectors.T
        scale = gaussian.ridge.rsqrt()
        weights -= weights.mean(1, keepdim=True) + scale / len(among)
        whitened = judged.flatten(1) * scale.float() + weights.float() @ self.maps.flatten(1)
        return whitened.reshape(judged.shape).square().mean(1)


def centred_blocks(rows: Tensor, others: Tensor | None = None) -> Iterator[Tensor]:
    """Yields rows (n, D), or others (m, D), less the mean of the rows, 4096 columns at a time, so
    that memory never holds all of it in float64.
    """
    centred = rows if others is None else others
    for block, mean_of in zip(centred.split(4096, 1), rows.split(4096, 1), strict=True):
        yield block.double() - mean_of.mean(0, dtype=torch.float64)


def inner_products(rows: Tensor, others: Tensor | None = None) -> Tensor:
    """Returns the inner products, float64 (n, n), of rows (n, D) less their mean; or, (m, n), those
    of others (m, D), less the same mean, with them.
    """
    pairs = zip(centred_blocks(rows, others), centred_blocks(rows), strict=True)
    zero = torch.zeros((), dtype=torch.float64, device=rows.device)
    return sum((block @ known.T for block, known in pairs), zero)


def double_centred(products: Tensor) -> Tensor:
    """Returns the inner products, float64 (n, n), of vectors less their mean, from those of the
    vectors.
    """
    means = products.mean(0)
    return products - means - means[:, None] + means.mean()
