"""torch -> one ONNX file: the whole way from uint8 pixels to the score in one graph, checked
against torch.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.fx.config
from torch import Tensor, nn

from anomaly.detector.golden import golden_picture
from anomaly.detector.graph import OPSET
from anomaly.detector.session import available_cores, open_session
from anomaly.errors import TrainingError
from anomaly.statistics.calibration import Calibration
from training.fine_heatmap import FineHeatmap
from training.guard import Guard
from training.known_defects import descriptor
from training.pose import Pose
from training.preprocess import Preprocess
from training.protocols import Model, Space
from training.scores import Heatmap, ImageScore
from training.tensors import small
from training.tiles import Tiles

NO_TRACES = "do_not_emit_stack_traces"  # of torch.fx.config; an older torch knows no such option


class DetectorGraph(nn.Module):
    """uint8 images (N, H, W, 3) -> score (N,), in_range (N,), heatmap (N, h, w) and, in pixel
    space, reconstruction, or, where types of known defects have names, type_scores (N, T).
    """

    def __init__(
        self,
        prepare: Preprocess,
        space: Space,
        model: Model,
        score: ImageScore,
        guard: Guard,
        to_heatmap: Heatmap | None = None,
        finer: Tiles | FineHeatmap | None = None,
        pose: Pose | None = None,
    ) -> None:
        """``finer``: what sees more than the cells of the model, if anything does."""
        super().__init__()
        self.to_heatmap, self.pose = to_heatmap or Heatmap(), pose
        self.tiles = finer if isinstance(finer, Tiles) else None
        self.fine = finer if isinstance(finer, FineHeatmap) else None
        self.prepare, self.space, self.model, self.score, self.guard = (
            prepare,
            space,
            model,
            score,
            guard,
        )
        self.pixels = space.whitening is None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.prepare(images)
        inside = self.guard(images, x)
        x, place = (x, None) if self.pose is None else self.pose(x)
        maps, early = self.maps_of(x)
        error, expected = self.model(maps)
        heatmap = self.to_heatmap(error)
        if self.tiles is None:
            score = self.score(self.model, maps, heatmap, self.to_heatmap)
        else:
            heatmap = self.tiles(images, heatmap)
            score = self.tiles.to_heatmap.pool(heatmap)
        types: tuple[Tensor, ...] = ()
        if self.score.known is not None:
            evidence, *types = self.score.known(self.described(maps, heatmap))
            score = score + evidence
        if self.fine is not None:
            heatmap = self.fine(heatmap, early)
        if self.pose is not None and place is not None:
            heatmap = self.pose.back(heatmap, place)
        outputs = (score, inside, heatmap)
        if self.names_types:
            return (*outputs, *types)
        return (*outputs, to_picture(expected)) if self.pixels else outputs

    @property
    def names_types(self) -> bool:
        """Whether it says of what type a defect is likely to be."""
        return self.score.known is not None and self.score.known.types > 0

    def described(self, maps: Tensor, heatmap: Tensor) -> Tensor:
        """Returns the descriptors of maps, by which known defects are told (N, d)."""
        return descriptor(self.model.deviation(maps), heatmap, self.to_heatmap.weights)

    def maps_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the maps of prepared pixels, and the early ones where the heatmap is fine."""
        if self.fine is None or self.space.whitening is None:
            return self.space(x), x
        raw, early = self.space.with_early(x)
        return self.space.whitening(raw), early

    @property
    def output_names(self) -> list[str]:
        last = "reconstruction" if self.pixels else ""
        if self.names_types:
            last = "type_scores"
        return ["score", "in_range", "heatmap", *([last] if last else [])]


class ExplainGraph(nn.Module):
    """uint8 images (N, H, W, 3) -> the picture that the model expected to see, uint8 (N, 96, 96,
    3).
    """

    output_names = ("reconstruction",)

    def __init__(
        self,
        prepare: Preprocess,
        space: Space,
        model: Model,
        decoder: nn.Module,
        pose: Pose | None = None,
    ) -> None:
        super().__init__()
        self.prepare, self.space, self.model, self.decoder = prepare, space, model, decoder
        self.pose = pose

    def forward(self, images: Tensor) -> tuple[Tensor]:
        x = self.prepare(images)
        if self.pose is None:
            return (to_picture(self.decoder(self.model(self.space(x))[1])),)
        part, place = self.pose(x)
        drawn = self.decoder(self.model(self.space(part))[1])
        return (to_picture(self.pose.inserted(drawn, small(x, drawn.shape[-1]), place)),)


