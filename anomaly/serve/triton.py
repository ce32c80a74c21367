"""A detector as a model repository of NVIDIA's Triton Inference Server.

    DIR/NAME/config.pbtxt
    DIR/NAME/1/model.onnx        the version of the card, where that is a number

https://docs.nvidia.com/deeplearning/triton-inference-server: model_configuration. Triton batches
requests whose images have the same size; scores of a batch are those of single images to 1e-5 of
threshold - typical.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from anomaly.detector.file import find_detector, read_checked
from anomaly.errors import AnomalyError
from anomaly.files.atomic import write_atomically
from anomaly.scorer import Scorer
from anomaly.serve.names import name_of

TYPES = {"float32": "TYPE_FP32", "bool": "TYPE_BOOL", "uint8": "TYPE_UINT8"}
CONFIG = """# {identity}
# On a GPU set NVIDIA_TF32_OVERRIDE=0: with TF32 scores are not those that the threshold was set \
with.
name: {name}
backend: "onnxruntime"
max_batch_size: {batch}
input [
  {{ name: "images" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }}
]
output [
{outputs}
]
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
instance_group [ {{ kind: {kind} count: 1 }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{threads}" }} }}
"""


def export_triton(
    run: Path,
    out: Path,
    *,
    device: str = "cpu",
    batch: int = 8,
    delay: int = 2000,
    threads: int = 1,
) -> Path:
    """Writes the detector into the model repository ``out`` and returns its folder there.

    ``device``: ``cpu`` or ``cuda``. ``batch``: images judged together at the most; ``delay``:
    microseconds to wait for them. Raises AnomalyError where the repository has that version
    already.
    """
    file = find_detector(run)
    data, card = read_checked(file)
    name = re.sub(r"[^\w.-]", "_", name_of(run), flags=re.ASCII)
    version = card.version if card.version.isdecimal() and int(card.version) > 0 else "1"
    folder, model = out / name, out / name / version / "model.onnx"
    if model.exists():
        raise AnomalyError(
            f"{model} is there already; a model in use must not change: remove it, or choose "
            "another --to folder"
        )
    outputs = Scorer(file, device="cpu").outputs
    config = CONFIG.format(
        identity=json.dumps(card.identity),
        name=json.dumps(name),
        batch=batch,
        outputs=_outputs(outputs),
        delay=delay,
        kind="KIND_GPU" if device == "cuda" else "KIND_CPU",
        threads=threads,
    )
    model.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.pbtxt", config.encode())
    write_atomically(model, data)
    return folder


def _outputs(outputs: Mapping[str, tuple[str, list[int]]]) -> str:
    lines = []
    for name, (kind, shape) in outputs.items():
        # One value an image: Triton knows no empty dims, so it gives them as (N, 1).
        dims = (
            f"dims: [ {', '.join(map(str, shape[1:]))} ]"
            if shape[1:]
            else "dims: [ 1 ] reshape: { shape: [ ] }"
        )
        lines.append(f'  {{ name: "{name}" data_type: {TYPES[kind]} {dims} }}')
    return ",\n".join(lines)
