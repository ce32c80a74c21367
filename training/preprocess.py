"""uint8 pixels of any size -> float pixels of the model's size. The one resize there is: it trains
and it is exported.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TARGETS = ("ort", "portable")


class Preprocess(nn.Module):
    """Squashes images to ``size`` x ``size`` with an antialiased (triangle) filter and scales them
    to 0..1.

    ``width``: None, or the width where ``size`` is the height alone.

    ``target="portable"`` computes the same filter as two matrix products, because OpenVINO ignores
    the ``antialias`` attribute of ONNX's Resize without a word and TensorRT rejects it. ``mask``:
    bool (h, w), false where pixels are to be ignored (see anomaly.imaging.mask); None: none are.
    """

    mask: Tensor | None

    def __init__(
        self, size: int, target: str = "ort", mask: Tensor | None = None, width: int | None = None
    ) -> None:
        super().__init__()
        if target not in TARGETS:
            raise ValueError(f"target {target!r} found, one of {TARGETS} expected")
        self.size = size
        self.shape = (size, width or size)
        self.target = target
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Returns float32 (N, 3, size, width) in 0..1 from uint8 (N, H, W, 3), any H, W >= 1.

        What the mask leaves out has the mean colour of what it does not, image by image. It is
        taken out before the resize: afterwards its colour would already be in the pixels beside it.
        """
        x = images.permute(0, 3, 1, 2).float()
        if self.mask is None:
            return self.resize(x) / 255.0
        # (1, 1, H, W)
        inside = stretched(self.mask, images.shape[1], images.shape[2])[None, None].float()
        # share: of each pixel, what is inspected
        x, share = self.resize(x * inside), self.resize(inside)
        # (N, 3, 1, 1); of an image too small for anything to be inside: grey
        mean = (x.sum((2, 3), keepdim=True) + 128e-6) / (share.sum() + 1e-6)
        return (x + (1 - share) * mean) / 255.0

    def resize(self, x: Tensor) -> Tensor:
        """Returns (N, C, size, width) from float32 (N, C, H, W), in the same unit."""
        if self.target == "ort":
            return F.interpolate(
                x, self.shape, mode="bilinear", antialias=True, align_corners=False
            )
        rows = triangle_weights(x.shape[2], self.shape[0], x)  # (s, H)
        columns = triangle_weights(x.shape[3], self.shape[1], x)  # (s, W)
        return rows @ x @ columns.transpose(0, 1)

    def coverage(self, side: int, width: int | None = None) -> Tensor | None:
        """Returns the share of each of ``side`` x ``width`` cells (a square) that is inspected,
        float32, or None: no mask.
        """
        return (
            None
            if self.mask is None
            else F.adaptive_avg_pool2d(self.mask[None].float(), (side, width or side))[0]
        )


def stretched(mask: Tensor, height: int, width: int) -> Tensor:
    """Returns the mask over an image, bool (height, width): a pixel is inspected where all of the
    mask over it is.

    In whole numbers, which are the same in every runtime. (Of a mask finer than the image the
    corners of a pixel count.)
    """
    for axis, length in ((1, width), (0, height)):  # rows last: whole ones are copied fast
        cells, pixel = mask.shape[axis], torch.arange(length, device=mask.device)
        first, last = pixel * cells // length, ((pixel + 1) * cells - 1) // length
        mask = mask.index_select(axis, first) & mask.index_select(axis, last)
    return mask


def triangle_weights(length: int, size: int, like: Tensor) -> Tensor:
    """Returns the (size, length) matrix that resamples a line of ``length`` pixels to ``size``
    (rows sum to 1).
    """
    positions = torch.arange(length, device=like.device, dtype=torch.float32)
    # The length is taken from a tensor, so that the exported graph keeps it open.
    scale = torch.ones_like(positions).sum() / size
    centres = (torch.arange(size, device=like.device, dtype=torch.float32) + 0.5) * scale  # (s,)
    distance = (positions[None, :] + 0.5 - centres[:, None]) / scale.clamp(min=1.0)
    weights = (1.0 - distance.abs()).clamp(min=0.0)
    return weights / weights.sum(1, keepdim=True)
