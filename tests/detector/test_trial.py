"""A foreign file is loaded and run in a process that can be ended, once; a slow one is refused
within its deadline.
"""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

import anomaly.detector.slow_images as slow_images
import anomaly.detector.trial as trial
from anomaly.commands.main import main
from anomaly.detector.file import read_card
from anomaly.detector.training_facts import Ranges
from anomaly.errors import DetectorError
from anomaly.scorer import Scorer
from anomaly.serve.detectors import Detectors
from tests.detector.test_file import changed, edit_card
from tests.support.serving import ROOT, serving

FOR_EVER = 1e5  # seconds: nothing here waits for it
SLOW_HEIGHT = 97  # pixels, that no golden sample has


def before_the_score(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], last: str
) -> None:
    """Adds the sum of ``last``, which is zero, to the score."""
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["true" if name == "score" else name for name in node.output]
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    added = [
        helper.make_node("ReduceSum", [last], ["sum"], keepdims=0),
        helper.make_node("Add", ["true", "sum"], ["score"]),
    ]
    graph.node.extend([*nodes, *added])


def slow_to_load(model: onnx.ModelProto) -> None:
    """Constants alone, so that ONNX Runtime works them out while it loads:
    10^13 multiplications.
    """
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


SLOW: dict[str, Callable[[onnx.ModelProto], None]] = {
    "load": slow_to_load,
    "one operator": slow_in_one_operator,
}


