"""The hidden Markov model: recursions against the sum over all paths, the laws of expectation and
maximisation, reversal.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.models.hmm import HMM, clusters, expect, normed, read, reverse


@dataclass(frozen=True)
class Tiny:
    """A chain of three states that reads lines of four steps: log p(o_t | s), (2, 4, 3), and log
    p(place_t | s), (4, 3).
    """

    emission: Tensor
    places: Tensor
    start: Tensor
    transition: Tensor


def tiny(seed: int) -> Tiny:
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random, dtype=torch.float64) + 0.02

    return Tiny(draw(2, 4, 3).log(), draw(4, 3).log(), normed(draw(3)), normed(draw(3, 3)))


def paths(chain: Tiny, line: int, seen: int) -> dict[tuple[int, ...], float]:
    """Returns of every path the probability that it is taken, with the first ``seen`` emissions and
    all four places.
    """
    weights = {}
    for path in itertools.product(range(3), repeat=4):
        p = float(chain.start[path[0]]) * math.prod(
            float(chain.transition[i, j]) for i, j in itertools.pairwise(path)
        )
        p *= math.exp(sum(float(chain.places[t, s]) for t, s in enumerate(path)))
        weights[path] = p * math.exp(
            sum(float(chain.emission[line, t, path[t]]) for t in range(seen))
        )
    return weights


def read_line(chain: Tiny, reversed_too: bool = False) -> tuple[Tensor, Tensor]:
    """Reads the two lines as one reading of two maps, ahead or by the exact reversal."""
    marginals, back = reverse(chain.start, chain.transition, 4)
    emission, places = chain.emission[None, :, None], chain.places[None, None, None]
    if reversed_too:
        return read(emission.flip(3), places.flip(3), marginals[-1:], back[:, None])
    return read(emission, places, chain.start[None], chain.transition.expand(3, 1, 3, 3))


@pytest.mark.parametrize("seed", range(3))
def test_the_last_surprise_is_that_of_all_paths(seed: int) -> None:
    chain = tiny(seed)
    surprise, expected = read_line(chain)
    for line in range(2):
        all_seen, three_seen = paths(chain, line, 4), paths(chain, line, 3)
        assert float(surprise[0, line, 0, 3]) == pytest.approx(
            -math.log(sum(all_seen.values()) / sum(three_seen.values()))
        )
        for s in range(3):
            share = sum(p for path, p in three_seen.items() if path[3] == s) / sum(
                three_seen.values()
            )
            assert math.exp(expected[0, line, 0, 3, s]) == pytest.approx(share)


@pytest.mark.parametrize("seed", range(3))
def test_expectations_are_those_of_all_paths(seed: int) -> None:
    chain = tiny(seed)
    likelihood, states, steps = expect(chain.emission + chain.places, chain.start, chain.transition)
    counts = torch.zeros(3, 3, dtype=torch.float64)
    for line in range(2):
        weights = paths(chain, line, 4)
        total = sum(weights.values())
        assert float(likelihood[line]) == pytest.approx(math.log(total))
        for t, s in itertools.product(range(4), range(3)):
            share = sum(p for path, p in weights.items() if path[t] == s) / total
            assert float(states[line, t, s]) == pytest.approx(share)
        for path, p in weights.items():
            for i, j in itertools.pairwise(path):
                counts[i, j] += p / total
    torch.testing.assert_close(steps, counts)


@given(st.integers(0, 10_000))
def test_a_line_is_as_likely_read_backwards(seed: int) -> None:
    chain = replace(tiny(seed), places=torch.zeros(4, 3, dtype=torch.float64))
    ahead, back = (read_line(chain, reversed_too)[0].sum(-1) for reversed_too in (False, True))
    likelihood, _, _ = expect(chain.emission, chain.start, chain.transition)
    torch.testing.assert_close(ahead.flatten(), -likelihood)
    torch.testing.assert_close(back.flatten(), -likelihood)


@pytest.mark.parametrize("seed", range(3))
def test_both_directions_together_expect_what_all_other_patches_say(seed: int) -> None:
    """p(s | others) = p(s | before) p(s | after) / p(s) up to a constant, each given the places,
    against all paths.
    """
    chain = tiny(seed)
    before, after = read_line(chain)[1], read_line(chain, reversed_too=True)[1].flip(3)
    prior = reverse(chain.start, chain.transition, 4)[0].log() + chain.places
    found = torch.softmax(before + after - prior, -1)[0, :, 0]  # (2, 4, 3)
    for line, t in itertools.product(range(2), range(4)):
        emission = chain.emission.clone()
        emission[:, t] = 0.0
        weights = paths(replace(chain, emission=emission), line, 4)
        for s in range(3):
            share = sum(p for path, p in weights.items() if path[t] == s) / sum(weights.values())
            assert float(found[line, t, s]) == pytest.approx(share)


def lines_of_colours(count: int, seed: int, pixels: bool = False) -> Tensor:
    """Maps (n, 5, 6, 7) whose left half and right half are of two different colours, and a little
    noise.
    """
    random = torch.Generator().manual_seed(seed)
    colours = torch.randn(2, 5, 1, 1, generator=torch.Generator().manual_seed(7))
    maps = torch.cat([colours[0].expand(5, 6, 3), colours[1].expand(5, 6, 4)], 2)
    maps = maps + 0.2 * torch.randn(count, 5, 6, 7, generator=random)
    return torch.sigmoid(maps) if pixels else maps


@given(st.integers(0, 10_000))
def test_no_step_of_the_fit_lowers_its_objective(seed: int) -> None:
    maps = torch.randn(
        6, 3, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    model = HMM(3, 5, 4, pixels=False).double()
    model.turn(maps)
    o = model.embed(maps)
    floor = model.initialise(o)
    objectives = [model.improve(o, floor) for _ in range(8)]
    assert all(
        after >= before - 1e-9 * abs(before) for before, after in itertools.pairwise(objectives)
    )
    assert objectives[-1] > objectives[0]


def test_emission_is_torchs_normal_and_the_turn_keeps_densities() -> None:
    model, maps = HMM(5, 6, 7, pixels=False), lines_of_colours(20, 0)
    model.fit_maps(maps)
    o = model.embed(maps)
    expected = (
        torch.distributions.Normal(model.centres, model.variances.sqrt())
        .log_prob(o[..., None, :])
        .sum(-1)
    )
    torch.testing.assert_close(model.log_emission(o), expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(model.axes @ model.axes.T, torch.eye(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(model.to_map(o), maps, rtol=0, atol=1e-5)


@pytest.mark.parametrize("height, width", [(6, 7), (9, 4)])
def test_readings_come_back_to_where_they_were(height: int, width: int) -> None:
    model = HMM(2, height, width, pixels=False)
    x = torch.randn(3, height, width, 8)
    lines = model.readings(x)
    assert lines.shape == (4, 3, max(height, width), max(height, width), 8)
    assert all(torch.equal(part, x) for part in model.put_back(lines))
    assert torch.equal(lines[1, :, :width, :height], x.transpose(1, 2))  # columns, from above
    assert torch.equal(lines[2, :, :height, 0], x[:, :, -1])  # rows, from the right


def test_a_colour_in_the_wrong_place_surprises_there() -> None:
    """Only what states know of places tells it: both colours are normal, and so is the change from
    one to the other.
    """
    model = HMM(5, 6, 7, pixels=False)
    model.fit_maps(lines_of_colours(60, 1))
    maps = lines_of_colours(10, 2)
    swapped = maps.clone()
    swapped[:, :, 2:4, 5:7] = maps[:, :, 2:4, 0:2]
    change = model(swapped)[0] - model(maps)[0]
    inside = change[:, 2:4, 5:7].mean((1, 2))
    assert bool((inside > 1).all())
    assert bool((inside > 3 * change[:, :, :3].abs().mean((1, 2))).all())
    expected = model(swapped)[1]
    # it expects the colour that belongs there
    assert float((expected - maps)[:, :, 2:4, 5:7].square().mean()) < 0.2


@pytest.mark.parametrize("pixels", [False, True])
def test_samples_look_like_maps_and_are_those_of_their_noise(pixels: bool) -> None:
    model, maps = HMM(5, 6, 7, pixels=pixels), lines_of_colours(60, 3, pixels)
    model.fit_maps(maps)
    noise = torch.randn(200, model.sample_size(), generator=torch.Generator().manual_seed(0))
    drawn = model.sample(noise)
    assert torch.equal(drawn, model.sample(noise))
    assert torch.equal(drawn[3:5], model.sample(noise[3:5]))
    if not pixels:
        torch.testing.assert_close(drawn.mean(0), maps.mean(0), rtol=0, atol=0.35)
        assert float(drawn.var(0).mean()) < 3 * float(maps.var(0).mean()) + 0.1


def test_clusters_find_what_is_apart() -> None:
    centres = torch.eye(4, dtype=torch.float64) * 10
    rows = centres.repeat_interleave(25, 0) + 0.1 * torch.randn(
        100, 4, generator=torch.Generator().manual_seed(0)
    )
    of = clusters(rows, 4)
    assert [len(set(part.tolist())) for part in of.split(25)] == [1, 1, 1, 1]
    assert len(set(of.tolist())) == 4


def test_uint8_stands_for_0_to_1() -> None:
    # of most draws some points lie as far from one centre as from another, and rounding decides
    torch.manual_seed(0)
    maps, models = (
        torch.randint(0, 256, (9, 1, 8, 8), dtype=torch.uint8),
        [HMM(1, 8, 8, True) for _ in range(2)],
    )
    models[0].fit_maps(maps)
    models[1].fit_maps(maps.float() / 255)
    torch.testing.assert_close(models[0].centres, models[1].centres, rtol=0, atol=1e-5)
