"""A verdict on each image (PPM, 8 bits) with ONNX Runtime alone: python score.py detector.onnx
IMAGE...
"""

import sys

import numpy as np
import onnxruntime


def read_ppm(path):
    with open(path, "rb") as file:
        assert file.readline() == b"P6\n"
        width, height = map(int, file.readline().split())
        assert file.readline() == b"255\n"
        return np.frombuffer(file.read(), np.uint8).reshape(height, width, 3)


options = onnxruntime.SessionOptions()
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
for path in sys.argv[2:]:
    images = read_ppm(path)[None]  # uint8 (N, H, W, 3), RGB; other sizes in other calls
    score, is_anomaly, in_range = session.run(
        ["score", "is_anomaly", "in_range"], {"images": images}
    )
    # Unlike the training images: the verdict does not count, and the part is not good.
    verdict = "outside" if not in_range[0] else "flagged" if is_anomaly[0] else "passed"
    print(path, float(score[0]), verdict)
