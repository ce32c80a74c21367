"""Which images train on what, and how they are decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomaly.errors import CalibrationError, DatasetError, ImageError
from anomaly.imaging.decode import DecodeRule, decode
from anomaly.inputs.dataset import Record
from anomaly.statistics.calibration import needed
from training.folds import folds
from training.sets import Sets, decode_all, depths_text, file_ranges, find_rule, three_sets


def record(name: str, group: str | None = None, folder: Path = Path("photos")) -> Record:
    return Record(folder / name, None, "good", group or name, None)


def names(part: list[Record]) -> list[str]:
    return [r.path.name for r in part]


# --- three sets -----------------------------------------------------------------------------------
GROUPED = st.lists(st.integers(0, 40), min_size=5, max_size=120).filter(
    lambda groups: len(set(groups)) >= 5
)


@given(groups=GROUPED, seed=st.integers(0, 5), rank_only=st.booleans())
def test_the_sets_are_disjoint_whole_and_cut_no_group(
    groups: list[int], seed: int, rank_only: bool
) -> None:
    records = [record(f"{i}.png", f"lot {group}") for i, group in enumerate(groups)]
    sets = three_sets(records, seed, None, rank_only)
    parts = (sets.fit, sets.validation, sets.calibration)
    assert sorted(name for part in parts for name in names(part)) == sorted(names(records))
    folds_by_hand = [{r.group for r in part} for part in parts]
    assert not (
        folds_by_hand[0] & folds_by_hand[1]
        or folds_by_hand[0] & folds_by_hand[2]
        or folds_by_hand[1] & folds_by_hand[2]
    )
    assert len(folds_by_hand[0]) >= 2 and len(folds_by_hand[1]) >= 1
    assert (
        len(folds_by_hand[2]) == 0
        if rank_only
        else 1 <= len(folds_by_hand[2]) <= len(set(groups)) / 2
    )


@given(groups=GROUPED, seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_the_draw_depends_on_groups_and_seed_and_not_on_the_order(
    groups: list[int], seed: int, order: object
) -> None:
    records = [record(f"{i}.png", f"lot {group}") for i, group in enumerate(groups)]
    shuffled = list(records)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = three_sets(records, seed, None), three_sets(shuffled, seed, None)
    for part in ("fit", "validation", "calibration"):
        assert sorted(names(getattr(one, part))) == sorted(names(getattr(other, part)))


@pytest.mark.parametrize(
    ("count", "target_rate", "sizes"),
    [
        (5, None, (2, 1, 2)),
        (20, None, (8, 2, 10)),
        (100, None, (41, 9, 50)),
        (200, None, (82, 19, 99)),
        (400, None, (245, 56, 99)),
        (596, None, (404, 93, 99)),
        (597, None, (323, 75, 199)),
        (761, None, (457, 105, 199)),
        (1000, None, (651, 150, 199)),
        (1000, 0.001, None),
        (2000, 0.001, (813, 188, 999)),
        (1000, 0.05, (651, 150, 199)),
        (10, 0.2, (5, 1, 4)),
    ],
)
def test_shares_are_those_guaranteed_and_calibration_grows_where_the_rate_needs_it(
    count: int, target_rate: float | None, sizes: tuple[int, int, int] | None
) -> None:
    records = [record(f"{i:05}.png") for i in range(count)]
    if sizes is None:
        with pytest.raises(
            CalibrationError,
            match=r"1000 good images \(or groups\) found: 500 of them can set the threshold",
        ):
            three_sets(records, 0, target_rate)
    else:
        sets = three_sets(records, 0, target_rate)
        assert (len(sets.fit), len(sets.validation), len(sets.calibration)) == sizes


@given(count=st.integers(5, 400), target_rate=st.sampled_from([0.5, 0.2, 0.1, 0.05, 0.01, 0.003]))
def test_a_rate_asked_for_is_kept_or_refused_with_one_that_works(
    count: int, target_rate: float
) -> None:
    records = [record(f"{i:05}.png") for i in range(count)]
    if needed(target_rate) <= count // 2:
        assert len(three_sets(records, 0, target_rate).calibration) >= needed(target_rate)
        return
    with pytest.raises(CalibrationError) as refused:
        three_sets(records, 0, target_rate)
    message = str(refused.value)
    assert f"That takes {2 * needed(target_rate)} in all" in message
    lower = float(message.split("--false-alarm-rate ")[1].split(",")[0])
    assert len(three_sets(records, 0, lower).calibration) >= needed(lower)
    assert len(
        three_sets(
            [record(f"{i}.png") for i in range(2 * needed(target_rate))], 0, target_rate
        ).calibration
    ) >= needed(target_rate)


def test_a_rate_that_cannot_be_kept_is_said_in_one_line() -> None:
    with pytest.raises(CalibrationError) as refused:
        three_sets([record(f"{i}.png") for i in range(20)], 0, 0.01)
    assert str(refused.value) == (
        "20 good images (or groups) found: 10 of them can set the threshold, so the lowest "
        "guaranteed rate is 9 %. 1 % needs 99 to set the threshold. That takes 198 in all: "
        "add images, or --false-alarm-rate 0.1, or --rank-only (order, no guarantee)"
    )


@pytest.mark.parametrize(("count", "found"), [(1, "1 good image"), (4, "4 good images")])
def test_too_few_images_to_train_at_all(count: int, found: str) -> None:
    with pytest.raises(
        DatasetError, match=rf"^{found} \(or groups\) found, at least 5 expected to train at all"
    ):
        three_sets([record(f"{i}.png") for i in range(count)], 0, None)
    with pytest.raises(DatasetError, match=rf"^{found} \(or groups\) found"):
        three_sets([record(f"{i}.png", f"lot {i % count}") for i in range(50)], 0, None)


# --- decoding -------------------------------------------------------------------------------------
def test_decode_all_keeps_the_order_and_goes_on_after_errors(tmp_path: Path) -> None:
    photos = deep(tmp_path, *range(1, 43))
    for broken in photos[-2:]:
        broken.path.write_bytes(b"")
    found = list(decode_all(photos[::-1], DecodeRule(), 64))
    assert [r for r, _ in found] == photos[::-1]
    assert [isinstance(image, ImageError) for _, image in found] == [True, True] + [False] * 40


# --- depth ----------------------------------------------------------------------------------------
def deep(folder: Path, *largest: int) -> list[Record]:
    """Writes 16-bit files, each with one value, and returns their records."""
    for i, value in enumerate(largest):
        pixels = np.full((40, 40), value, np.uint16 if value > 255 else np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return [record(f"{i}.png", folder=folder) for i in range(len(largest))]


@pytest.mark.parametrize(
    ("largest", "bits"),
    [
        ((200, 100, 7), None),
        ((300, 1023, 900), 10),
        ((4095, 300, 300, 300), 12),
        ((300, 300, 300, 9000), 14),
    ],
)
def test_the_depth_of_a_set_is_that_of_its_brightest_image(
    largest: tuple[int, ...], bits: int | None, tmp_path: Path
) -> None:
    assert find_rule(deep(tmp_path, *largest)).bits == bits


def test_the_depth_is_found_behind_images_that_cannot_be_read(tmp_path: Path) -> None:
    records = deep(tmp_path, 300, 300, 300, 4000)
    for r in records[:3]:
        r.path.write_bytes(b"")
    assert find_rule(records).bits == 12
    records[3].path.write_bytes(b"")
    assert find_rule(records).bits is None


def floats(folder: Path, *ranges: tuple[float, float]) -> list[Record]:
    """Writes float files, each from one value to another, and returns their records."""
    for i, (low, high) in enumerate(ranges):
        Image.fromarray(np.linspace(low, high, 1600, dtype=np.float32).reshape(40, 40)).save(
            folder / f"{i}.tif"
        )
    return [record(f"{i}.tif", folder=folder) for i in range(len(ranges))]


def test_float_files_have_the_scale_of_the_whole_set(tmp_path: Path) -> None:
    records = floats(tmp_path, (0.1, 0.98), (0.1, 1.02), (0.2, 0.9))
    rule = find_rule(records)
    assert rule.bits is None and rule.scale == pytest.approx((0.008, 1.112))
    brightest = [int(decode(r.path, rule).pixels.max()) for r in records]
    assert brightest == [round(255 * (value - 0.008) / 1.104) for value in (0.98, 1.02, 0.9)]
    assert find_rule(floats(tmp_path, (-5, 10))).scale == pytest.approx((-6.5, 11.5))
    assert find_rule(floats(tmp_path, (7, 7), (7, 7))).scale == pytest.approx((6.3, 7.7))


def test_float_files_that_cannot_be_used_set_no_scale(tmp_path: Path) -> None:
    records = floats(tmp_path, (0, 1), (0, np.nan), (0, 0.5))
    records[2].path.write_bytes(b"")
    assert find_rule(records).scale == pytest.approx((0, 1.1))


def test_float_files_among_others_are_refused_and_several_depths_said(tmp_path: Path) -> None:
    mixed = [*deep(tmp_path, 100, 100, 100, 100), *floats(tmp_path, (0, 1))]
    with pytest.raises(
        DatasetError,
        match=r"^1 images of float or 32-bit values and 4 of 8 or 16 bits found .*one kind "
        r"expected",
    ):
        find_rule(mixed)
    records = deep(tmp_path, 100, 100, 100, 100, 4000)  # the first ones do not show it
    assert find_rule(records).bits == 12
    (line,) = depths_text([(40, 40, 8, True)] * 4 + [(40, 40, 12, True)])
    assert line.startswith(
        "mixed depths: images of several depths a channel (4 of 8 bits and 1 of 12 bits)"
    )
    assert depths_text([(40, 40, 12, True)] * 4) == []


def test_file_ranges_are_those_of_the_files() -> None:
    assert file_ranges([(200, 100, 12, True), (100, 100, 12, True), (100, 160, 8, True)]) == {
        "aspect": [0.625, 2.0],
        "pixels": [10_000, 20_000],
        "bits": [8, 12],
        "grey": True,
    }
    assert not file_ranges([(1, 1, 8, True), (1, 1, 8, False)])["grey"]


# --- a part photographed again --------------------------------------------------------------------
def photographed_again(
    picture: np.ndarray, rng: np.random.Generator, shift: float = 0.0
) -> np.ndarray:
    """Returns the same part under another exposure, with new noise, moved by a part of a pixel."""
    exposed = picture * rng.uniform(0.8, 1.2) + rng.uniform(-10, 10)
    moved = (1 - shift) * exposed + shift * np.roll(exposed, 1, 1)
    return np.clip(moved + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


def test_sets_are_plain_lists() -> None:
    sets = Sets([record("a")], [], [])
    assert (names(sets.fit), sets.validation) == (["a"], [])


def test_parts_cut_no_group() -> None:
    groups = [str(i // 3) for i in range(60)]
    part = folds(groups)
    assert np.bincount(part).tolist() == [12] * 5
    assert all(len({part[i] for i in range(60) if groups[i] == group}) == 1 for group in groups)
    assert sorted(set(folds(["a", "b", "b"]))) == [0, 1]
