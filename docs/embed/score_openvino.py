"""A result for each image (JPEG, PNG, BMP ... of 8 bits) in OpenVINO:
python score_openvino.py detector.onnx IMAGE...

The detector has to be a portable one (anomaly train or calibrate --target portable): of any other
OpenVINO silently ignores how it shrinks images. So the golden samples of its card are scored first.
"""

import json
import sys

import numpy as np
import onnx
import openvino
from PIL import Image, ImageOps


def read_pixels(path):
    image = ImageOps.exif_transpose(Image.open(path))  # as the card's rule of decoding says
    if image.mode.startswith(("I", "F")) or image.has_transparency_data:
        sys.exit(f"{path}: 8 bits a channel without transparency expected")
    return np.asarray(image.convert("RGB"))


def golden_picture(height, width, a, b):
    y, x, c = np.ogrid[:height, :width, :3]
    return ((a * x + b * y + ((x * y) >> 4) + 64 * c) & 255).astype(np.uint8)


if len(sys.argv) < 3:
    sys.exit("use: python score_openvino.py detector.onnx IMAGE...")
card = json.loads(onnx.load(sys.argv[1]).metadata_props[0].value)
model = openvino.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
typical = card["calibration"]["m"]
for sample in card["golden"]["samples"]:
    picture = golden_picture(*(sample[name] for name in ("height", "width", "a", "b")))
    score, right = model(picture[None])["score"][0], sample["score"]
    if not abs(score - right) <= max(card["golden"]["tolerance"], 1e-5 * abs(right - typical)):
        sys.exit(
            f"a golden sample scores {score} instead of {right}: calibrate with --target portable"
        )
for path in sys.argv[2:]:
    found = model(read_pixels(path)[None])
    result = (
        "outside" if not found["in_range"][0] else "flagged" if found["is_anomaly"][0] else "passed"
    )
    print(path, float(found["score"][0]), result)
