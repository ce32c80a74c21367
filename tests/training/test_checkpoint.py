"""The checkpoint file: whole or not at all, and nothing but tensors and text."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from pathlib import Path

import pytest
import torch

from anomaly.errors import TrainingError
from training.checkpoint import fitting, load_checkpoint, save_checkpoint, tensors_of
from training.restore import restore
from training.resume import history_of


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    channels_last = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    tensors = {
        "a": channels_last,
        "b": torch.arange(6.0).reshape(2, 3).T,
        "c": torch.tensor(7),
        "d": torch.zeros(0, 4),
    }
    save_checkpoint(tmp_path / "c.safetensors", tensors, {"history": "[]", "name": "Prüfling"})
    loaded, facts = load_checkpoint(tmp_path / "c.safetensors")
    assert facts == {"history": "[]", "name": "Prüfling"}
    assert list(loaded) == ["a", "b", "c", "d"]
    assert all(
        torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype
        for name, tensor in tensors.items()
    )


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    for name in ("one", "two"):
        save_checkpoint(tmp_path / name, tensors, {"fact": "x"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_file_is_what_safetensors_says_it_is(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", {"a": torch.tensor([1.0, 2.0])}, {"fact": "x"})
    data = (tmp_path / "c").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    assert header == {
        "__metadata__": {"fact": "x"},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    }
    assert data[8 + length :] == struct.pack("<2f", 1.0, 2.0)


def test_a_failed_write_leaves_the_file_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c"
    save_checkpoint(path, {"a": torch.zeros(2)}, {})
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "fsync", full)
        save_checkpoint(path, {"a": torch.ones(2)}, {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}      \0"]
)
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(
        TrainingError,
        match=r"c: no checkpoint that can be read \(.+\), one that anomaly train wrote expected",
    ):
        load_checkpoint(tmp_path / "c")


def test_a_pickle_is_never_area_opening(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "c")
    with pytest.raises(TrainingError, match="no checkpoint that can be read"):
        load_checkpoint(tmp_path / "c")


def test_a_missing_file_is_the_same_clear_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no checkpoint that can be read"):
        load_checkpoint(tmp_path / "none")


def test_part_takes_what_is_under_a_name() -> None:
    a, b, c = (torch.tensor(i) for i in range(3))
    assert tensors_of({"model.w.x": a, "model.b": b, "models.b": c}, "model") == {"w.x": a, "b": b}
    assert tensors_of({"model.w": a}, "decoder") == {}


RUN_FACTS = ["", "{", "[]", "1", "null", "{}", '{"space": "pixels"}', "[" * 100_000]


def spoilt(source: Path, target: Path, name: str, text: str) -> None:
    """Writes a checkpoint whose fact ``name`` is another text."""
    tensors, facts = load_checkpoint(source / "checkpoint.safetensors")
    save_checkpoint(target / "checkpoint.safetensors", tensors, {**facts, name: text})


@pytest.mark.parametrize("text", RUN_FACTS)
def test_facts_of_a_run_that_do_not_fit_are_one_line(
    pixel_run: Path, tmp_path: Path, text: str
) -> None:
    spoilt(pixel_run, tmp_path, "run", text)
    with pytest.raises(
        TrainingError, match=r"checkpoint\.safetensors: facts or weights that do not fit found"
    ) as error:
        restore(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["model", "space", "size", "error", "score", "target", "cells", "grey"]
)
@pytest.mark.parametrize("value", [None, "odd", -1, [], {}, 1.5])
def test_each_fact_that_does_not_fit_is_one_line_or_does_no_harm(
    pixel_run: Path, tmp_path: Path, name: str, value: object
) -> None:
    facts = json.loads(load_checkpoint(pixel_run / "checkpoint.safetensors")[1]["run"])
    spoilt(pixel_run, tmp_path, "run", json.dumps({**facts, name: value}))
    with contextlib.suppress(TrainingError):
        restore(tmp_path)


def test_weights_that_do_not_fit_are_one_line(pixel_run: Path, tmp_path: Path) -> None:
    tensors, facts = load_checkpoint(pixel_run / "checkpoint.safetensors")
    for lost in ("model.", "guard."):
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(lost)}
        save_checkpoint(tmp_path / "checkpoint.safetensors", kept, facts)
        with pytest.raises(TrainingError, match="facts or weights that do not fit found"):
            restore(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "1", "null", "{}", "[1]", "[" * 100_000])
def test_a_history_that_is_none_is_one_line(text: str) -> None:
    with (
        pytest.raises(TrainingError, match="facts or weights that do not fit found"),
        fitting(Path("c")),
    ):
        history_of(text)
