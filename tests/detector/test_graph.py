"""An ONNX file read without the package onnx: damaged and endless ones are refused, and every name
is made once.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from anomaly.detector.file import CARD_KEY, read_card
from anomaly.detector.graph import check_model, check_wiring, read_model
from anomaly.errors import DetectorError
from tests.detector.test_file import changed


def test_every_truncation_is_refused(run: Path) -> None:
    data = (run / "detector.onnx").read_bytes()
    card_starts = data.rindex(b"anomaly", 0, data.index(b'{"format"'))
    for end in [0, 1, 2, 100, len(data) // 2, card_starts, len(data) - 1]:
        try:
            found = check_model(memoryview(data[:end]))
        except DetectorError:
            continue
        assert CARD_KEY not in found, f"cut at {end}"


@pytest.mark.parametrize(
    "data", [b"\x00" * 64, b"\xff" * 64, b"PK\x03\x04 a zip", b"\x3a\xff\xff\xff\xff\x7f"]
)
def test_what_is_no_protobuf_is_refused(data: bytes) -> None:
    with pytest.raises(DetectorError):
        check_model(memoryview(data))


def test_a_graph_is_what_onnx_reads_of_it(run: Path) -> None:
    data = (run / "detector.onnx").read_bytes()
    found, expected = read_model(memoryview(data)).graph, onnx.load_model_from_string(data).graph
    assert [(n.name, n.operator, n.inputs, n.outputs) for n in found.nodes] == [
        (n.name, n.op_type, tuple(n.input), tuple(n.output)) for n in expected.node
    ]
    assert list(found.constants) == [tensor.name for tensor in expected.initializer]
    assert (found.inputs, found.outputs) == (["images"], [o.name for o in expected.output])


def test_the_order_of_the_operators_does_not_matter(run: Path, tmp_path: Path) -> None:
    path = changed(run, tmp_path / "detector.onnx", lambda model: model.graph.node.reverse())
    check_wiring(read_model(memoryview(path.read_bytes())).graph)
    assert read_card(path).name == "run"


@pytest.mark.parametrize("what", ["metadata", "attributes", "tensors"])
def test_millions_of_tiny_fields_are_refused(what: str, run: Path, tmp_path: Path) -> None:
    def many(model: onnx.ModelProto) -> None:
        if what == "metadata":
            model.metadata_props.extend(
                onnx.StringStringEntryProto(key=str(i)) for i in range(1_100_000)
            )
        elif what == "attributes":
            model.graph.node[0].attribute.append(helper.make_attribute("numbers", [1] * 3_000_000))
        else:
            model.graph.initializer[0].int32_data.extend([])
            model.graph.initializer[0].dims.extend([1] * 3_000_000)

    with pytest.raises(DetectorError, match="more than 2000000 fields found in the file"):
        read_card(changed(run, tmp_path / "detector.onnx", many))
