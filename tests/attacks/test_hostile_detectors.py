"""Detector files from somebody who means harm: each is refused, or fails with a message, and none
does what it wants.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from anomaly.commands.main import main
from anomaly.detector.calibration_nodes import set_calibration
from anomaly.detector.file import CARD_KEY, read_card
from anomaly.detector.graph import MAX_NODES
from anomaly.detector.session import available_memory
from anomaly.detector.trial import remember
from anomaly.errors import AnomalyError, DetectorError, ImageError
from anomaly.quality.evaluate import evaluate_labelled
from anomaly.scorer import Scorer
from anomaly.statistics.calibration import Calibration

IMAGE = np.full((40, 40, 3), 90, np.uint8)


def changed(run: Path, out: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    """Returns a copy of a detector after ``change``."""
    model = onnx.load(run / "detector.onnx")
    change(model)
    out.write_bytes(model.SerializeToString())
    return out


def edit_card(model: onnx.ModelProto, edit: Callable[[dict[str, object]], object]) -> None:
    card = json.loads(model.metadata_props[0].value)
    edit(card)
    onnx.helper.set_model_props(model, {CARD_KEY: json.dumps(card)})


# --- data outside the file ------------------------------------------------------------------------
def external(tensor: onnx.TensorProto, location: str) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.ClearField("raw_data")


def in_constant(model: onnx.ModelProto, location: str) -> None:
    tensor = onnx.TensorProto(data_type=1, dims=[1])
    external(tensor, location)
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["hidden"], value=tensor))


def in_list_of_tensors(model: onnx.ModelProto, location: str) -> None:
    tensor = onnx.TensorProto(data_type=1, dims=[1])
    external(tensor, location)
    model.graph.node[0].attribute.add(
        name="values", type=onnx.AttributeProto.TENSORS
    ).tensors.append(tensor)


PLACES: dict[str, Callable[[onnx.ModelProto, str], None]] = {
    "an initializer": lambda model, location: external(model.graph.initializer[0], location),
    "a constant": in_constant,
    "a list of tensors": in_list_of_tensors,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "location",
    [
        "../../../../etc/passwd",
        "/etc/passwd",
        "weights.bin",
        "link",
        "//host/share/x",
        "file:///etc/passwd",
    ],
)
def test_no_data_outside_the_file_is_read(
    place: str, location: str, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(1 << 16))
    (tmp_path / "link").symlink_to("/etc/passwd")
    path = changed(run, tmp_path / "detector.onnx", lambda model: PLACES[place](model, location))
    with pytest.raises(DetectorError, match="data outside the file found"):
        read_card(path)


# --- memory and time ------------------------------------------------------------------------------
def test_a_tensor_that_claims_to_be_huge_is_refused(run: Path, tmp_path: Path) -> None:
    def claim(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].dims[:] = [1 << 40]

    with pytest.raises(DetectorError, match="cannot load this file"):
        Scorer(changed(run, tmp_path / "detector.onnx", claim), device="cpu")


def grow(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], last: str
) -> None:
    """Puts nodes before the score: it gets the sum of ``last`` times nothing added."""
    make, graph = onnx.helper.make_node, model.graph
    graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    for node in graph.node:
        for at, name in enumerate(node.output):
            if name == "score":
                node.output[at] = "true score"
        for at, name in enumerate(node.input):
            if name == "score" and not node.name.startswith("calibration."):
                node.input[at] = "true score"
    graph.node.extend(
        [
            *nodes,
            make("ReduceSum", [last], ["sum"], keepdims=0),
            make("Add", ["true score", "sum"], ["score"]),
        ]
    )


def one_huge_tensor(model: onnx.ModelProto) -> None:
    size = np.array([available_memory()], np.int64)  # float32: four times the machine
    grow(
        model, [onnx.helper.make_node("ConstantOfShape", ["size"], ["big"])], {"size": size}, "big"
    )


def doubled_and_doubled(model: onnx.ModelProto) -> None:
    nodes = [
        onnx.helper.make_node("Concat", [f"x{i}", f"x{i}"], [f"x{i + 1}"], axis=0)
        for i in range(40)
    ]
    grow(model, nodes, {"x0": np.ones(1 << 10, np.float32)}, "x40")


@pytest.mark.parametrize("bomb", [one_huge_tensor, doubled_and_doubled])
def test_a_memory_bomb_fails_with_a_message_and_the_scorer_lives_on(
    bomb: Callable[[onnx.ModelProto], None], run: Path, tmp_path: Path
) -> None:
    path = changed(run, tmp_path / "detector.onnx", bomb)
    program = (
        "import resource, sys, numpy as np\n"
        "from anomaly import AnomalyError, Scorer\n"
        "image = np.full((40, 40, 3), 90, np.uint8)\n"
        "try: Scorer(sys.argv[1], device='cpu', threads=1).score(image)\n"
        "except AnomalyError as error: print(type(error).__name__, str(error).count(chr(10)))\n"
        "print(Scorer(sys.argv[2], device='cpu').score(image).score is not None)\n"
    )
    # 128 MiB for the test: that the machine's own three quarters hold takes too long to fill.
    upper_bound = "import anomaly.scorer\nanomaly.scorer.available_memory = lambda: 1 << 27\n"
    done = subprocess.run(
        [sys.executable, "-c", upper_bound + program, path, run],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() in (["ImageError", "0", "True"], ["DetectorError", "0", "True"]), (
        done.stdout + done.stderr
    )


def test_the_bound_on_memory_is_that_of_the_machine_or_less() -> None:
    assert 1 << 28 < available_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_control_flow_and_endless_graphs_are_refused(run: Path, tmp_path: Path) -> None:
    for operator in (
        "Loop",
        "While",
        "If",
        "Scan",
        "SequenceMap",
        "Optional",
        "StringNormalizer",
        "RandomNormal",
        "ImageDecoder",
    ):
        path = changed(
            run,
            tmp_path / "detector.onnx",
            lambda model, o=operator: setattr(model.graph.node[0], "op_type", o),
        )
        with pytest.raises(DetectorError, match=f"operator '{operator}' found"):
            read_card(path)

    def many(model: onnx.ModelProto) -> None:
        model.graph.node.extend(
            onnx.helper.make_node("Identity", ["images"], [f"n{i}"]) for i in range(MAX_NODES)
        )

    with pytest.raises(DetectorError, match="more than 20000 operators"):
        read_card(changed(run, tmp_path / "detector.onnx", many))


def test_a_graph_that_computes_for_minutes_ends_with_its_budget(run: Path, tmp_path: Path) -> None:
    def slow(model: onnx.ModelProto) -> None:
        nodes = [
            onnx.helper.make_node("MatMul", [f"x{i}" if i else "x0", "x0"], [f"x{i + 1}"])
            for i in range(1000)
        ]
        nodes[0].input[0] = "first"
        # of the image: else it is folded away
        nodes.insert(0, onnx.helper.make_node("Mul", ["x0", "moving"], ["first"]))
        nodes.insert(0, onnx.helper.make_node("ReduceMax", ["true score"], ["moving"], keepdims=0))
        grow(model, nodes, {"x0": np.zeros((700, 700), np.float32)}, "x1000")

    path = changed(run, tmp_path / "detector.onnx", slow)
    remember(path.read_bytes())  # as if it had been tried where it was fast enough
    scorer = Scorer(path, device="cpu", threads=1, seconds=0.2)
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"not judged within 0\.2 s") as caught:
        scorer.score(IMAGE)
    assert caught.value.kind == "too slow"
    assert time.monotonic() - start < 20
    assert scorer.score([IMAGE])[0].is_anomaly is None


# --- the card -------------------------------------------------------------------------------------
@pytest.mark.parametrize(("text", "message"), [("0.0001234567890123", "a card of 19"), ("0", "")])
def test_a_card_with_a_million_scores_ends_soon(
    text: str, message: str, run: Path, tmp_path: Path
) -> None:
    def many(model: onnx.ModelProto) -> None:
        card = json.loads(model.metadata_props[0].value)
        card["calibration"] = {"kind": "split", "k": 10_000, "target_rate": None, "scores": "HERE"}
        card["training"] = {}  # which would contradict it: of 120 images
        card["golden"]["tolerance"] = 1e-8  # of scores that are all the same
        scores = "[" + ",".join([text] * 1_000_000) + "]"
        set_calibration(model, Calibration(np.full(1_000_000, float(text)), 10_000))
        onnx.helper.set_model_props(model, {CARD_KEY: json.dumps(card).replace('"HERE"', scores)})

    path = changed(run, tmp_path / "detector.onnx", many)
    start = time.monotonic()
    if message:
        with pytest.raises(DetectorError, match=message):
            read_card(path)
    else:
        card = read_card(path)
        assert card.calibration is not None and card.calibration.n == 1_000_000
    assert time.monotonic() - start < 30


EVIL_NUMBERS = {
    "NaN": "NaN",
    "Infinity": "Infinity",
    "a huge number": "1e400",
    "a huge integer": "9" * 5000,
    "text": '"x"',
    "null": "null",
    "true": "true",
}


@pytest.mark.parametrize("what", EVIL_NUMBERS)
def test_calibration_scores_that_are_none_are_refused(what: str, run: Path, tmp_path: Path) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        card = json.loads(model.metadata_props[0].value)
        card["calibration"] = {
            "kind": "split",
            "k": 1,
            "target_rate": None,
            "scores": ["HERE", 1.0],
        }
        onnx.helper.set_model_props(
            model, {CARD_KEY: json.dumps(card).replace('"HERE"', EVIL_NUMBERS[what])}
        )

    with pytest.raises(AnomalyError) as caught:
        read_card(changed(run, tmp_path / "detector.onnx", spoil))
    assert "\n" not in str(caught.value)


def test_a_score_that_is_not_a_number_is_never_good(run: Path, tmp_path: Path) -> None:
    def not_a_number(model: onnx.ModelProto) -> None:
        grow(model, [], {"nothing": np.array([np.nan], np.float32)}, "nothing")

    path = changed(run, tmp_path / "detector.onnx", not_a_number)
    scorer = Scorer(path, device="cpu")
    result = scorer.score(IMAGE)
    assert (result.status, result.kind, result.is_anomaly, result.score) == (
        "error",
        "not finite",
        None,
        None,
    )
    assert scorer.run(IMAGE[None])["is_anomaly"].tolist() == [True]  # in other languages too
    with pytest.raises(DetectorError, match="a golden sample scores differently"):
        Scorer(path, device="cpu", verify=True)


HTML = '<script>alert(1)</script><img src=x onerror="alert(2)">'


def test_html_in_names_stays_text(run: Path, parts: Path, tmp_path: Path) -> None:
    def rename(card: dict[str, object]) -> None:
        card.update(name=HTML, model=HTML, space=HTML, licences={HTML: HTML})
        card["training"].update(highest=[HTML], command=HTML, warnings=[HTML], cost=None)  # type: ignore[attr-defined]

    path = changed(run, tmp_path / "detector.onnx", lambda model: edit_card(model, rename))
    evaluate_labelled(Scorer(path, device="cpu"), parts, None, report=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page and "<img src=x" not in page


def test_a_card_cannot_move_the_terminals_cursor(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed(
        run,
        tmp_path / "a.onnx",
        lambda model: edit_card(model, lambda card: card.update(name="\x1b[2Jgood")),
    )
    with pytest.raises(DetectorError, match="one line of text expected"):
        read_card(path)

    def command(card: dict[str, object]) -> None:
        card["training"].update(command="\x1b[2Jgood\r", highest=["\x1b[2J.png"], cost=None)  # type: ignore[attr-defined]

    assert (
        main(
            [
                "show",
                str(changed(run, tmp_path / "b.onnx", lambda model: edit_card(model, command))),
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "\x1b" not in out and "?[2Jgood?" in out
