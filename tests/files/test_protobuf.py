"""Protocol buffers read and written as plain bytes are those of the package protobuf."""

from __future__ import annotations

import onnx
import pytest

from anomaly.errors import DetectorError
from anomaly.files.protobuf import Budget, fields, inside, numbers, string, written


def test_fields_reads_what_protobuf_wrote() -> None:
    tensor = onnx.TensorProto(data_type=1, name="x", raw_data=b"abc")
    found = [
        (number, value if isinstance(value, int) else bytes(value))
        for number, value in fields(memoryview(tensor.SerializeToString()))
    ]
    assert found == [(2, 1), (8, b"x"), (9, b"abc")]


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63 - 1])
def test_what_is_written_is_read_by_onnx(value: int) -> None:
    data = written(1, value) + written(8, "ä".encode()) + written(2, 1)
    tensor = onnx.TensorProto.FromString(data)
    assert (list(tensor.dims), tensor.name, tensor.data_type) == ([value], "ä", 1)
    assert [(n, v if isinstance(v, int) else string(v)) for n, v in fields(memoryview(data))] == [
        (1, value),
        (8, "ä"),
        (2, 1),
    ]


def test_numbers_may_be_packed() -> None:
    assert (
        numbers(7) == [7]
        and numbers(memoryview(b"\x01\xac\x02")) == [1, 300]
        and numbers(memoryview(b"")) == []
    )
    with pytest.raises(DetectorError, match="truncated"):
        numbers(memoryview(b"\xac"))
    with pytest.raises(DetectorError, match="damaged or of another kind"):
        inside(7)


def test_a_budget_ends() -> None:
    message = memoryview(written(1, 1) * 3)
    assert len(list(fields(message, Budget(3)))) == 3
    with pytest.raises(DetectorError, match="fields found in the file"):
        list(fields(message, Budget(2)))