def to_picture(x: Tensor) -> Tensor:
    """Returns pixels in 0..1 (N, 3, h, w), or grey ones (N, 1, h, w), as uint8 (N, h, w, 3)."""
    return (
        (x.expand(-1, 3, -1, -1).clamp(0.0, 1.0) * 255.0)
        .round()
        .to(torch.uint8)
        .permute(0, 2, 3, 1)
    )


def to_onnx(graph: DetectorGraph | ExplainGraph) -> onnx.ModelProto:
    """Returns a graph as an ONNX model of opset 18 with open N, H and W, nodes named
    ``prepare/...`` and ``judge/...``.
    """
    example = torch.zeros(2, 40, 48, 3, dtype=torch.uint8)
    with quiet(), quick():
        program = torch.onnx.export(
            graph.eval().cpu(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=["images"],
            output_names=list(graph.output_names),
            dynamic_shapes={"images": {0: "N", 1: "H", 2: "W"}},
        )
    assert program is not None  # it is None where a file is named
    buffer = io.BytesIO()
    onnx.save_model(program.model_proto, buffer)
    model = onnx.load_model_from_string(buffer.getvalue())
    tidy(model)
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the exporter, which talks of its own insides."""
    level = logging.getLogger("torch.onnx").level
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("torch.onnx").setLevel(level)


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Spares the exporter what costs it time and nobody needs: the lines of code that made each
    node, which ``tidy`` would drop, and the search for garbage among all the objects it makes.
    """
    traced, collects = getattr(torch.fx.config, NO_TRACES, False), gc.isenabled()
    setattr(torch.fx.config, NO_TRACES, True)
    gc.disable()
    try:
        yield
    finally:
        setattr(torch.fx.config, NO_TRACES, traced)
        if collects:
            gc.enable()


def tidy(model: onnx.ModelProto) -> None:
    """Renames the nodes by the part they belong to and drops what the exporter says of its machine
    and source code.
    """
    needed: set[str] = set()  # what prepare computes with, an image's height say, belongs to it too
    for number, node in reversed(list(enumerate(model.graph.node))):
        scopes = next(
            (p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), ""
        )
        first = (
            "prepare'" in scopes
            or "'guard.statistics'" in scopes
            or not needed.isdisjoint(node.output)
        )
        needed.update(node.input if first else ())
        node.name = f"{'prepare' if first else 'judge'}/{node.op_type}_{number}"
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
    ):
        value.doc_string = ""
        del value.metadata_props[:]
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    del model.functions[:]
    model.producer_name, model.producer_version, model.doc_string = "anomaly", "", ""
    model.graph.name, model.graph.doc_string = "detector", ""
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


MAX_GOLDEN_SIDE_PIXELS = 10_000  # pixels a side, as the scorer takes them
GOLDEN_STEPS = ((3, 5), (7, 2), (11, 13), (1, 0), (2, 9))


