"""The options of a training have one name and one range, on the command line and from Python."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args, get_type_hints

import numpy as np
import pytest

from anomaly.commands.main import parser
from anomaly.errors import TrainingError
from anomaly.training_options import Model, TrainingOptions, checked
from training.models import MODELS
from training.options import TrainOptions

HINTS = get_type_hints(TrainingOptions)
OF_THE_COMMAND = {"images", "out", "dry_run", "json", "help"}


def flags() -> dict[str, argparse.Action]:
    commands = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {action.dest: action for action in commands.choices["train"]._actions}


def literal(hint: object) -> tuple[object, ...]:
    parts = (hint, *get_args(hint))
    return next((get_args(part) for part in parts if str(part).startswith(str(Literal))), ())


def test_every_flag_is_an_option_and_every_option_a_flag():
    assert set(flags()) - OF_THE_COMMAND == set(HINTS)
    assert set(HINTS) == {field.name for field in fields(TrainOptions)} - {
        "images",
        "out",
        "command",
        "marked_by",
        "parent",
    }


def test_every_model_can_be_asked_for():
    assert get_args(Model) == ("auto", *MODELS)


@pytest.mark.parametrize("name", sorted(HINTS))
def test_choices_are_those_of_the_flag(name):
    assert literal(HINTS[name]) == tuple(flags()[name].choices or ())


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"size": np.int64(96), "false_alarm_rate": np.float32(0.25)}, (96, 0.25)),
        ({"stages": "a, b", "good": ["OK", "gut"]}, (("a", "b"), ("OK", "gut"))),
        ({"mask": "mask.png", "exclude": None}, (Path("mask.png"), None)),
        ({"independent": True, "group_by": "part"}, (True, "part")),
    ],
)
def test_values_become_those_of_a_training(given, kept):
    found = tuple(checked(given).values())
    assert found == kept
    assert [type(value) for value in found] == [type(value) for value in kept]


@pytest.mark.parametrize(
    ("name", "value", "flag"),
    [
        ("model", "resnet", "resnet"),
        ("depth", 11, "11"),
        ("size", 0, "0"),
        ("tile", 31, "31"),
        ("seed", 2**32, str(2**32)),
        ("epochs", 1.5, "1.5"),
        ("views", True, "True"),
        ("false_alarm_rate", 0.51, "0.51"),
        ("false_alarm_rate", float("nan"), "nan"),
        ("review_rate", "1", "1"),
        ("dropout", 0.91, "0.91"),
        ("independent", "no", None),
        ("model", None, None),
    ],
)
def test_what_the_command_refuses_is_refused_here_too(name, value, flag, capsys):
    with pytest.raises(TrainingError, match=rf"^{name}=.* found, .* expected$"):
        checked({name: value})
    if flag is not None:
        with pytest.raises(SystemExit):
            parser().parse_args(f"train a --out b --{name.replace('_', '-')} {flag}".split())
