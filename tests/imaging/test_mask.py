"""The mask: what is painted where it is black changes nothing at all, in torch and in ONNX, for
every model and space.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomaly import Scorer
from anomaly.commands.main import main
from anomaly.detector.file import read_card
from anomaly.detector.training_facts import TrainingFacts
from anomaly.errors import DatasetError, DetectorError, ImageError
from anomaly.imaging.mask import coarser, mask_of, of_shapes, read_mask, to_png
from anomaly.quality.portable import write_portable
from anomaly.reporting.detector import mask_text
from data.synthetic import make
from tests.training.test_export import COMBINATIONS, graph_of, run
from tests.training.test_spaces import needs_weights
from training.export import check_parity, to_onnx
from training.pipeline import TrainOptions, train
from training.preprocess import stretched
from training.restore import restore, verify_images
from training.scores import TYPICALITY

MASK = np.zeros((40, 60), bool)
MASK[5:33, 12:55] = True
MASK[15:22, 20:31] = False  # a hole
IN_ONNX = [
    ("linear", "pixels", "portable"),
    ("linear", "features", "ort"),
    ("vae", "filters", "ort", TYPICALITY),
]


def painted(image: np.ndarray, mask: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns the image with random pixels where the mask, enlarged by Pillow, is black."""
    height, width = image.shape[:2]
    inside = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    noise = np.random.default_rng(seed).integers(0, 256, image.shape, dtype=np.uint8)
    return np.where(inside[..., None], image, noise)


# --- in the graph ---------------------------------------------------------------------------------
@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_pixels_outside_change_nothing_in_torch_and_in_onnx(combination: tuple[str, ...]) -> None:
    if "features" in combination:
        needs_weights()
    graph = graph_of(*combination, mask=MASK)
    # The mask lies in what is the same for all models; HYPOTHESIS_PROFILE=search exports every one
    # of them.
    exported = combination in IN_ONNX or os.environ.get("HYPOTHESIS_PROFILE") == "search"
    data = to_onnx(graph).SerializeToString() if exported else None
    for size in (60, 64, 200, (130, 171)):
        image = make("disc", 3, max(np.ravel(size)))[0][: np.ravel(size)[0]]
        other = painted(image, MASK)
        assert (image != other).mean() > 0.3
        if data is not None:
            one, two = run(data, image[None]), run(data, other[None])
            assert all(np.array_equal(one[name], two[name]) for name in one), "in ONNX"
        with torch.inference_mode():
            ours, theirs = (graph(torch.from_numpy(x)[None]) for x in (image, other))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), "in torch"
    if data is not None:
        assert check_parity(graph, data, [image, other], float(np.ptp(one["heatmap"]))) <= 1e-3


def test_what_is_inside_still_counts() -> None:
    graph = graph_of("linear", "pixels", mask=MASK)
    image = make("disc", 3, 200)[0]
    changed = image.copy()
    changed[60:75, 120:135] = 255 - changed[60:75, 120:135]
    with torch.inference_mode():
        (before, _, cold, _), (after, _, hot, _) = (
            graph(torch.from_numpy(x)[None]) for x in (image, changed)
        )
    assert float(after) > float(before)
    hottest = np.unravel_index(int((hot - cold).argmax()), hot.shape[1:])
    assert np.abs(np.array(hottest) / hot.shape[1:] - (67 / 200, 127 / 200)).max() < 0.2


def test_the_heatmap_outside_is_its_lowest_value_inside() -> None:
    graph = graph_of("linear", "pixels", mask=MASK)
    with torch.inference_mode():
        heatmap = graph(torch.from_numpy(make("disc", 3, 64)[0])[None])[2][0].numpy()
    touched = np.asarray(Image.fromarray(MASK).resize((64, 64), Image.Resampling.NEAREST))
    assert heatmap[2, 2] == heatmap.min() == heatmap[touched].min()
    assert np.ptp(heatmap[touched]) > 0


