"""A graph that flags by anything else than what its card says is refused, whichever program would
run it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from anomaly.commands.main import main
from anomaly.detector.calibration_nodes import alone, check_calibration, set_calibration
from anomaly.detector.file import CalibrationImages, read_card, recalibrate
from anomaly.detector.golden_check import check_flags
from anomaly.detector.graph import check_wiring, read_model
from anomaly.errors import DetectorError
from anomaly.quality.moved_threshold import nearest, with_rank, write_moved
from anomaly.scorer import Scorer
from anomaly.statistics.calibration import Calibration, calibrate
from tests.detector.test_file import changed, edit_card

Change = Callable[[onnx.ModelProto], object]


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.name == f"calibration.{name}")


def constant(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def edit(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == f"calibration.{name}")
        tensor.CopyFrom(
            numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name)
        )

    return edit


def between(output: str, operator: str, **constants: np.ndarray) -> Change:
    """Puts an operator between what makes an output and the output."""

    def edit(model: onnx.ModelProto) -> None:
        for n in model.graph.node:
            for at, name in enumerate(n.output):
                if name == output:
                    n.output[at] = "true"
        model.graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in constants.items()
        )
        model.graph.node.append(
            helper.make_node(operator, ["true", *constants], [output], name="judge/last")
        )

    return edit


def another_score(model: onnx.ModelProto) -> None:
    """The flag is that of another score than the one that the file gives."""
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
    model.graph.node.append(
        helper.make_node("Mul", ["score", "nothing"], ["other"], name="judge/other")
    )
    for name in ("column", "normal"):
        node(model, name).input[0] = "other"


def as_a_node(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "calibration.threshold")
    value = numpy_helper.from_array(np.float32(1e30), "value")
    model.graph.initializer.remove(tensor)
    model.graph.node.insert(
        0, helper.make_node("Constant", [], ["calibration.threshold"], name="judge/c", value=value)
    )


def as_an_input(model: onnx.ModelProto) -> None:
    """A constant that is an input too is only the default: who runs the file may put another in its
    place.
    """
    model.graph.input.append(
        helper.make_tensor_value_info("calibration.threshold", onnx.TensorProto.FLOAT, [])
    )


def in_range_by_the_flag(model: onnx.ModelProto) -> None:
    between("in_range", "And")(model)
    model.graph.node[-1].input.append("calibration.normal")


def a_fixed_range(model: onnx.ModelProto) -> None:
    between("in_range", "Identity")(model)
    model.graph.initializer.append(numpy_helper.from_array(np.array([True]), "yes"))
    model.graph.node[-1].input[0] = "yes"


def without(model: onnx.ModelProto, name: str) -> None:
    model.graph.output.remove(next(o for o in model.graph.output if o.name == name))


def nan(values: np.ndarray) -> np.ndarray:
    return np.full_like(values, np.nan)


CONTRADICTIONS: dict[str, Change] = {
    "a threshold of 1e30": constant("threshold", lambda v: np.float32(1e30) + 0 * v),
    "a threshold of -1e30": constant("threshold", lambda v: np.float32(-1e30) + 0 * v),
    "a threshold that is not a number": constant("threshold", nan),
    "a threshold in the last place": constant(
        "threshold", lambda v: np.nextafter(v, np.float32(9))
    ),
    "a threshold of another shape": constant("threshold", lambda v: v[None]),
    "a threshold of another type": constant("threshold", lambda v: v.astype(np.float64)),
    "other scores": constant("scores", lambda v: v + 1),
    "fewer scores": constant("scores", lambda v: v[:, 1:]),
    "another denominator": constant("denominator", lambda v: v + 1),
    "another one": constant("one", lambda v: 0 * v),
    "a threshold made by a node": as_a_node,
    "a threshold that can be set from outside": as_an_input,
    "and false": between("is_anomaly", "And", no=np.array(False)),
    "not": between("is_anomaly", "Not"),
    "an operator between that changes nothing": between("is_anomaly", "Identity"),
    "a p-value that is scaled": between("p_value", "Mul", half=np.float32(0.5)),
    "less for less or equal": lambda m: setattr(node(m, "normal"), "op_type", "Less"),
    "greater for less or equal": lambda m: setattr(node(m, "normal"), "op_type", "GreaterOrEqual"),
    "the two sides swapped": lambda m: node(m, "normal").input.reverse(),
    "nothing negated": lambda m: setattr(node(m, "is_anomaly"), "op_type", "Identity"),
    "another sum": lambda m: node(m, "count").attribute.append(
        helper.make_attribute("noop_with_empty_axes", 1)
    ),
    "another score": another_score,
    "no flag": lambda m: without(m, "is_anomaly"),
    "no p-value": lambda m: without(m, "p_value"),
    "no calibration in the card": lambda m: edit_card(m, calibration=None),
    "no calibration in the graph": lambda m: set_calibration(m, None),
    "a further node of that name": lambda m: m.graph.node.append(
        helper.make_node("Identity", ["score"], ["more"], name="calibration.more")
    ),
    "a further constant of that name": lambda m: m.graph.initializer.append(
        numpy_helper.from_array(np.float32(1), "calibration.more")
    ),
    "a range that depends on the flag": in_range_by_the_flag,
    "a range that does not depend on the image": a_fixed_range,
    "a name made twice": lambda m: m.graph.node.append(
        helper.make_node("Identity", ["images"], ["score"], name="judge/x")
    ),
    "a second input": lambda m: m.graph.input.append(
        helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1])
    ),
    "two cards": lambda m: m.metadata_props.append(m.metadata_props[0]),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_graph_and_a_card_that_contradict_are_refused(
    what: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed(run, tmp_path / "detector.onnx", CONTRADICTIONS[what])
    with pytest.raises(
        DetectorError,
        match=r"contradict|is made twice|found in the graph|depend on the image|found twice",
    ):
        read_card(path)
    assert main(["verify", str(path), "--device", "cpu"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "detector.onnx: " in said.err


def test_a_card_with_other_scores_than_the_graph_is_refused(run: Path, tmp_path: Path) -> None:
    card = read_card(run)
    assert card.calibration is not None
    for scores, k in ((card.calibration.scores * np.float32(2), 1), (card.calibration.scores, 2)):
        other = with_rank(Calibration(scores, 1), k)
        training = {
            **card.training.to_json(),
            "target_rate": other.target_rate,
            "size_sensitivity": None,
            "cost": None,
        }  # else these contradict it first
        fields = {"calibration": other.to_json(), "training": training}
        path = changed(
            run, tmp_path / "detector.onnx", lambda m, fields=fields: edit_card(m, **fields)
        )
        with pytest.raises(
            DetectorError, match=r"graph's (scores|threshold) is not that of the card"
        ):
            read_card(path)


def test_what_this_program_writes_never_contradicts(
    run: Path, pixel_run: Path, rank_only: Path, tmp_path: Path
) -> None:
    card = read_card(run)
    assert card.calibration is not None
    scores = np.random.default_rng(0).normal(size=300).astype(np.float32)
    recalibrate(
        run,
        calibrate(scores, 0.1),
        tmp_path / "a.onnx",
        CalibrationImages(highest=[], count=300, groups=300),
        version="2",
    )
    recalibrate(
        run,
        calibrate(np.ones(9)),
        tmp_path / "b.onnx",
        CalibrationImages(highest=[], count=9, groups=9),
        version="3",
    )
    write_moved(run, nearest(card.calibration, 0.0), tmp_path / "c.onnx", by="me")
    for path in (run, pixel_run, rank_only, *sorted(tmp_path.glob("*.onnx"))):
        assert Scorer(path, device="cpu", threads=1, verify=True).card.digest


@pytest.mark.parametrize(
    "scores",
    [[0.25], [1.0, 1.0, 1.0], list(np.linspace(-3, 3, 1001))],
    ids=["one", "equal", "many"],
)
def test_the_calibration_part_is_right_on_both_sides_of_the_threshold_and_is_read_as_it_was_written(
    scores: list[float],
) -> None:
    calibration = calibrate(scores)
    session = onnxruntime.InferenceSession(alone(calibration), providers=["CPUExecutionProvider"])
    exact, infinite = calibration.scores, np.float32(np.inf)
    tried = np.concatenate(
        [np.nextafter(exact, -infinite), exact, np.nextafter(exact, infinite), [np.nan, infinite]]
    )
    p_value, flag = session.run(["p_value", "is_anomaly"], {"score": tried.astype(np.float32)})
    assert flag.tolist() == calibration.is_anomaly(tried).tolist() and {True, False} == set(
        flag.tolist()
    )
    assert p_value.tolist() == calibration.p_value(tried).astype(np.float32).tolist()
    written = onnx.load_model_from_string(alone(calibration))
    onnx.checker.check_model(written)
    graph = read_model(memoryview(alone(calibration))).graph
    with pytest.raises(DetectorError, match="not made by an operator of the model"):
        check_calibration(graph, calibration)  # alone it is no detector
    with pytest.raises(DetectorError, match="'images' alone expected"):
        check_wiring(graph)


def test_a_runtime_that_computes_another_flag_is_found(run: Path) -> None:
    calibration = calibrate([1.0, 2.0, 3.0])
    right = {
        "score": np.array([3.0, 3.5], np.float32),
        "p_value": np.array([0.5, 0.25], np.float32),
        "is_anomaly": np.array([False, True]),
    }
    check_flags(run, calibration, right)
    for name, wrong in (
        ("is_anomaly", [False, False]),
        ("is_anomaly", [True, True]),
        ("p_value", [0.5, 0.5]),
    ):
        spoilt = {**right, name: np.array(wrong, right[name].dtype)}
        with pytest.raises(DetectorError, match=f"{name} of a score of 3"):
            check_flags(run, calibration, spoilt)
    with pytest.raises(DetectorError, match="contradict"):
        check_flags(run, calibration, {**right, "is_anomaly": np.array([], bool)})


def test_a_detector_copied_elsewhere_is_still_the_same(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "detector.onnx", tmp_path / "other.onnx")
    assert read_card(tmp_path / "other.onnx") == read_card(run)
