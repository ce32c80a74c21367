"""Scorer: every way to give an image, and what it says of images, files and machines that are not
as they should be.
"""

from __future__ import annotations

import importlib.metadata
import io
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from anomaly import ImageError, Result, Scorer
from anomaly.detector.calibration_nodes import set_calibration
from anomaly.detector.file import CARD_KEY
from anomaly.detector.golden import golden_picture
from anomaly.detector.session import open_session
from anomaly.errors import DetectorError, RuntimeMissing
from anomaly.imaging.decode import decode
from anomaly.imaging.region import hottest_region
from anomaly.inputs.dataset import labelled_test, read_dataset
from anomaly.scorer import BATCH
from data.synthetic import make
from tests.detector.test_file import changed, edit_card

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scorer(run: Path) -> Scorer:
    return Scorer(run, device="cpu")


def part(seed: int = 5, height: int = 64, width: int = 64) -> np.ndarray:
    return np.ascontiguousarray(make("disc", seed, max(height, width))[0][:height, :width])


def file_of(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def same(a: Result, b: Result) -> bool:
    return (a.score, a.status, a.box, a.area) == (b.score, b.status, b.box, b.area)


# --- what an image may be -------------------------------------------------------------------------
def test_an_image_given_in_any_way_has_the_same_score(scorer: Scorer, tmp_path: Path) -> None:
    pixels = part(height=50, width=61)
    image, path = Image.fromarray(pixels), tmp_path / "part.png"
    image.save(path)
    ways = [
        str(path),
        path,
        path.read_bytes(),
        pixels,
        image,
        Image.open(path),
        np.asfortranarray(pixels),
    ]
    results = [scorer.score(way) for way in ways]
    assert all(same(result, results[0]) for result in results)
    assert (results[0].width, results[0].height) == (61, 50)
    assert all(same(result, results[0]) for result in scorer.score(ways))
    assert all(same(result, results[0]) for result in scorer.score(tuple(ways)))
    assert all(same(result, results[0]) for result in scorer.score(np.stack([pixels, pixels])))


def test_sizes_may_be_mixed(scorer: Scorer) -> None:
    images = [
        part(seed, height, width)
        for seed, (height, width) in enumerate([(64, 64), (97, 90), (33, 40), (200, 201)])
    ]
    together = scorer.score(images)
    assert [(r.height, r.width) for r in together] == [image.shape[:2] for image in images]
    assert all(same(a, scorer.score(image)) for a, image in zip(together, images, strict=True))
    assert scorer.score([]) == []


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "F", "I"],
)
def test_a_pil_image_of_any_mode_is_what_its_pixels_show(mode: str, scorer: Scorer) -> None:
    through = {"PA": "P", "RGBa": "RGBA"}  # the way that Pillow converts
    image = Image.fromarray(part()).convert(through.get(mode, mode)).convert(mode)
    if mode == "I":  # grey values of 16 bits, as libraries before Pillow 11 hold them
        image = Image.fromarray(part()[..., 0].astype(np.int32) * 257)
    expected = np.asarray(
        Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        if mode == "I"
        else image.convert("RGB")
    )
    found = scorer.decode(image).pixels
    assert np.abs(found.astype(int) - expected.reshape(64, 64, -1)).max() <= 1


def test_sixteen_bits_in_a_pil_image_are_scaled_and_not_clipped(scorer: Scorer) -> None:
    grey = part()[..., 0].astype(np.uint16)
    for image in (Image.fromarray(grey * 257), Image.fromarray((grey * 257).astype(np.int32))):
        decoded = scorer.decode(image)
        assert decoded.bits == 16
        np.testing.assert_array_equal(decoded.pixels, np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_is_applied_whichever_way_the_image_comes(
    format: str, orientation: int, scorer: Scorer
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(Image.fromarray(part(height=40, width=60)), format, exif=exif)
    from_bytes, from_pil = scorer.decode(data), scorer.decode(Image.open(io.BytesIO(data)))
    assert from_bytes.pixels.shape == ((60, 40, 3) if orientation in (6, 8) else (40, 60, 3))
    np.testing.assert_array_equal(from_bytes.pixels, from_pil.pixels)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 4)), r"float64 \(4, 4\)"),
        (np.zeros((4, 4), np.uint16), r"uint16 \(4, 4\)"),
        (np.zeros((4, 4, 2), np.uint8), r"uint8 \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \(0, 4, 3\)"),
        (np.zeros(4, np.uint8), r"uint8 \(4,\)"),
    ],
)
def test_arrays_that_are_no_image_are_refused(
    array: np.ndarray, found: str, scorer: Scorer
) -> None:
    with pytest.raises(
        ImageError,
        match=rf"^an array {found} found, uint8 \(H, W\), \(H, W, 3\) or \(H, W, 4\) expected$",
    ):
        scorer.score(array)