@given(
    mask=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**20)),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_a_stretched_mask_inspects_nothing_that_pillow_would_not(
    mask: tuple[int, int, int], height: int, width: int
) -> None:
    drawn = np.random.default_rng(mask[2]).random(mask[:2]) > 0.4
    over = stretched(torch.from_numpy(drawn), height, width).numpy()
    if height >= mask[0] and width >= mask[1]:
        nearest = np.asarray(
            Image.fromarray(drawn).resize((width, height), Image.Resampling.NEAREST)
        )
        assert not (over & ~nearest).any()


# --- from the file to the verdict -----------------------------------------------------------------
@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with good grey cells, a mask and a run that was trained with it."""
    root = tmp_path_factory.mktemp("masked")
    (root / "good").mkdir()
    for seed in range(40):
        Image.fromarray(make("cell", seed, 96)[0]).save(root / "good" / f"{seed:02}.png")
    Image.fromarray(MASK).save(root / "mask.png")
    train(
        TrainOptions(root / "good", root / "run", space="filters", size=64, mask=root / "mask.png"),
        lambda line: None,
    )
    return root


def test_score_p_value_and_verdict_of_files_painted_outside(masked: Path, tmp_path: Path) -> None:
    scorer = Scorer(masked / "run", verify=True)
    for seed in range(5):
        path = masked / "good" / f"{seed:02}.png"
        Image.fromarray(painted(np.asarray(Image.open(path)), MASK, seed)).save(
            tmp_path / "painted.png"
        )
        one, two = scorer.score(path), scorer.score(tmp_path / "painted.png")
        assert (one.score, one.p_value, one.is_anomaly, one.status, one.box, one.area) == (
            two.score, two.p_value, two.is_anomaly, two.status, two.box, two.area,
        )  # fmt: skip
        assert np.array_equal(one.heatmap, two.heatmap)
        assert np.array_equal(scorer.explain(path), scorer.explain(tmp_path / "painted.png"))


def test_images_painted_outside_train_the_same_detector(masked: Path, tmp_path: Path) -> None:
    for path in sorted((masked / "good").iterdir()):
        Image.fromarray(painted(np.asarray(Image.open(path)), MASK, int(path.stem))).save(
            tmp_path / path.name
        )
    card = train(
        TrainOptions(
            tmp_path, tmp_path / "run", space="filters", size=64, mask=masked / "mask.png"
        ),
        lambda line: None,
    )
    first = read_card(masked / "run")
    assert (card.weights, card.calibration) == (first.weights, first.calibration)


def test_the_portable_form_and_the_checkpoint_keep_the_mask(masked: Path, tmp_path: Path) -> None:
    write_portable(masked / "run" / "detector.onnx", tmp_path / "portable.onnx")
    image = make("cell", 50, 96)[0]
    scores = [
        Scorer(tmp_path / "portable.onnx").score(x).score for x in (image, painted(image, MASK))
    ]
    assert (
        scores[0] == scores[1] == pytest.approx(Scorer(masked / "run").score(image).score, rel=1e-3)
    )
    assert np.array_equal(restore(masked / "run").graph.prepare.mask.numpy(), MASK)
    card = read_card(masked / "run")
    assert verify_images(masked / "run", masked / "good", card).startswith(
        "torch against ONNX      40 of your images"
    )


def test_card_show_and_report_say_what_is_inspected(
    masked: Path, capsys: pytest.CaptureFixture
) -> None:
    card = read_card(masked / "run")
    assert np.array_equal(card.training.mask.mask, MASK)
    said = f"mask.png: {100 * MASK.mean():.0f} % of the image is inspected, the rest is ignored"
    assert mask_text(card.training.mask) == said
    assert main(["show", str(masked / "run")]) == 0
    assert f"mask                    {said}" in capsys.readouterr().out
    page = (masked / "run" / "report.html").read_text(encoding="utf-8")
    assert said in page and 'alt="mask: white is inspected, black is not"' in page
    assert "stretched over 40 of 40 images that have another shape" in card.training.warnings[0]


def test_a_damaged_mask_in_a_card_is_said() -> None:
    for png in ("???", base64.b64encode(b"no picture").decode()):
        with pytest.raises(DetectorError, match=r"^the card's mask is damaged"):
            mask_of(png, 1.0)
    for facts in ({}, {"png": "???"}, {"png": base64.b64encode(b"no picture").decode()}, 3):
        with pytest.raises(ValueError, match=r"^training\.mask: .* found, which it cannot be$"):
            TrainingFacts.from_json({"mask": facts})


# --- files ----------------------------------------------------------------------------------------
def test_mask_files(tmp_path: Path) -> None:
    for mode in ("1", "L", "RGB", "P"):
        Image.fromarray(MASK).convert(mode).save(tmp_path / f"{mode}.png")
        assert np.array_equal(read_mask(tmp_path / f"{mode}.png"), MASK)
    (tmp_path / "again.png").write_bytes(to_png(MASK))
    assert np.array_equal(read_mask(tmp_path / "again.png"), MASK)


@pytest.mark.parametrize(
    ("name", "picture", "message"),
    [
        (
            "white.png",
            np.ones((9, 9), bool),
            r"white\.png: not a black pixel found; a mask is black where",
        ),
        ("black.png", np.zeros((9, 9), bool), r"black\.png: only black pixels found"),
        ("mask.jpg", MASK, r"mask\.jpg: a JPEG file found, a mask as PNG expected"),
        (
            "thin.png",
            np.eye(3000, dtype=bool),
            r"thin\.png: what is not black is thinner than a thousandth",
        ),
    ],
)
def test_masks_that_cannot_be_used(
    name: str, picture: np.ndarray, message: str, tmp_path: Path
) -> None:
    Image.fromarray(picture).convert("L").save(tmp_path / name)
    with pytest.raises(DatasetError, match=message):
        read_mask(tmp_path / name)


def test_a_file_that_is_no_picture_stops_training_in_one_line(
    masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "mask.png").write_text("none")
    with pytest.raises(ImageError, match="none of JPEG"):
        read_mask(tmp_path / "mask.png")
    options = ["train", str(masked / "good"), "--out", str(tmp_path / "run"), "--mask"]
    for name in ("mask.png", "missing.png"):
        assert main([*options, str(tmp_path / name)]) == 1
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20))
def test_a_coarser_mask_never_inspects_what_the_finer_one_left_out(
    height: int, width: int, cells: int
) -> None:
    fine = np.random.default_rng(height * width).random((height, width)) > 0.1
    over = stretched(torch.from_numpy(coarser(fine, cells)), height, width).numpy()
    assert max(coarser(fine, cells).shape) <= cells
    assert not (over & ~fine).any()


def box(left: float, top: float, right: float, bottom: float, inspect: bool) -> dict[str, object]:
    return {"kind": "box", "points": [left, top, right, bottom], "inspect": inspect}


def test_shapes_lie_over_each_other_and_the_first_says_what_the_rest_is() -> None:
    drawn = of_shapes([box(1, 2, 9, 6, True), box(5, 4, 10, 8, False)], 8, 10)
    expected = np.zeros((8, 10), bool)
    expected[2:6, 1:9] = True
    expected[4:, 5:] = False
    assert np.array_equal(drawn, expected)
    assert of_shapes([box(0, 0, 2, 2, False)], 2, 4).tolist() == [[False, False, True, True]] * 2
    # over a mask that is edited, of another size: nothing but what is drawn changes
    edited = of_shapes([box(9, 0, 10, 1, True)], 16, 20, drawn)
    assert np.array_equal(edited[1::2, ::2], drawn[:, :]) and edited[0, 9] and not edited[0, 10]
    assert np.array_equal(of_shapes([], 8, 10, drawn), drawn) and of_shapes([], 2, 2).all()
    round_one = {"kind": "polygon", "points": [4, 0, 8, 4, 4, 8, 0, 4], "inspect": True}
    assert 28 <= of_shapes([round_one], 8, 8).sum() <= 44
    for wrong in (
        [{"kind": "box", "points": [0, 0, 1], "inspect": True}],
        [{"kind": "box", "points": [5, 0, 1, 1], "inspect": True}],
        [{"kind": "box", "points": ["a", 0, 1, 1], "inspect": True}],
        [{"kind": "box", "points": [0, 0, 1, 1]}],
        [{"kind": "heart", "points": [0, 0, 1, 1], "inspect": True}],
    ):
        with pytest.raises(DatasetError, match="draw them again"):
            of_shapes(wrong, 8, 10)
