"""A result for each image (JPEG, PNG, BMP ... of 8 bits) with ONNX Runtime alone:
python score.py detector.onnx IMAGE...
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def read_pixels(path):
    image = ImageOps.exif_transpose(Image.open(path))  # as the card's rule of decoding says
    if image.mode.startswith(("I", "F")):
        sys.exit(f"{path}: more than 8 bits a channel found; see the card's rule of decoding")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))


if len(sys.argv) < 3:
    sys.exit("use: python score.py detector.onnx IMAGE...")
options = onnxruntime.SessionOptions()
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
for path in sys.argv[2:]:
    images = read_pixels(path)[None]  # uint8 (N, H, W, 3), RGB; other sizes in other calls
    score, is_anomaly, in_range = session.run(
        ["score", "is_anomaly", "in_range"], {"images": images}
    )
    # Unlike the training images: not judged, and never good.
    result = "outside" if not in_range[0] else "flagged" if is_anomaly[0] else "passed"
    print(path, float(score[0]), result)