def golden_sizes(size: int, tiled: tuple[int, int] | None = None) -> list[tuple[int, int]]:
    """Returns heights and widths of the golden samples: two are 2 to 5 times the model's size, to
    show a missing antialias.

    ``tiled``: height and width that an image is brought to before it is cut into tiles; two are
    larger on one side only.
    """
    height, width = (
        (0, 0) if tiled is None else (min(side, MAX_GOLDEN_SIDE_PIXELS // 2) for side in tiled)
    )
    return [
        (size // 2 + 1, size // 2 + 7),
        (max(2 * size + 3, 2 * height), 3 * size + 1),
        (4 * size + 5, max(2 * size + 9, 2 * width)),
        (31, 57),
        (size, size),
    ]


def golden_samples(
    model: bytes, sizes: Sequence[tuple[int, int]], tolerance: float
) -> dict[str, object]:
    """Returns the golden samples for the card: synthetic pictures, their scores on a CPU and the
    tolerance.
    """
    session, _ = open_session(model, "cpu", available_cores())
    samples = []
    for (height, width), (a, b) in zip(sizes, GOLDEN_STEPS, strict=True):
        picture = golden_picture(height, width, a, b)
        score = float(session.run(["score"], {"images": picture[None]})[0][0])
        samples.append({"height": height, "width": width, "a": a, "b": b, "score": score})
    formula = "pixel[y, x, c] = (a x + b y + (x y >> 4) + 64 c) mod 256"
    return {"formula": formula, "tolerance": tolerance, "samples": samples}


def check_parity(
    graph: DetectorGraph,
    model: bytes,
    images: Sequence[npt.NDArray[np.uint8]],
    unit: float,
    heatmap_unit: float | None = None,
) -> float:
    """Returns the largest difference between torch and ONNX Runtime over images of odd sizes and
    batches of 1, 2 and 7.

    Scores and heatmaps are compared in units of ``unit`` = threshold - m, heatmaps whose unit is
    not the score's in ``heatmap_unit``; above 1e-3 the file is refused (TrainingError). The images
    are the given real ones, cut to odd sizes, and the golden pictures. A score that is more than a
    hundred units from the typical one, as a likelihood finds a golden picture, is compared in
    hundredths of that distance: float32 holds no more, and no result is in doubt there. A place of
    the heatmap, which averages nothing out, in tenths beyond ten. Scores of types, which lie from 0
    to 1, as they are.
    """
    session, _ = open_session(model, "cpu", available_cores())
    graph = graph.eval().cpu()
    batches = parity_batches(images, max(graph.prepare.shape))
    with torch.inference_mode():
        outputs = [
            dict(zip(graph.output_names, graph(torch.from_numpy(batch)), strict=True))
            for batch in batches
        ]
    like = "score" if heatmap_unit is None else "heatmap"
    typical, typical_heatmap = (
        float(torch.cat([expected[name].flatten() for expected in outputs]).median())
        for name in ("score", like)
    )
    measures = (
        ("score", unit, 1e-2, typical),
        ("heatmap", heatmap_unit or unit, 1e-1, typical_heatmap),
        *([("type_scores", 1.0, 1.0, 0.0)] if "type_scores" in graph.output_names else []),
    )
    worst = 0.0
    for batch, expected in zip(batches, outputs, strict=True):
        found = dict(
            zip(
                graph.output_names,
                session.run(list(graph.output_names), {"images": batch}),
                strict=True,
            )
        )
        for name, least, share, middle in measures:
            right = expected[name].numpy()
            allowed = np.maximum(least, share * np.abs(right - middle))
            difference = float((np.abs(found[name] - right) / allowed).max())
            worst = float(np.maximum(worst, difference))  # NaN stays
    if not worst <= 1e-3:
        raise TrainingError(
            f"torch and ONNX Runtime differ by {worst:.2g} of the way from a typical good image to "
            "the threshold, at most 0.001 expected: the detector was not written; please report "
            "this with the output of anomaly doctor"
        )
    return worst


def unit_of(
    name: str,
    calibration: Calibration | None,
    data: bytes,
    images: Sequence[npt.NDArray[np.uint8]],
) -> float:
    """Returns threshold - m, by which differences of the output ``name`` are judged; without a
    threshold the size of its own values.
    """
    if calibration is not None and calibration.threshold > calibration.median:
        return float(calibration.threshold - calibration.median)
    session, _ = open_session(data, "cpu", available_cores())
    found = [session.run([name], {"images": image[None]})[0].ravel() for image in images]
    values = np.concatenate(found)
    return max(float(np.ptp(values)), 1e-2 * float(np.abs(values).max()), 1e-6)


def parity_batches(
    images: Sequence[npt.NDArray[np.uint8]], size: int
) -> list[npt.NDArray[np.uint8]]:
    """Returns batches of 1, 2 and 7 images of odd sizes."""
    batches = [
        golden_picture(height, width, 3, 5)[None]
        for height, width in ((1, 1), (17, 301), (2 * size + 1, size - 1))
    ]
    for count, cut in ((1, 0), (2, 1), (7, 3)):
        chosen = [images[i % len(images)] for i in range(count)]
        # A large image is cut to what is still larger than the model, but for one: seven whole ones
        # would fill the memory.
        most = 4 * size if count > 1 else max(chosen[0].shape)
        height, width = (min(most, *(image.shape[axis] for image in chosen)) for axis in (0, 1))
        cut_y, cut_x = min(cut, height - 1), min(2 * cut, width - 1)
        batches.append(np.stack([image[cut_y:height, cut_x:width] for image in chosen]))
    return batches
