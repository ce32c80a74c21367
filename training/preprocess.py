"""uint8 pixels of any size -> float pixels of the model's size. The one resize there is: it trains and it is exported."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TARGETS = ("ort", "portable")


class Preprocess(nn.Module):
    """Squashes images to ``size`` x ``size`` with an antialiased (triangle) filter and scales them to 0..1.

    ``target="portable"`` computes the same filter as two matrix products, because OpenVINO ignores the
    ``antialias`` attribute of ONNX's Resize without a word and TensorRT rejects it.
    """

    def __init__(self, size: int, target: str = "ort") -> None:
        super().__init__()
        if target not in TARGETS:
            raise ValueError(f"target {target!r} found, one of {TARGETS} expected")
        self.size = size
        self.target = target

    def forward(self, images: Tensor) -> Tensor:
        """Returns float32 (N, 3, size, size) in 0..1 from uint8 (N, H, W, 3), any H, W >= 1."""
        x = images.permute(0, 3, 1, 2).float()
        if self.target == "ort":
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        else:
            rows = triangle_weights(images.shape[1], self.size, x)  # (s, H)
            columns = triangle_weights(images.shape[2], self.size, x)  # (s, W)
            x = rows @ x @ columns.transpose(0, 1)
        return x / 255.0


def triangle_weights(length: int, size: int, like: Tensor) -> Tensor:
    """Returns the (size, length) matrix that resamples a line of ``length`` pixels to ``size`` (rows sum to 1)."""
    positions = torch.arange(length, device=like.device, dtype=torch.float32)
    # The length is taken from a tensor, so that the exported graph keeps it open.
    scale = torch.ones_like(positions).sum() / size
    centres = (torch.arange(size, device=like.device, dtype=torch.float32) + 0.5) * scale  # (s,)
    distance = (positions[None, :] + 0.5 - centres[:, None]) / scale.clamp(min=1.0)
    weights = (1.0 - distance.abs()).clamp(min=0.0)
    return weights / weights.sum(1, keepdim=True)
