"""The tree of errors."""

from __future__ import annotations

import inspect

from anomaly import errors
from anomaly.errors import AnomalyError, ImageError, RuntimeMissing


def test_every_error_is_one_that_the_user_can_mend() -> None:
    found = [
        value
        for _, value in inspect.getmembers(errors, inspect.isclass)
        if value.__module__ == errors.__name__
    ]
    assert all(issubclass(value, AnomalyError) for value in found)
    assert {value.__name__ for value in found} == {
        "AnomalyError",
        "CalibrationError",
        "DatasetError",
        "DetectorError",
        "ImageError",
        "RequestError",
        "RuntimeMissing",
        "TrainingError",
    }


def test_the_docstring_draws_the_whole_tree() -> None:
    drawn = [
        line.split()[0] for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")
    ]
    assert sorted(drawn) == sorted(
        name
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if value.__module__ == errors.__name__
    )


def test_an_image_error_has_a_kind_for_tables() -> None:
    error = ImageError("truncated", "part.png: the file ends early")
    assert (error.kind, str(error)) == ("truncated", "part.png: the file ends early")


def test_a_missing_extra_is_named_with_the_command_that_brings_it() -> None:
    said = str(RuntimeMissing.extra("pyarrow", "batch", "a Parquet table"))
    assert (
        said
        == "a Parquet table needs pyarrow, which is not installed: pip install 'anomaly[batch]'"
    )
