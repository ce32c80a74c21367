"""A torch module as a session of ONNX Runtime, exported as training exports its models."""

from __future__ import annotations

import io

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from training.export import quiet


def to_session(module: nn.Module, example: Tensor) -> onnxruntime.InferenceSession:
    """Returns a session on the CPU that takes ``x`` (N, ...) of any N."""
    with quiet():
        program = torch.onnx.export(
            module.eval(),
            (example[:2],),
            dynamo=True,
            opset_version=18,
            external_data=False,
            input_names=["x"],
            dynamic_shapes={"x": {0: "N"}},
        )
    buffer = io.BytesIO()
    onnx.save_model(program.model_proto, buffer)
    return onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
