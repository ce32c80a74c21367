"""Every model and every space has all members that training asks of it."""

from __future__ import annotations

import inspect

import pytest
import torch

from training.experiments.baselines import BASELINES
from training.models import MODELS
from training.protocols import Model, Space
from training.spaces import FilterSpace, PixelSpace

KINDS = MODELS | BASELINES


def members(protocol: type) -> set[str]:
    """Returns the public names that a protocol declares, and those it inherits."""
    declared = {
        name for base in protocol.__mro__[:-1] for name in inspect.get_annotations(base)
    } | set(dir(protocol))
    return {name for name in declared if not name.startswith("_")}


@pytest.mark.parametrize("pixels", [True, False], ids=["pixels", "maps"])
@pytest.mark.parametrize("name", KINDS)
def test_every_model_has_every_member_and_can_what_it_says(name: str, pixels: bool) -> None:
    torch.manual_seed(0)
    model = KINDS[name](3, 16, 16, pixels=pixels).eval()
    assert [member for member in members(Model) if not hasattr(model, member)] == []
    assert (model.pixels, model.closed_form) == (pixels, KINDS[name].closed_form)
    assert bool(model.players()) != model.closed_form
    x = torch.rand(2, 3, 16, 16)
    if model.can_encode:
        assert len(model.encode(x)) == 2
    else:
        with pytest.raises(NotImplementedError, match="has no encoder"):
            model.encode(x)
    if model.can_sample:
        assert model.sample(torch.randn(2, model.sample_size())).shape == x.shape
    else:
        with pytest.raises(NotImplementedError, match="draws no samples"):
            model.sample(torch.zeros(2, 1))


@pytest.mark.parametrize(
    "space", [PixelSpace((32, 32)), FilterSpace((32, 32))], ids=["pixels", "filters"]
)
def test_every_space_has_every_member(space: Space) -> None:
    assert [member for member in members(Space) if not hasattr(space, member)] == []
    x = torch.rand(2, 3, 32, 32)
    assert space(x).shape == (2, space.channels, *space.grid)
    assert space.raw(x).dtype == (torch.uint8 if space.whitening is None else torch.float32)
