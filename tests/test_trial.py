"""A foreign file is loaded and run in a process that can be ended, once; a slow one is refused within its deadline."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import anomaly.trial as trial
from anomaly.cli import main
from anomaly.errors import DetectorError
from anomaly.scorer import Scorer
from anomaly.serve.detectors import Detectors
from tests.test_detector import changed, edit_card

FOR_EVER = 1e5  # seconds: nothing here waits for it


def before_the_score(model: onnx.ModelProto, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], last: str) -> None:
    """Adds the sum of ``last``, which is zero, to the score."""
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["true" if name == "score" else name for name in node.output]
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    added = [helper.make_node("ReduceSum", [last], ["sum"], keepdims=0), helper.make_node("Add", ["true", "sum"], ["score"])]
    graph.node.extend([*nodes, *added])


def slow_to_load(model: onnx.ModelProto) -> None:
    """Constants alone, so that ONNX Runtime works them out while it loads: 10^13 multiplications."""
    nodes = [helper.make_node("Expand", ["zero", "shape"], ["x0"])]
    nodes += [helper.make_node("MatMul", [f"x{i}", "x0"], [f"x{i + 1}"]) for i in range(3000)]
    shape = np.array([2000, 2000], np.int64)
    before_the_score(model, nodes, {"zero": np.float32(0), "shape": shape}, "x3000")


def slow_in_one_operator(model: onnx.ModelProto) -> None:
    """10^13 additions in one operator, of what the image decides."""
    nodes = [
        helper.make_node("ReduceMax", ["true"], ["moving"], keepdims=0),
        helper.make_node("Mul", ["moving", "zero"], ["nothing"]),
        helper.make_node("Expand", ["nothing", "shape"], ["x"]),
        helper.make_node("AveragePool", ["x"], ["pooled"], kernel_shape=[2000, 2000]),
    ]
    shape = np.array([1, 1, 4000, 4000], np.int64)
    before_the_score(model, nodes, {"zero": np.float32(0), "shape": shape}, "pooled")


SLOW: dict[str, Callable[[onnx.ModelProto], None]] = {"load": slow_to_load, "one operator": slow_in_one_operator}


@pytest.mark.parametrize("what", SLOW)
def test_a_file_that_takes_for_ever_is_refused_within_its_deadline_by_every_command(
    what: str, run: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(trial.VARIABLE, "4")
    path = changed(run, tmp_path / "detector.onnx", SLOW[what])
    image = next(parts.rglob("*.png"))
    for arguments in (["verify", str(path)], ["score", str(path), str(image), "--out", str(tmp_path / "a.csv")]):
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "detector.onnx: not loaded and its golden samples not scored within 4 s" in said
    assert not trial._running  # ended, and not left behind
    assert main(["show", str(path)]) == 0  # which runs nothing


def test_a_file_is_tried_once_and_remembered_for_this_version(run: Path, tmp_path: Path) -> None:
    path = changed(run, tmp_path / "detector.onnx", lambda model: edit_card(model, name="another"))
    data = path.read_bytes()
    assert not trial.was_tried(data)
    Scorer(path, device="cpu", threads=1)
    assert trial.was_tried(data)
    trial._tried.clear()  # what this process knows: what is on the disk stays
    assert trial.was_tried(data) and not trial.was_tried(data + b"\0")
    trial.try_out(data, [(8, 8, 1, 1)], 1, seconds=1e-9)  # no process is started any more: it would be too late


def test_what_is_trained_and_recalibrated_here_is_known(run: Path) -> None:
    for name in ("detector.onnx", "explain.onnx"):
        assert trial.was_tried((run / name).read_bytes())


def test_without_a_cache_each_process_tries_for_itself(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(trial.CACHE, str(tmp_path / "file" / "none"))
    path = changed(run, tmp_path / "detector.onnx", lambda model: edit_card(model, name="a third"))
    Scorer(path, device="cpu", threads=1)
    assert trial.was_tried(path.read_bytes())
    trial._tried.clear()
    assert not trial.was_tried(path.read_bytes())


def test_a_file_that_fails_says_why_in_one_line(run: Path, tmp_path: Path) -> None:
    def wrong_shape(model: onnx.ModelProto) -> None:
        before_the_score(model, [helper.make_node("Reshape", ["true", "shape"], ["x"])], {"shape": np.array([7, 7])}, "x")

    path = changed(run, tmp_path / "detector.onnx", wrong_shape)
    with pytest.raises(DetectorError, match=r"detector\.onnx: ONNX Runtime (fails on a golden sample|cannot load)") as caught:
        Scorer(path, device="cpu", threads=1)
    assert "\n" not in str(caught.value)
    assert not trial.was_tried(path.read_bytes())


@pytest.mark.parametrize("text", ["0", "-1", "x", "nan", "inf", "1e9"])
def test_the_seconds_of_a_trial_are_a_number(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trial.VARIABLE, text)
    with pytest.raises(DetectorError, match="seconds above 0 expected"):
        trial.seconds_allowed()


def test_the_child_imports_from_where_the_parent_does_and_not_from_the_folder_it_runs_in(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "json", "struct"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    path = changed(run, tmp_path / "detector.onnx", lambda model: edit_card(model, name="a fourth"))
    code = "import sys; from anomaly import Scorer; print(Scorer(sys.argv[1], device='cpu', threads=1).card.name)"
    root = str(Path(trial.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {root!r}); {code}", str(path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.split() == ["a", "fourth"], done.stderr


# --- a service ---
def test_a_service_reloads_the_others_and_stops_while_one_is_being_tried(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trial.VARIABLE, str(FOR_EVER))
    slow, other = tmp_path / "slow.onnx", tmp_path / "other.onnx"
    for path in (slow, other):
        path.write_bytes((run / "detector.onnx").read_bytes())
    detectors = Detectors([slow, other], device="cpu")
    changed(run, slow, slow_to_load)
    changed(run, other, lambda model: edit_card(model, version="2"))
    assert detectors.refresh() == []  # has to look the same twice
    found: list[tuple[str, str]] = []
    thread = threading.Thread(
        target=lambda: found.extend((served.name, str(error)) for served, error in detectors.refresh()), daemon=True
    )
    thread.start()
    while thread.is_alive() and detectors.get("other").scorer.card.version != "2":  # type: ignore[union-attr]
        time.sleep(0.05)
    assert thread.is_alive()  # the slow one is still being tried
    detectors.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert [name for name, _ in found] == ["slow", "other"]
    assert "the process that tried it out ended" in found[0][1] and found[1][1] == "None"
    assert detectors.get("slow").scorer.card.version == "1"  # type: ignore[union-attr]
    assert detectors.refresh() == []
