"""Which images are copies of each other: found however few parts there are, and independent parts
are never joined.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from anomaly.errors import CalibrationError, DatasetError
from anomaly.imaging.decode import decode
from anomaly.inputs.copies import Copies, digest, joined_groups, thumb
from anomaly.inputs.dataset import read_dataset
from anomaly.inputs.near_copies import THUMB, near_copies
from data.synthetic import DEFECTS, make
from tests.training.test_sets import photographed_again
from training.options import TrainOptions
from training.pipeline import train
from training.plan import dry_run

SIDE = 96
# not screws: most of the picture is plain ground, where noise and JPEG change more than a part does
FILLING = sorted(set(DEFECTS) - {"screw"})
Pixels = np.ndarray
Rng = np.random.Generator


def saved_again(picture: Pixels, rng: Rng) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=int(rng.integers(60, 96)))
    return np.asarray(Image.open(file).convert("RGB"))


def moved(picture: Pixels, rng: Rng) -> Pixels:
    down, across = rng.integers(-1, 2, 2)
    wide = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    return wide[1 + down : 1 + down + SIDE, 1 + across : 1 + across + SIDE]


def brighter(picture: Pixels, rng: Rng) -> Pixels:
    return np.clip(picture * rng.uniform(0.75, 1.2), 0, 255).astype(np.uint8)


def noisy(picture: Pixels, rng: Rng) -> Pixels:
    return np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


def frame(picture: Pixels, rng: Rng) -> Pixels:
    return noisy(brighter(moved(picture, rng), rng), rng)


COPIES: dict[str, Callable[[Pixels, Rng], Pixels]] = {
    "exact": lambda picture, _: picture,
    "saved again": saved_again,
    "moved": moved,
    "brighter": brighter,
    "noisy": noisy,
    "frame": frame,
}


def copies_of(pictures: list[Pixels], size: int = 64, digests: bool = True) -> Copies:
    seen = np.stack([thumb(picture, size) for picture in pictures])
    return Copies.of(
        seen,
        [str(i) for i in range(len(pictures))],
        [digest(p) for p in pictures] if digests else [],
    )


def scenes(copies: Copies) -> int:
    return len(set(copies.scene.tolist()))


@pytest.fixture(scope="module", params=FILLING)
def parts(request: pytest.FixtureRequest) -> list[Pixels]:
    return [make(request.param, seed, SIDE)[0] for seed in range(300)]


def test_independent_parts_are_never_joined(parts: list[Pixels]) -> None:
    for count in (5, 20, 60, 300):
        found = copies_of(parts[:count])
        assert (scenes(found), found.pairs) == (count, [])


@pytest.mark.parametrize(
    ("kinds", "count"), [(("disc", "cell"), 40), (("disc", "fabric", "cell", "casting"), 15)]
)
def test_independent_parts_of_several_products_are_not_joined(
    kinds: tuple[str, ...], count: int
) -> None:
    pictures = [make(kind, seed, SIDE)[0] for kind in kinds for seed in range(count)]
    assert scenes(copies_of(pictures)) == len(pictures)


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize(("count", "each"), [(4, 2), (4, 100), (7, 5), (20, 10), (60, 2)])
def test_copies_are_found_however_few_parts_there_are(kind: str, count: int, each: int) -> None:
    rng, product = np.random.default_rng(count), FILLING[count % len(FILLING)]
    pictures = [
        COPIES[kind](make(product, seed, SIDE)[0], rng)
        for seed in range(count)
        for _ in range(each)
    ]
    scene = copies_of(pictures).scene.reshape(count, each)
    assert (scene == scene[:, :1]).all() and len(set(scene[:, 0].tolist())) == count


def test_copies_of_one_part_alone_are_one(parts: list[Pixels]) -> None:
    rng = np.random.default_rng(0)
    assert scenes(copies_of([parts[0]] * 30)) == 1
    again = [
        np.clip(parts[0] + rng.normal(0, 2, parts[0].shape), 0, 255).astype(np.uint8)
        for _ in range(30)
    ]
    assert scenes(copies_of(again, size=96)) == 1


def test_a_few_copies_among_many_parts_are_found(parts: list[Pixels]) -> None:
    rng = np.random.default_rng(0)
    again = [
        photographed_again(picture, rng, shift=0.2 * (i > 2)) for i, picture in enumerate(parts[:6])
    ]
    found = copies_of([*parts[:120], *again], size=96)
    assert {(i, j) for i, j, _ in found.pairs} == {(i, 120 + i) for i in range(6)}
    assert [alike for *_, alike in found.pairs] == sorted(
        (alike for *_, alike in found.pairs), reverse=True
    )
    assert found.near and found.images == 12


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_parts_out_of_focus_look_alike_and_are_no_copies(parts: list[Pixels], radius: int) -> None:
    blurred = [
        np.array(Image.fromarray(part).filter(ImageFilter.GaussianBlur(radius)))
        for part in parts[:40]
    ]
    assert scenes(copies_of(blurred)) >= 39


def test_copies_within_a_group_are_no_news(parts: list[Pixels]) -> None:
    seen = np.stack([thumb(picture, 64) for picture in [*parts[:10], *parts[:3]]])
    assert Copies.of(seen, [str(i % 10) for i in range(13)]).pairs == []


def test_the_same_images_give_the_same_answer(parts: list[Pixels]) -> None:
    rng = np.random.default_rng(0)
    pictures = [noisy(part, rng) for part in parts[:20] for _ in range(2)]
    assert copies_of(pictures, digests=False).pairs == copies_of(pictures, digests=False).pairs


def test_only_the_same_pixels_where_images_are_declared_independent(parts: list[Pixels]) -> None:
    pictures = [*parts[:5], *parts[:2], noisy(parts[4], np.random.default_rng(0))]
    seen, groups = np.stack([thumb(p, 64) for p in pictures]), [str(i) for i in range(8)]
    found = Copies.of(seen, groups, [digest(p) for p in pictures], same_only=True)
    assert (found.pairs, found.near) == ([(0, 5, 1.0), (1, 6, 1.0)], False)
    assert scenes(copies_of(pictures)) == 5


@pytest.mark.parametrize("count", [0, 1, 2, 6])
def test_nothing_to_compare_is_no_copy(count: int) -> None:
    assert near_copies(np.zeros((count, THUMB, THUMB), np.float32)) == []
    assert near_copies(np.random.default_rng(0).random((count, THUMB, THUMB), np.float32)) == []


def test_groups_joined_by_pairs_have_one_name() -> None:
    assert joined_groups(list("abcde"), []) == list("abcde")
    pairs = [(0, 1, 0.9), (3, 4, 0.9), (1, 4, 0.8), (0, 3, 0.7)]
    assert joined_groups(list("abcdef"), pairs) == list("aacaaf")
    assert joined_groups(list("ccba"), [(1, 2, 1.0)]) == list("bbba")


# --- the rate -------------------------------------------------------------------------------------
def frames(folder: Path, count: int, each: int, kind: str = "casting") -> Path:
    """Writes frames of a video of each part and returns their folder."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for seed in range(count):
        part = make(kind, seed, SIDE)[0]
        for i in range(each):
            Image.fromarray(frame(part, rng)).save(folder / f"{seed:02}_{i:03}.png")
    return folder


