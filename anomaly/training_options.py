"""What a training may be asked for from Python: the options of `anomaly train`, by the same names.

No NumPy, no torch: the command line reads the choices from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    SupportsFloat,
    SupportsIndex,
    TypeAlias,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from anomaly.errors import TrainingError

Model: TypeAlias = Literal[
    "auto",
    "linear",
    "autoencoder",
    "dense-autoencoder",
    "vae",
    "dense-vae",
    "gan",
    "pixelcnn",
    "boltzmann",
    "hmm",
    "flow",
    "diffusion",
]
Space: TypeAlias = Literal["auto", "pixels", "filters", "features", "both", "all"]
Frame: TypeAlias = Literal["auto", "whole", "part", "axis", "match"]
Quality: TypeAlias = Literal["fast", "default", "best"]
Calibrate: TypeAlias = Literal["split", "cross", "auto"]
Device: TypeAlias = Literal["auto", "cpu", "cuda"]
Depth: TypeAlias = Literal[10, 12, 14, 16]
PathLike: TypeAlias = str | Path


class TrainingOptions(TypedDict, total=False):
    """The options of `anomaly train`, each with the name and meaning of the command's flag
    (``anomaly train --help``); what is not given is chosen as the command chooses it.
    """

    model: Model
    space: Space
    backbone: str | None
    stages: Sequence[str] | None
    quality: Quality
    size: int | None
    frame: Frame
    error: Literal["l2", "ssim", "gradient"] | None
    dropout: float | None
    score: str | None
    epochs: int | None
    seed: int
    false_alarm_rate: float | None
    review_rate: float | None
    calibrate: Calibrate
    device: Device
    group_by: str | None
    by_unit: str | None
    views: int | None
    good: Sequence[str]
    independent: bool
    exclude: PathLike | None
    defects: PathLike | None
    independent_defects: bool
    tile: int | None
    mask: PathLike | None
    min_area: int | None
    rank_only: bool
    target: Literal["ort", "portable"]
    decode: Literal["full", "reduced"]
    depth: Depth | None
    expected_picture: bool
    resume: bool


# the smallest whole number that an option takes; 2^32 and above is no seed
LEAST_NUMBER = {"size": 1, "epochs": 1, "seed": 0, "views": 1, "tile": 32, "min_area": 1}


def checked(given: TrainingOptions) -> dict[str, Any]:
    """Returns options as a training takes them: paths as Path, names as tuples, numbers of NumPy
    as Python's.

    Raises TypeError for a name that is no option, TrainingError for a value that the command line
    would refuse too.
    """
    hints = get_type_hints(TrainingOptions)
    unknown = sorted(set(given) - set(hints))
    if unknown:
        raise TypeError(
            f"{unknown[0]!r} found, an option of `anomaly train` expected: {', '.join(hints)}"
        )
    return {name: _value(name, value, hints[name]) for name, value in given.items()}


def given_names(values: Iterable[str]) -> tuple[str, ...]:
    """Returns names that may be given one by one, or several in one text, parted by commas."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def _value(name: str, value: Any, hint: Any) -> Any:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    choices = next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), None)
    if value is None and NoneType in kinds:
        return None
    if choices is not None:
        return _checked(name, value, value in choices, f"one of {', '.join(map(str, choices))}")
    if bool in kinds:
        return _checked(name, value, isinstance(value, bool), "True or False")
    if int in kinds:
        whole = isinstance(value, SupportsIndex) and LEAST_NUMBER[name] <= int(value) < 2**32
        expected = f"a whole number from {LEAST_NUMBER[name]} on"
        return int(_checked(name, value, whole and not isinstance(value, bool), expected))
    if float in kinds:
        number = float(value) if isinstance(value, SupportsFloat) else math.nan
        if name == "dropout":
            _checked(name, value, 0 <= number <= 0.9, "a share from 0 to 0.9")
        else:
            _checked(name, value, 0 < number <= 0.5, "a rate above 0 and at most 0.5")
        return number
    if Path in kinds:
        return Path(value)
    if str in kinds:
        return str(value)
    return given_names([value] if isinstance(value, str) else value)


def _checked(name: str, value: Any, holds: bool, expected: str) -> Any:
    if not holds:
        raise TrainingError(f"{name}={value!r} found, {expected} expected")
    return value
