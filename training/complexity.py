"""How complex an image is by itself: the length of a simple lossless code of it, in nats, inside
the graph.

A likelihood model finds plain images likely whatever it was trained on; minus their complexity its
score is a ratio of two likelihoods, the model's and a universal code's. Serra et al., "Input
complexity and out-of-distribution detection with likelihood-based generative models" (ICLR 2020),
equation 1, take the length of a PNG. Here: PNG's predictions, whose residuals are coded as JPEG-LS
and its kin do, adaptively in the context of the residuals around; as it needs no strings of bits,
only their number, it is a formula, and exports to ONNX.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

CLASSES = 9  # of residuals by their number of bits: 0, 1, 2-3, 4-7, ... 128


def complexity(x: Tensor) -> Tensor:
    """Returns the nats of each image's code, (N,), from pixels (N, C, H, W) in 0..1, rounded to the
    nearest of 256 levels.

    The best of PNG's five predictions serves the whole image.
    """
    levels = (x.float() * 255.0).round().clamp(0.0, 255.0)
    lengths = [code_length(levels - prediction) for prediction in predictions(levels)]
    return torch.stack(lengths).amin(0) + math.log(len(lengths))


def predictions(levels: Tensor) -> list[Tensor]:
    """Returns PNG's filters none, sub, up, average and Paeth (RFC 2083, section 6), each shaped
    like levels.
    """
    left, up, corner = shifted(levels, 0, 1), shifted(levels, 1, 0), shifted(levels, 1, 1)
    straight = left + up - corner
    from_left, from_up, from_corner = ((straight - value).abs() for value in (left, up, corner))
    paeth = torch.where(from_up <= from_corner, up, corner)
    paeth = torch.where((from_left <= from_up) & (from_left <= from_corner), left, paeth)
    return [torch.zeros_like(levels), left, up, ((left + up) / 2).floor(), paeth]


def code_length(residual: Tensor) -> Tensor:
    """Returns the nats of each image's residuals, (N,), from whole numbers (N, C, H, W).

    A residual's class is its number of bits, coded under the counts so far in its context, which is
    the class of the residuals beside and above it together; its sign and the bits below the first
    are coded as they are.
    """
    size = (torch.remainder(residual + 128.0, 256.0) - 128.0).abs()  # modulo 256, as PNG's
    bits = bit_length(size)
    context = bit_length(shifted(size, 0, 1) + shifted(size, 1, 0)).clamp(max=CLASSES - 1.0)
    cell = (CLASSES * context + bits).flatten(1).long()
    counts = torch.zeros_like(cell[:, :1], dtype=size.dtype).repeat(1, CLASSES**2)
    counts = counts.scatter_add(1, cell, torch.ones_like(cell, dtype=size.dtype))
    return adaptive_length(counts.unflatten(1, (CLASSES, CLASSES))).sum(1) + math.log(2) * bits.sum(
        (1, 2, 3)
    )


def adaptive_length(counts: Tensor) -> Tensor:
    """Returns the nats of symbols that occur so often, (N, k), from counts (N, k, symbols), coded
    by the counts so far.

    Krichevsky & Trofimov, "The performance of universal encoding" (IEEE Trans. Information Theory
    1981): each symbol has seen half an occurrence before the first. The product of these
    probabilities is a ratio of gamma functions.
    """
    m = counts.shape[2]
    symbols = (log_gamma(counts + 0.5) - math.lgamma(0.5)).sum(2)
    return log_gamma(counts.sum(2) + 0.5 * m) - math.lgamma(0.5 * m) - symbols


def log_gamma(x: Tensor) -> Tensor:
    """Returns log gamma(x) for x >= 0.5, within 1e-4: Stirling's series at x + 1 (ONNX has no such
    operator).
    """
    y = x + 1
    return (
        (y - 0.5) * y.log()
        - y
        + 0.5 * math.log(2 * math.pi)
        + 1 / (12 * y)
        - 1 / (360 * y**3)
        - x.log()
    )


def bit_length(size: Tensor) -> Tensor:
    """Returns the number of binary digits of whole numbers 0..511: 0 of 0, 1 of 1, 2 of 2 and 3,
    ...
    """
    return torch.floor(torch.log2(size + 0.5)) + 1


def shifted(x: Tensor, down: int, right: int) -> Tensor:
    """Returns x (N, C, H, W) moved down and right, with zeros where nothing came from."""
    height, width = x.shape[2:]
    return F.pad(x, (right, 0, down, 0))[:, :, :height, :width]