def test_what_is_no_image_at_all_is_refused(scorer: Scorer) -> None:
    with pytest.raises(
        ImageError, match=r"^int found; a path, bytes, PIL image or uint8 array expected$"
    ):
        scorer.score(7)  # type: ignore[arg-type]


def test_a_pil_image_of_a_broken_file_is_an_image_error(scorer: Scorer) -> None:
    data = file_of(Image.fromarray(part()), "PNG")
    image = Image.open(io.BytesIO(data[: len(data) // 2]))
    with pytest.raises(ImageError, match="a PIL image of mode RGB that cannot be used"):
        scorer.score(image)


# --- many images ----------------------------------------------------------------------------------
def test_in_a_list_a_broken_image_is_a_row_and_the_others_are_scored(
    scorer: Scorer, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    results = scorer.score(
        [part(), tmp_path / "broken.png", b"", tmp_path / "none.png", np.zeros(3), part()]
    )
    assert [(r.status, r.kind) for r in results] == [
        ("ok", None),
        ("error", "truncated"),
        ("error", "empty"),
        ("error", "missing"),
        ("error", "not an image"),
        ("ok", None),
    ]
    assert same(results[0], results[5])
    for result in results[1:5]:
        assert (result.score, result.p_value, result.is_anomaly, result.heatmap, result.box) == (
            None,
        ) * 5
        assert result.error
    with pytest.raises(ImageError, match=r"broken\.png: PNG that ends early after 8 bytes"):
        scorer.score(tmp_path / "broken.png")


@pytest.mark.parametrize("format", ["TIFF", "GIF", "PNG", "WEBP", "MPO"])
def test_a_file_of_several_pages_has_no_verdict(
    format: str, scorer: Scorer, tmp_path: Path
) -> None:
    frames = [Image.fromarray(make("disc", seed, 64)[0]) for seed in range(3)]
    frames[0].save(tmp_path / "x", format, save_all=True, append_images=frames[1:])
    data = (tmp_path / "x").read_bytes()
    for image in (data, tmp_path / "x"):
        with pytest.raises(ImageError, match="3 pages or frames found, one expected") as refused:
            scorer.score(image)
        assert refused.value.kind == "several pages"
    first, second = scorer.score([data, frames[0]])
    assert (first.status, first.is_anomaly, first.kind, second.status) == (
        "error",
        None,
        "several pages",
        "ok",
    )
    with Image.open(tmp_path / "x") as image:
        with pytest.raises(ImageError, match=r"3 pages or frames found, .* or give a copy"):
            scorer.score(image)
        image.seek(1)
        assert scorer.score(image.copy()).status != "error"
    assert [page for page, _ in scorer.decode_pages(data)] == [1, 2, 3]
    assert scorer.judge(scorer.decode(data, page=2)).score is not None


def test_too_many_pixels_are_refused_before_they_are_decoded(run: Path, tmp_path: Path) -> None:
    Image.fromarray(part()).save(tmp_path / "part.png")
    with pytest.raises(ImageError, match=r"64 x 64 pixels, at most 4,095 in all expected"):
        Scorer(run, device="cpu", max_pixels=4095).score(tmp_path / "part.png")


def test_threads_share_a_scorer(scorer: Scorer) -> None:
    images = [part(seed, 60 + seed % 5, 64) for seed in range(40)]
    alone = [scorer.score(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(scorer.score, images))
        explained = list(pool.map(scorer.explain, images[:8]))
    for a, b in zip(alone, together, strict=True):
        assert same(a, b)
        np.testing.assert_array_equal(a.heatmap, b.heatmap)
    for image, picture in zip(images, explained, strict=False):
        np.testing.assert_array_equal(picture, scorer.explain(image))


@pytest.mark.parametrize("name", ["run", "pixel_run"])
def test_a_batch_scores_like_single_images(name: str, request: pytest.FixtureRequest) -> None:
    scorer = Scorer(request.getfixturevalue(name), device="cpu")
    calibration = scorer.card.calibration
    assert calibration is not None
    unit = float(calibration.threshold - calibration.median)
    images = np.stack([part(seed, 57, 63) for seed in range(7)])
    together = scorer.run(images)
    for i, image in enumerate(images):
        alone = scorer.run(image[None])
        for output in ("score", "heatmap"):
            # A VAE's score has a large constant part: where it has hardly learned, 1e-5 of its
            # spread is below one float32.
            tolerance = max(1e-5 * unit, 4 * np.spacing(np.abs(alone[output][0]).max()))
            assert np.abs(together[output][i] - alone[output][0]).max() <= tolerance
        assert together["in_range"][i] == alone["in_range"][0]


# --- the verdict ----------------------------------------------------------------------------------
def test_score_p_value_and_verdict_agree_with_the_calibration(scorer: Scorer, parts: Path) -> None:
    calibration = scorer.card.calibration
    assert calibration is not None
    for record in labelled_test(read_dataset(parts)):
        result = scorer.score(record.path)
        assert result.score is not None and result.heatmap is not None
        count = int((calibration.scores >= np.float32(result.score)).sum())
        assert result.p_value == (1 + count) / (calibration.n + 1)
        if result.status == "ok":
            assert (
                result.is_anomaly
                == (result.score > calibration.threshold)
                == (result.p_value <= calibration.rate)
            )
        assert result.heatmap.shape == (7, 7) and result.heatmap.dtype == np.float32


def test_flagged_defects_are_boxed_where_they_are(scorer: Scorer, parts: Path) -> None:
    flagged, met = 0, 0
    records = [record for record in labelled_test(read_dataset(parts)) if record.label != "good"]
    for record in records:
        result = scorer.score(record.path)
        if result.is_anomaly:
            assert result.box is not None and record.mask is not None
            x, y, width, height = result.box
            flagged += 1
            met += bool(decode(record.mask).pixels[y : y + height, x : x + width, 0].any())
    assert flagged >= len(records) // 4  # 51 images of 64 x 64 pixels teach little
    assert met > flagged / 2


def test_the_pixel_space_shows_what_was_expected(pixel_run: Path) -> None:
    result = Scorer(pixel_run, device="cpu").score(part(height=100, width=90))
    assert result.reconstruction is not None and result.reconstruction.shape == (64, 64, 3)
    assert result.reconstruction.dtype == np.uint8


def test_a_rank_only_detector_gives_a_score_and_no_verdict(
    run: Path, scorer: Scorer, tmp_path: Path
) -> None:
    def strip(model: onnx.ModelProto) -> None:
        set_calibration(model, None)
        edit_card(model, calibration=None)

    result = Scorer(changed(run, tmp_path / "rank.onnx", strip), device="cpu").score(part())
    assert (result.status, result.p_value, result.is_anomaly) == ("ok", None, None)
    assert result.score == scorer.score(part()).score and result.box is not None


def poison(model: onnx.ModelProto) -> None:
    """Makes every score NaN."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and not tensor.name.startswith(
            "calibration."
        ):
            value = np.full_like(onnx.numpy_helper.to_array(tensor), np.nan)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))


def test_a_score_that_is_no_number_is_an_error_and_never_good(run: Path, tmp_path: Path) -> None:
    scorer = Scorer(changed(run, tmp_path / "nan.onnx", poison), device="cpu")
    result = scorer.score(part())
    assert (result.status, result.kind, result.score, result.is_anomaly) == (
        "error",
        "not finite",
        None,
        None,
    )
    with pytest.raises(
        DetectorError, match=r"a golden sample scores differently here .*: nan instead of"
    ):
        scorer.verify_golden()


# --- the hottest region ---------------------------------------------------------------------------
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    data=st.data(),
)
def test_the_box_lies_in_the_image_and_holds_the_hottest_cell(
    shape: tuple[int, int], size: tuple[int, int], data: st.DataObject
) -> None:
    heatmap = data.draw(arrays(np.float32, shape, elements=st.floats(-10, 10, width=32)))
    (x, y, width, height), area = hottest_region(
        heatmap, *size, normal=data.draw(st.none() | st.floats(-10, 10))
    )
    assert 0 <= x < x + width <= size[0] and 0 <= y < y + height <= size[1]
    assert 1 <= area <= size[0] * size[1]
    row, column = np.unravel_index(int(heatmap.argmax()), shape)
    assert x <= (column + 0.5) * size[0] / shape[1] <= x + width
    assert y <= (row + 0.5) * size[1] / shape[0] <= y + height


def test_the_region_is_what_is_connected_with_the_hottest_cell() -> None:
    heatmap = np.zeros((8, 8), np.float32)
    heatmap[1, 1:4] = 5, 9, 6  # 9 is the hottest; half of the way from 1 is 5
    heatmap[2, 1] = 4.9
    heatmap[6:, 6:] = 8  # as hot, but elsewhere
    assert hottest_region(heatmap, 80, 160, normal=1.0) == ((10, 20, 30, 20), 3 * 10 * 20)


# --- the picture that the model expected ----------------------------------------------------------
def alone(run: Path, folder: Path) -> Path:
    """Returns a copy of a detector without the files beside it."""
    folder.mkdir()
    return Path(shutil.copy(run / "detector.onnx", folder / "detector.onnx"))


def test_explain_gives_the_expected_picture(run: Path, pixel_run: Path, scorer: Scorer) -> None:
    pixels = part(height=80, width=70)
    picture = scorer.explain(pixels)
    assert picture is not None and (picture.shape, picture.dtype) == ((96, 96, 3), np.uint8)
    np.testing.assert_array_equal(picture, scorer.explain(scorer.decode(pixels)))
    of_pixels = Scorer(pixel_run, device="cpu")
    np.testing.assert_array_equal(of_pixels.explain(pixels), of_pixels.score(pixels).reconstruction)


def test_without_its_own_explain_file_there_is_no_expected_picture(
    run: Path, tmp_path: Path
) -> None:
    detector = alone(run, tmp_path / "alone")
    assert Scorer(detector, device="cpu").explain(part()) is None
    foreign = onnx.load(run / "explain.onnx")
    onnx.helper.set_model_props(foreign, {"weights": "0" * 64})
    onnx.save(foreign, detector.with_name("explain.onnx"))
    assert Scorer(detector, device="cpu").explain(part()) is None


def test_a_damaged_or_unsafe_explain_file_is_refused(run: Path, tmp_path: Path) -> None:
    explain = alone(run, tmp_path / "alone").with_name("explain.onnx")
    explain.write_bytes((run / "explain.onnx").read_bytes()[:5000])
    with pytest.raises(DetectorError, match=r"explain\.onnx: not an ONNX file, or a truncated one"):
        Scorer(tmp_path / "alone", device="cpu").explain(part())
    unsafe = onnx.load(run / "explain.onnx")
    unsafe.graph.node[0].op_type = "Loop"
    onnx.save(unsafe, explain)
    with pytest.raises(DetectorError, match=r"explain\.onnx: operator 'Loop' found"):
        Scorer(tmp_path / "alone", device="cpu").explain(part())


# --- golden samples and files that are not what they say ------------------------------------------
def test_golden_samples_are_right_here(run: Path, pixel_run: Path, grey_run: Path) -> None:
    for path in (run, pixel_run, grey_run):
        assert 0 <= Scorer(path, device="cpu", verify=True).verify_golden() <= 1


def test_the_golden_picture_is_the_formula_in_the_card(scorer: Scorer) -> None:
    assert (
        scorer.card.golden["formula"] == "pixel[y, x, c] = (a x + b y + (x y >> 4) + 64 c) mod 256"
    )
    picture = golden_picture(40, 50, 7, 2)
    assert [int(picture[y, x, c]) for y, x, c in ((0, 0, 0), (0, 0, 2), (39, 49, 1))] == [
        0,
        128,
        (7 * 49 + 2 * 39 + (49 * 39 >> 4) + 64) % 256,
    ]
    sizes = [max(s["height"], s["width"]) / scorer.card.size for s in scorer.card.golden["samples"]]
    assert sum(2 <= size <= 5 for size in sizes) >= 2


@pytest.mark.parametrize("which", range(5))
def test_a_golden_sample_with_another_score_is_found(
    which: int, run: Path, scorer: Scorer, tmp_path: Path
) -> None:
    golden = {
        **scorer.card.golden,
        "samples": [dict(sample) for sample in scorer.card.golden["samples"]],
    }
    sample = golden["samples"][which]
    # of an outlier float32 holds less
    distance = abs(sample["score"] - float(scorer.card.calibration.median))
    sample["score"] += 3 * max(golden["tolerance"], 1e-5 * distance)
    path = changed(run, tmp_path / "detector.onnx", lambda model: edit_card(model, golden=golden))
    with pytest.raises(
        DetectorError, match=r"detector\.onnx: a golden sample scores differently here \(\d+x\d+: "
    ):
        Scorer(path, device="cpu").verify_golden()
    with pytest.raises(DetectorError, match="a golden sample scores differently here"):
        Scorer(path, device="cpu", verify=True)


@pytest.mark.parametrize(
    "golden",
    [
        {},
        {"tolerance": 0.1, "samples": []},
        {"tolerance": 0, "samples": [{}]},
        {"tolerance": 0.1, "samples": [{"height": 1}]},
    ],
)
def test_golden_samples_that_are_missing_or_damaged_prove_nothing(
    golden: dict, run: Path, tmp_path: Path
) -> None:
    path = changed(run, tmp_path / "detector.onnx", lambda model: edit_card(model, golden=golden))
    with pytest.raises(DetectorError, match="no golden samples in the card, or damaged ones"):
        Scorer(path, device="cpu").verify_golden()


def test_a_huge_golden_sample_is_not_made(run: Path, tmp_path: Path) -> None:
    sample = {"height": 10**6, "width": 10**6, "a": 1, "b": 1, "score": 0.0}
    golden = {"tolerance": 0.1, "samples": [sample]}
    path = changed(run, tmp_path / "detector.onnx", lambda model: edit_card(model, golden=golden))
    with pytest.raises(DetectorError, match="no golden samples in the card, or damaged ones"):
        Scorer(path, device="cpu").verify_golden()


def rename_output(model: onnx.ModelProto) -> None:
    identity = onnx.helper.make_node("Identity", ["heatmap"], ["warmth"], name="judge/warmth")
    model.graph.node.append(identity)
    next(output for output in model.graph.output if output.name == "heatmap").name = "warmth"


def flatten_heatmap(model: onnx.ModelProto) -> None:
    model.graph.node.append(
        onnx.helper.make_node("Flatten", ["heatmap"], ["flat"], name="judge/flat")
    )
    for node in model.graph.node:
        node.output[:] = ["hot" if name == "heatmap" else name for name in node.output]
        node.input[:] = ["hot" if name == "heatmap" else name for name in node.input]
    model.graph.node[-1].output[:] = ["heatmap"]
    output = next(output for output in model.graph.output if output.name == "heatmap")
    output.type.tensor_type.shape.ClearField("dim")
    output.type.tensor_type.shape.dim.add(dim_param="N")
    output.type.tensor_type.shape.dim.add(dim_value=16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            rename_output,
            r"output 'heatmap': nothing found, tensor\(float\) of 3 dimensions expected",
        ),
        (
            flatten_heatmap,
            (
                r"output 'heatmap': tensor\(float\) of 2 dimensions found, tensor\(float\) of 3 "
                r"dimensions expected"
            ),
        ),
        (
            lambda model: set_calibration(model, None),
            "neither p_value nor is_anomaly found among its outputs",
        ),
        (lambda model: model.graph.node.pop(0), "ONNX Runtime cannot load this file"),
    ],
)
def test_a_file_with_a_card_that_is_no_detector_is_refused(
    change: object, message: str, run: Path, tmp_path: Path
) -> None:
    path = changed(run, tmp_path / "detector.onnx", change)
    with pytest.raises(DetectorError, match=message):
        Scorer(path, device="cpu")


def test_a_run_folder_and_its_file_are_the_same_detector(run: Path, scorer: Scorer) -> None:
    assert Scorer(str(run / "detector.onnx")).card == scorer.card
    with pytest.raises(DetectorError, match="no such file or folder"):
        Scorer(run / "none.onnx")


# --- ONNX Runtime ---------------------------------------------------------------------------------
def test_the_device_is_said_and_never_taken_silently(run: Path) -> None:
    scorer = Scorer(run)
    assert scorer.device in ("cpu", "cuda")
    if scorer.device == "cpu":
        with pytest.raises(
            RuntimeMissing, match=r"^CUDA was asked for, but ONNX Runtime .* cannot use it here"
        ):
            Scorer(run, device="cuda")
    with pytest.raises(RuntimeMissing, match="device 'gpu' found; auto, cpu or cuda expected"):
        Scorer(run, device="gpu")


class Together(Scorer):
    """Judges as on a GPU, images of one size together; the runtime fails where a white image is
    among them.
    """

    at_most_together = BATCH

    def _run(self, session: object, images: np.ndarray) -> dict[str, np.ndarray]:
        self.calls = [*getattr(self, "calls", []), len(images)]
        if any(image.min() == 255 for image in images):
            raise ImageError("runtime", "out of memory")
        return super()._run(session, images)


def test_images_judged_together_have_the_verdicts_of_each_alone(run: Path, scorer: Scorer) -> None:
    together, white = Together(run, device="cpu"), np.full((64, 64, 3), 255, np.uint8)
    images = [
        *(part(seed) for seed in range(6)),
        part(6, 40, 50),
        b"no image",
        *(part(k) for k in range(7, 15)),
    ]
    images += [white, *(part(seed) for seed in range(15, 20)), np.zeros((1200, 1200, 3), np.uint8)]
    found, alone = together.score(images), scorer.score(images)
    # the second sixteen have the white one, and go one by one
    assert together.calls == [BATCH, 1, BATCH, *[1] * 6, 1]
    assert [(found[k].status, found[k].kind) for k in (7, 16)] == [
        ("error", "not an image"),
        ("error", "runtime"),
    ]
    for k in set(range(len(images))) - {7, 16}:
        assert found[k].score == pytest.approx(alone[k].score, rel=1e-5)
        same = (found[k].status, found[k].is_anomaly, found[k].width, found[k].box)
        assert same == (alone[k].status, alone[k].is_anomaly, alone[k].width, alone[k].box)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["run", "pixel_run", "grey_run"])
def test_a_gpu_scores_like_the_cpu(name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    if Scorer(path).device == "cpu":
        pytest.skip("ONNX Runtime finds no CUDA device here")
    cpu, gpu = Scorer(path, device="cpu"), Scorer(path, device="cuda", verify=True)
    images = [part(seed) for seed in range(20)]  # sixteen together, the others one by one
    unit = float(cpu.card.calibration.threshold - cpu.card.calibration.median)
    scores = [np.array([result.score for result in scorer.score(images)]) for scorer in (cpu, gpu)]
    assert np.ptp(scores[0]) > 0.01 * unit
    assert np.abs(scores[0] - scores[1]).max() <= 1e-3 * unit


def test_one_thread_scores_like_two(run: Path, scorer: Scorer) -> None:
    calibration = scorer.card.calibration
    assert calibration is not None
    unit = float(calibration.threshold - calibration.median)
    scores = [
        Scorer(run, device="cpu", threads=threads).run(part()[None])["score"][0]
        for threads in (1, 2)
    ]
    assert abs(scores[0] - scores[1]) <= 1e-5 * unit


def in_a_fresh_process(code: str, *paths: Path) -> list[str]:
    """Returns the lines that ``code`` prints; ``paths`` come first on its sys.path."""
    code = f"import sys\nsys.path[:0] = {[str(path) for path in (*paths, ROOT)]!r}\n{code}"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return ran.stdout.splitlines()


def test_scoring_imports_numpy_pillow_and_onnxruntime_only(run: Path, tmp_path: Path) -> None:
    Image.fromarray(part()).save(tmp_path / "part.png")
    lines = in_a_fresh_process(
        "before = set(sys.modules)\n"
        "from anomaly import Scorer\n"
        f"scorer = Scorer({str(run)!r})\n"
        f"print(scorer.score({str(tmp_path / 'part.png')!r}).score)\n"
        f"scorer.explain({str(tmp_path / 'part.png')!r})\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    brought = importlib.metadata.packages_distributions()
    third_party = {
        name for name in lines[1].split() if name in brought and set(brought[name]) != {"anomaly"}
    }
    assert {"numpy", "PIL", "onnxruntime"} <= third_party
    assert third_party - {"numpy", "PIL", "onnxruntime"} == set()
    assert float(lines[0]) > 0


def test_an_image_given_as_bytes_opens_no_file(run: Path, tmp_path: Path) -> None:
    """What is installed was once looked up for each inference with a time limit."""
    Image.fromarray(part()).save(tmp_path / "part.png")
    (opened,) = in_a_fresh_process(
        "from anomaly import Scorer\n"
        f"scorer = Scorer({str(run)!r}, seconds=60)\n"
        f"data = open({str(tmp_path / 'part.png')!r}, 'rb').read()\n"
        "scorer.score(data)\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, given: event == 'open' and opened.append(given[0]))\n"
        "scorer.score(data)\n"
        "print(opened)"
    )
    assert opened == "[]"


def claim(folder: Path, *packages: str) -> Path:
    """Returns a folder whose metadata claims that packages are installed."""
    for package in packages:
        info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    return folder


TRY = """
from anomaly.errors import AnomalyError
from anomaly.scorer import import_runtime
try:
    import_runtime()
    print("found")
except AnomalyError as error:
    print(error)
"""


def test_both_packages_of_onnx_runtime_are_one_clear_line(tmp_path: Path) -> None:
    assert in_a_fresh_process(TRY, claim(tmp_path, "onnxruntime", "onnxruntime-gpu")) == [
        "both onnxruntime and onnxruntime-gpu are installed and overwrite each other, one "
        "expected: pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'anomaly[cpu]' "
        "or 'anomaly[gpu]'"
    ]


def test_no_onnx_runtime_is_one_clear_line() -> None:
    assert in_a_fresh_process("sys.modules['onnxruntime'] = None" + TRY) == [
        (
            "ONNX Runtime is not installed: pip install 'anomaly[cpu]', or 'anomaly[gpu]' with an "
            "NVIDIA GPU"
        )
    ]


def test_the_card_is_where_other_languages_find_it(run: Path) -> None:
    session, device = open_session((run / "detector.onnx").read_bytes(), "cpu", 1)
    assert device == "cpu"
    assert list(session.get_modelmeta().custom_metadata_map) == [CARD_KEY]


# --- under load -----------------------------------------------------------------------------------
class Counted:
    """A session that notes how many of its runs overlapped."""

    def __init__(self, session: object) -> None:
        self.session, self.lock, self.running, self.most = session, threading.Lock(), 0, 0

    def run(self, *arguments: object) -> object:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.01)
        found = self.session.run(*arguments)  # type: ignore[attr-defined]
        with self.lock:
            self.running -= 1
        return found


@pytest.mark.parametrize("at_once", [1, 3])
def test_so_many_inferences_run_at_once_and_no_more(at_once: int, run: Path) -> None:
    scorer = Scorer(run, device="cpu", threads=1, at_once=at_once)
    scorer._session = Counted(scorer._session)
    image = np.full((40, 40, 3), 90, np.uint8)
    with ThreadPoolExecutor(8) as pool:
        scores = {result.score for result in pool.map(scorer.score, [image] * 24)}
    assert (len(scores), scorer._session.most) == (1, at_once)


def test_a_budget_that_is_kept_changes_nothing(run: Path) -> None:
    image = np.full((40, 40, 3), 90, np.uint8)
    assert (
        Scorer(run, device="cpu", seconds=30).score(image).score
        == Scorer(run, device="cpu").score(image).score
    )


def test_after_a_fork_it_says_so_instead_of_hanging(run: Path) -> None:
    program = (
        "import os, sys, numpy as np\n"
        "from anomaly import Scorer\n"
        "scorer, image = Scorer(sys.argv[1], device='cpu', threads=2), np.full((40, 40, 3), 90, "
        "np.uint8)\n"
        "expected = scorer.score(image).score\n"
        "if child := os.fork(): sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "try: scorer.score(image)\n"
        "except Exception as error: print(error, flush=True)\n"
        "os._exit(7 * (Scorer(sys.argv[1], device='cpu').score(image).score == expected))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, run],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.partition(",")[0]) == (
        7,
        "a Scorer made before a fork found in the child process",
    )
