"""The doctor says what works by trying it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from anomaly import __version__
from anomaly.errors import AnomalyError
from anomaly.quality.doctor import (
    PACKAGES,
    TINY_MODEL,
    Diagnosis,
    end_to_end,
    examine,
    installed,
    tried,
)
from tests.test_scorer import ROOT, claim


def test_what_is_needed_works_here() -> None:
    findings = {finding.what: finding for finding in examine()}
    needed = ["python", "anomaly", "numpy", "pillow", "onnxruntime", "end to end on cpu"]
    assert [what for what, finding in findings.items() if finding.needed] == needed
    assert all(findings[what].ok for what in needed)
    assert findings["anomaly"].found == __version__
    assert "CPUExecutionProvider" in findings["onnxruntime"].found
    assert findings["end to end on cpu"].found.startswith("works (")
    assert set(findings) == {
        *needed,
        "end to end on cuda",
        *(name for names in PACKAGES.values() for name in names),
    }


def test_cuda_is_said_to_work_only_where_it_does() -> None:
    finding = next(finding for finding in examine() if finding.what == "end to end on cuda")
    assert not finding.needed
    assert finding.ok == finding.found.startswith("works (")
    if not finding.ok:
        assert finding.found in (
            "not listed by this package of ONNX Runtime",
            "listed, but it cannot be used here (no NVIDIA GPU or no driver)",
        )


def test_the_tiny_model_is_a_sound_onnx_file() -> None:
    model = onnx.load_from_string(TINY_MODEL)
    onnx.checker.check_model(model)
    assert [(node.op_type, node.domain) for node in model.graph.node] == [("Sub", ""), ("Abs", "")]
    with pytest.raises(AnomalyError, match="not listed by this package of ONNX Runtime"):
        end_to_end("NoExecutionProvider")


def test_a_package_that_is_not_there_names_the_extra() -> None:
    assert installed("no-such-package", "batch") == Diagnosis(
        "no-such-package", "not installed: pip install 'anomaly[batch]'", False
    )


def test_whatever_an_attempt_throws_is_a_finding() -> None:
    def broken() -> str:
        raise ZeroDivisionError("first\nsecond")

    assert tried("thing", broken, needed=True) == Diagnosis(
        "thing", "ZeroDivisionError: first", False, needed=True
    )
    assert tried("thing", lambda: "1.2") == Diagnosis("thing", "1.2", True)


def test_two_builds_of_onnx_runtime_are_found_and_fail_the_command(tmp_path: Path) -> None:
    path = os.pathsep.join([str(claim(tmp_path, "onnxruntime", "onnxruntime-gpu")), str(ROOT)])
    command = [sys.executable, "-m", "anomaly", "doctor", "--json"]
    ran = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120
    )
    findings = {finding["what"]: finding for finding in json.loads(ran.stdout)}
    assert (ran.returncode, ran.stderr) == (1, "")
    assert not findings["onnxruntime"]["ok"] and not findings["end to end on cpu"]["ok"]
    assert findings["onnxruntime"]["found"].startswith(
        "both onnxruntime and onnxruntime-gpu are installed"
    )
    assert findings["numpy"]["ok"]