def test_200_frames_of_20_parts_are_guaranteed_for_like_20_parts(tmp_path: Path) -> None:
    options = TrainOptions(
        frames(tmp_path / "good", 20, 10),
        tmp_path / "run",
        space="filters",
        size=64,
        calibrate="split",
    )
    said: list[str] = []
    plan, card = dry_run(options), train(options, said.append)
    assert card is not None and card.calibration is not None and plan.prospect is not None
    assert (plan.images, plan.told, plan.groups, plan.prospect.n) == (200, 200, 20, 10)
    assert (card.calibration.n, card.calibration.rate) == (10, 1 / 11)
    assert (card.training.groups, card.training.sets) == (
        20,
        {"fit": 80, "validation": 20, "calibration": 100},
    )
    line = next(
        line for line in said if line.startswith("copies: 200 of 200 good images are copies")
    )
    assert "200 images count as 20 groups" in line and "--independent" in line
    assert plan.warnings == [line] and line in card.training.warnings


def test_a_rate_that_copies_cannot_keep_is_refused_with_the_reason(tmp_path: Path) -> None:
    good = frames(tmp_path / "good", 8, 5)
    with pytest.raises(
        CalibrationError,
        match=r"^8 good images \(or groups\) found.*; copies: 40 of 40 good images",
    ):
        dry_run(
            TrainOptions(good, tmp_path / "run", space="filters", size=64, false_alarm_rate=0.05)
        )
    few = frames(tmp_path / "few", 4, 10)
    with pytest.raises(
        DatasetError,
        match=r"^4 good images \(or groups\) found, at least 5.*40 images count as 4 groups",
    ):
        dry_run(TrainOptions(few, tmp_path / "run", space="filters", size=64))
    plan = dry_run(TrainOptions(few, tmp_path / "run", space="filters", size=64, independent=True))
    assert (plan.groups, plan.warnings) == (40, [])


def test_parts_are_one_where_each_view_has_its_copy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        # the last part is the first one again; of the tenth one view is
        seed = 0 if number == 11 else number
        for view, kind in enumerate(("casting", "cell")):
            own = 1 if (number, view) == (10, 1) else seed
            Image.fromarray(noisy(make(kind, own, SIDE)[0], rng)).save(
                tmp_path / f"part{number:02}_{view}.png"
            )
    plan = dry_run(
        TrainOptions(tmp_path, tmp_path / "run", space="filters", size=64, by_unit=r"part(\d+)_")
    )
    assert (plan.told, plan.groups) == (12, 11)
    assert "so 12 units count as 11 groups" in plan.warnings[0]


def test_photographs_of_one_tile_are_found_and_sheets_of_paper_are_not_joined(
    datasets: Path,
) -> None:
    def found_in(records: list[Path]) -> Copies:
        pictures = [decode(path).pixels for path in records]
        return copies_of(pictures, size=256)

    for paper, copies in {
        "PA_BRG03_TL": 0,
        "PA_BTN01_RL": 0,
        "PA_FVN02_RL": 0,
        "PA_FVN01_TL": 2,
    }.items():
        assert (
            len(found_in(sorted((datasets / "piped" / paper / "train/good").iterdir())).pairs)
            == copies
        )
    tiles = [
        r
        for r in read_dataset(datasets / "magnetic_tile/grouped_split_0.csv")
        if (r.split, r.label) == ("train", "good")
    ]
    found = found_in([r.path for r in tiles])
    told = len({r.group for r in tiles})
    assert 0.9 * told < scenes(found) < 1.7 * told  # of 762 photographs