@pytest.mark.parametrize("what", SLOW)
def test_a_file_that_takes_for_ever_is_refused_within_its_deadline_by_every_command(
    what: str,
    run: Path,
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(trial.VARIABLE, "4")
    path = changed(run, tmp_path / "detector.onnx", SLOW[what])
    image = next(parts.rglob("*.png"))
    for arguments in (
        ["verify", str(path)],
        ["score", str(path), str(image), "--out", str(tmp_path / "a.csv")],
    ):
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert (
            said.count("\n") == 1
            and "detector.onnx: not loaded and its golden samples not scored within 4 s" in said
        )
    assert not trial._running  # ended, and not left behind
    assert main(["show", str(path)]) == 0  # which runs nothing


def slow_for(pixels_a_side: int, operators: int = 0) -> Callable[[onnx.ModelProto], None]:
    """10^13 additions in one operator, or as much in many, for images of that height, and one for
    all others.
    """

    def change(model: onnx.ModelProto) -> None:
        nodes = [
            helper.make_node("Shape", ["images"], ["shape"]),
            helper.make_node("Gather", ["shape", "one"], ["height"], axis=0),
            helper.make_node("Equal", ["height", "there"], ["is there"]),
            helper.make_node("Where", ["is there", "huge", "one"], ["side"]),
            helper.make_node("Reshape", ["side", "flat"], ["sides"]),
            helper.make_node("Concat", ["flat", "flat", "sides", "sides"], ["square"], axis=0),
            helper.make_node("ConstantOfShape", ["square"], ["matrix"]),
        ]
        if operators:
            nodes += [helper.make_node("Identity", ["matrix"], ["m0"])]
            nodes += [
                helper.make_node("MatMul", [f"m{i}", "matrix"], [f"m{i + 1}"])
                for i in range(operators)
            ]
        else:
            pool = {"kernel_shape": [2000, 2000], "pads": [1000] * 4}
            nodes += [helper.make_node("AveragePool", ["matrix"], ["m0"], **pool)]
        numbers = {"one": 1, "there": pixels_a_side, "huge": 2000 if operators else 4000}
        constants = {name: np.array(number, np.int64) for name, number in numbers.items()}
        before_the_score(
            model, nodes, {**constants, "flat": np.array([1], np.int64)}, f"m{operators}"
        )

    return change


def test_a_file_that_takes_for_ever_for_its_training_images_alone_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(trial.VARIABLE, "4")
    card = read_card(run)
    assert SLOW_HEIGHT not in {sample["height"] for sample in card.golden["samples"]}
    ranges = {
        **card.training.ranges.to_json(),
        "pixels": [SLOW_HEIGHT**2] * 2,
        "aspect": [1.0, 1.0],
    }

    def change(model: onnx.ModelProto) -> None:
        edit_card(model, training={**card.training.to_json(), "ranges": ranges})
        slow_for(SLOW_HEIGHT)(model)

    path = changed(run, tmp_path / "detector.onnx", change)
    assert main(["verify", str(path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "not scored within 4 s: not used" in said
    assert not trial.was_tried(path.read_bytes())


@pytest.mark.parametrize(
    ("ranges", "sizes"),
    [
        ({}, []),
        ({"pixels": [9216, 9216], "aspect": [1.0, 1.0]}, [(96, 96)]),
        ({"pixels": [100, 10_000], "aspect": [1.0, 1.0]}, [(10, 10), (32, 32), (100, 100)]),
        ({"pixels": [20_000, 20_000], "aspect": [0.5, 2.0]}, [(100, 200), (141, 141), (200, 100)]),
        ({"pixels": [2**64, 2**64], "aspect": [1.0, 1.0]}, [(2048, 2048)]),
        ({"pixels": [1, 2**64], "aspect": [1e-9, 1e9]}, [(1, 10_000), (45, 45), (10_000, 1)]),
    ],
)
def test_the_sizes_tried_are_those_of_the_training_range(
    ranges: dict[str, Any], sizes: list[tuple[int, int]]
) -> None:
    assert trial.training_sizes(Ranges(**ranges)) == sizes


def test_how_long_the_slowest_picture_took_is_remembered(run: Path, tmp_path: Path) -> None:
    path = changed(run, tmp_path / "detector.onnx", lambda model: edit_card(model, name="a fifth"))
    assert trial.trial_seconds(path.read_bytes()) is None
    Scorer(path, device="cpu", threads=1)
    assert 0 < (trial.trial_seconds(path.read_bytes()) or 0) < trial.SECONDS
    # made here: never tried
    assert trial.trial_seconds((run / "detector.onnx").read_bytes()) is None


def test_a_file_is_tried_once_and_remembered_for_this_version(run: Path, tmp_path: Path) -> None:
    path = changed(run, tmp_path / "detector.onnx", lambda model: edit_card(model, name="another"))
    data = path.read_bytes()
    assert not trial.was_tried(data)
    Scorer(path, device="cpu", threads=1)
    assert trial.was_tried(data)
    trial._tried.clear()  # what this process knows: what is on the disk stays
    assert trial.was_tried(data) and not trial.was_tried(data + b"\0")
    # no process is started any more: it would be too late
    trial.try_out(data, [(8, 8, 1, 1)], 1, seconds=1e-9)


def test_what_is_trained_and_recalibrated_here_is_known(run: Path) -> None:
    for name in ("detector.onnx", "explain.onnx"):
        assert trial.was_tried((run / name).read_bytes())


def test_without_a_cache_each_process_tries_for_itself(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(trial.CACHE, str(tmp_path / "file" / "none"))
    path = changed(run, tmp_path / "detector.onnx", lambda model: edit_card(model, name="a third"))
    Scorer(path, device="cpu", threads=1)
    assert trial.was_tried(path.read_bytes())
    trial._tried.clear()
    assert not trial.was_tried(path.read_bytes())


def test_a_file_that_fails_says_why_in_one_line(run: Path, tmp_path: Path) -> None:
    def wrong_shape(model: onnx.ModelProto) -> None:
        before_the_score(
            model,
            [helper.make_node("Reshape", ["true", "shape"], ["x"])],
            {"shape": np.array([7, 7])},
            "x",
        )

    path = changed(run, tmp_path / "detector.onnx", wrong_shape)
    with pytest.raises(
        DetectorError, match=r"detector\.onnx: ONNX Runtime (fails on a golden sample|cannot load)"
    ) as caught:
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
    code = (
        "import sys; from anomaly import Scorer; print(Scorer(sys.argv[1], device='cpu', "
        "threads=1).card.name)"
    )
    root = str(Path(trial.__file__).parents[1])
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            f"import sys; sys.path.insert(0, {root!r}); {code}",
            str(path),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
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
        target=lambda: found.extend(
            (served.name, str(error)) for served, error in detectors.refresh()
        ),
        daemon=True,
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


def resized(parts: Path, folder: Path, height: int) -> Path:
    path = folder / f"{height}.png"
    with Image.open(next(parts.rglob("*.png"))) as opened:
        opened.resize((height, height)).save(path)
    return path


@pytest.fixture
def stuck(run: Path, parts: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A detector that passed its trial, as if of other pictures, and an image for which one
    operator takes for ever.
    """
    path, image = (
        changed(run, tmp_path / "stuck.onnx", slow_for(SLOW_HEIGHT)),
        resized(parts, tmp_path, SLOW_HEIGHT),
    )
    trial.remember(path.read_bytes(), 0.01)
    return path, image


@pytest.mark.parametrize(
    "signals", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGINT], [signal.SIGINT, signal.SIGTERM]]
)
def test_a_service_stops_whatever_its_detector_does(
    signals: list[signal.Signals], stuck: tuple[Path, Path], tmp_path: Path
) -> None:
    path, image = stuck
    seconds = "1" if not signals[1:] else "600"
    with (
        serving(tmp_path / "log", path, "--timeout", seconds, "--workers", "1") as service,
        socket.create_connection(("127.0.0.1", service.port)) as client,
    ):
        data = image.read_bytes()
        client.sendall(
            b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data
        )
        while "anomaly_requests_inside 1.0" not in service.get("/metrics").data.decode():
            time.sleep(0.01)
        time.sleep(0.5)  # until it is in the operator
        for number in signals:
            service.process.send_signal(number)
            time.sleep(0.5)
        # 600 s would be too long
        assert service.process.wait(60) == (0 if not signals[1:] else 128 + signals[1])
    said = (
        "not done within 4 s: they end with the process"
        if not signals[1:]
        else "asked to stop again: ended at once"
    )
    assert said in service.log.read_text()


# --- a score table ---
def test_an_image_that_takes_far_longer_than_the_trial_is_said_and_has_an_error_row(
    run: Path,
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image, other_image = (resized(parts, tmp_path, SLOW_HEIGHT + more) for more in (0, 1))
    path = changed(run, tmp_path / "slow.onnx", slow_for(SLOW_HEIGHT, operators=300))
    trial.remember(path.read_bytes(), 0.01)
    monkeypatch.setenv(slow_images.VARIABLE, "3")
    out = tmp_path / "a.csv"
    assert main(["score", str(path), str(image), str(other_image), "--out", str(out)]) == 3
    slow, other = csv.DictReader(out.read_text().splitlines())
    assert slow["status"] == "error" and "not judged within 3 s" in slow["error"]
    assert other["score"] and other["status"] != "error"
    summary, said = capsys.readouterr()
    assert "1 too slow" in summary
    assert re.search(
        rf"{image.name}: judged for .* far longer than it should take: an error after 3.0 s", said
    ), said


def test_ctrl_c_ends_a_score_table_inside_one_operator_and_keeps_what_was_finished(
    stuck: tuple[Path, Path], parts: Path, tmp_path: Path
) -> None:
    (path, image), other = stuck, resized(parts, tmp_path, SLOW_HEIGHT + 1)
    out = tmp_path / "a.csv"
    command = [sys.executable, "-m", "anomaly", "score", path, other, image, "--out", out]
    allowed = {**os.environ, slow_images.VARIABLE: "2"}
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=allowed
    ) as process:
        try:
            said = ""
            # it cannot be ended within the operator
            while "Ctrl-C ends the run at once" not in said:
                said = process.stderr.readline()  # type: ignore[union-attr]
                assert said
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert "go on" in process.stderr.read()  # type: ignore[union-attr]
        finally:
            process.kill()
    kept = list(out.with_name("a.csv.chunks").glob("*.csv"))
    assert len(kept) == 1 and other.name in kept[0].read_text()


@pytest.mark.parametrize(("tried", "seconds"), [(None, 600), (0.01, 60), (0.6, 60), (2.0, 200)])
def test_the_seconds_for_an_image_are_generous(tried: float | None, seconds: float) -> None:
    assert slow_images.limit_of(tried) == seconds
