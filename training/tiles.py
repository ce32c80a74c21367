"""Large images, small defects: overlapping tiles under one model, their maps stitched, beside the
whole image.

    images -> whole image at s x s -> space, model -> its map
    images -> H x W -> tiles of s x s -> max-pooled filters, model of one tile -> stitched map
    the higher of both maps -> heatmap

All of it lies in the one graph: a static grid, a bounded number of tiles at a time. Whatever sees
the image only (calibration, scoring, serving) does not know of tiles, and the guarantee is per
image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from anomaly.detector.session import available_cores
from anomaly.errors import ImageError, TrainingError
from anomaly.imaging.decode import Decoded, DecodeRule, decode
from anomaly.inputs.dataset import Record
from training.preprocess import Preprocess, triangle_weights
from training.protocols import Model, Space
from training.scores import Heatmap, coarse, heatmap_factor, heatmap_shape
from training.sets import batched, decode_all
from training.tensors import one_thread_each

OVERLAP = 1 / 8  # of a tile's side, at least: what is smaller lies whole in one of the tiles
AT_ONCE = 8  # tiles of an image that go through the model together: by them memory is bounded
# of a grid, so that the graph does not grow without end: beyond, more go together
MAX_PORTIONS = 32
MAX_TOTAL_PIXELS = 400 * 256**2  # of all tiles of an image, as the model sees them
# tiles that the model is fitted on, and validated on, from as many images as there are
MAX_MAPS = (3072, 512)
MAX_THREADS = 4  # that look at images at once: each holds one of many megapixels
# places of the stitched map to a tile's side, about: fewer would blunt the peak of a single cell
PLACES_PER_TILE_SIDE = 36
# The score is the mean of the hottest area as large as a tile's by so many a side: of a small
# defect
SCORE_AREAS_PER_TILE_SIDE = 12
LEAST_SPREAD = 0.05  # of the typical score: a few validation images may happen to score alike


@dataclass(frozen=True)
class Tiling:
    """A grid of overlapping tiles of ``size`` pixels a side over an image that was brought to
    ``height`` x ``width``.
    """

    size: int
    height: int
    width: int

    @classmethod
    def of(cls, tile: int, size: int, height: int, width: int) -> Tiling:
        """Returns the grid for images of ``height`` x ``width`` pixels in tiles of ``tile``, each
        brought to ``size``.

        Raises TrainingError where a tile is no smaller than the image, or where there would be too
        many.
        """
        if tile >= max(height, width):
            raise TrainingError(
                f"--tile {tile} found, images of {width} x {height}: a tile smaller than the image "
                "expected, or no --tile"
            )
        scale = size / tile
        tiling = cls(size, max(size, round(height * scale)), max(size, round(width * scale)))
        if len(tiling.places) * size**2 > MAX_TOTAL_PIXELS:
            most = MAX_TOTAL_PIXELS // size**2
            least = math.ceil(tile * math.sqrt(len(tiling.places) / most) / 32) * 32
            raise TrainingError(
                f"--tile {tile} cuts images of {width} x {height} into {len(tiling.places)} tiles, "
                f"at most {most} of {size} x {size} expected: try --tile {least}, or a smaller "
                "--size"
            )
        return tiling

    @cached_property
    def tops(self) -> list[int]:
        return starts(self.height, self.size)

    @cached_property
    def lefts(self) -> list[int]:
        return starts(self.width, self.size)

    @property
    def places(self) -> list[tuple[int, int]]:
        """Top and left of each tile, row by row."""
        return [(top, left) for top in self.tops for left in self.lefts]

    @property
    def side(self) -> int:
        """Pixels a side of a square as large as what an image is brought to."""
        return round(math.sqrt(self.height * self.width))

    def stitched(self, grid: int) -> tuple[int, int]:
        """Returns height and width of the stitched map of tiles whose own map has ``grid`` cells a
        side.
        """
        side = coarse_side(grid) * finer(grid)
        height, width = (
            max(1, round(length * side / self.size)) for length in (self.height, self.width)
        )
        return height, width

    def facts(self, tile: int) -> dict[str, int]:
        """Returns what the card says of the grid; ``tile``: pixels of the original that one has a
        side.
        """
        return {
            "tile": tile,
            "down": len(self.tops),
            "across": len(self.lefts),
            "height": self.height,
            "width": self.width,
        }

    def cut(self, x: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
        """Returns the tiles at some places, (places x N, C, s, s), from pictures (N, C, H, W)."""
        return torch.cat(
            [x[:, :, top : top + self.size, left : left + self.size] for top, left in places]
        )


def starts(length: int, size: int) -> list[int]:
    """Returns where tiles begin that cover a line evenly and overlap by an eighth of their side at
    least.
    """
    count = math.ceil((length - size) / (size * (1 - OVERLAP))) + 1
    return [round(i * (length - size) / max(1, count - 1)) for i in range(count)]


def blend_weights(begins: Sequence[int], size: int, cells: int, length: int, side: int) -> Tensor:
    """Returns the matrix (side, tiles x cells) that makes one line of ``side`` cells out of those
    of all tiles.

    Within a tile a value is interpolated between its cells; where tiles overlap they fade into each
    other, by the distance to their edges. Rows sum to 1: a constant stays one, and there is no
    seam.
    """
    at = (torch.arange(side, dtype=torch.float64)[:, None] + 0.5) * length / side - torch.tensor(
        begins, dtype=torch.float64
    )
    fade = torch.minimum(at, size - at).clamp(min=0.0)  # (side, tiles)
    place = (at * cells / size - 0.5).clamp(0, cells - 1)
    # (side, tiles, cells)
    between = (1 - (place[..., None] - torch.arange(cells, dtype=torch.float64)).abs()).clamp(
        min=0.0
    )
    return ((fade / fade.sum(1, keepdim=True))[..., None] * between).flatten(1).float()


class Tiles(nn.Module):
    """The model of one tile over the whole grid, stitched, and the whole image's map beside it, on
    one scale.

    On that scale 0 is the typical validation image and 1 the mean distance of the others from it,
    for either map by itself. The heatmap is the higher of the two at each place: a small defect is
    found in the tiles, what is wrong as a whole in the whole image, and neither is drowned by what
    the other cannot tell.
    """

    scale: Tensor
    rows: Tensor
    columns: Tensor
    up: Tensor
    across: Tensor

    def __init__(
        self,
        prepare: Preprocess,
        space: Space,
        model: Model,
        tiling: Tiling,
        whole: tuple[int, int],
        cells: int,
    ) -> None:
        """``whole``: height and width of the whole image's map of errors; ``cells``: as of Heatmap,
        of the stitched map.
        """
        super().__init__()
        self.prepare, self.space, self.model, self.tiling = prepare, space, model, tiling
        side = space.grid[0]  # a tile is square
        self.cells = coarse_side(side)  # of a tile's map
        height, width = tiling.stitched(side)
        fine = finer(side)
        places = max(1, round((self.cells * fine / SCORE_AREAS_PER_TILE_SIDE) ** 2))
        self.to_heatmap = Heatmap(prepare.coverage(height, width), cells, places, smooth=fine == 1)
        rows = blend_weights(tiling.tops, tiling.size, self.cells, tiling.height, height)
        columns = blend_weights(tiling.lefts, tiling.size, self.cells, tiling.width, width)
        up, across = (
            triangle_weights(cells_of_whole, side, torch.zeros(1))
            for cells_of_whole, side in zip(heatmap_shape(whole), (height, width), strict=True)
        )
        for name, matrix in (("rows", rows), ("columns", columns), ("up", up), ("across", across)):
            self.register_buffer(name, matrix, persistent=False)
        # tiles, whole: typical score, spread
        self.register_buffer("scale", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))

    def forward(self, images: Tensor, whole: Tensor) -> Tensor:
        """Returns the heatmap (N, h, w) of images uint8 (N, H, W, 3) whose map as a whole is
        ``whole`` (N, g, g).
        """
        maps = self.stitched(images), self.enlarged(whole)
        found, context = (
            (map - typical) / spread
            for map, (typical, spread) in zip(maps, self.scale, strict=True)
        )
        return self.to_heatmap(torch.maximum(found, context))

    def stitched(self, images: Tensor) -> Tensor:
        """Returns the tiles' errors as one map (N, h, w), in the model's own unit."""
        x, g = self.prepare(images), self.cells
        parts = [
            coarse(self.model(self.space(self.tiling.cut(x, some)))[0]) for some in self.portions()
        ]
        grid = torch.cat(parts).reshape(len(self.tiling.tops), len(self.tiling.lefts), -1, g, g)
        lines = grid.permute(2, 0, 3, 1, 4).reshape(-1, self.rows.shape[1], self.columns.shape[1])
        return self.rows @ lines @ self.columns.transpose(0, 1)

    def enlarged(self, whole: Tensor) -> Tensor:
        """Returns the whole image's map (N, g, g) on the cells of the stitched one, (N, h, w)."""
        return self.up @ whole @ self.across.transpose(0, 1)

    def portions(self) -> Iterator[Sequence[tuple[int, int]]]:
        """Yields the places of tiles that go through the model together.

        ONNX Runtime takes eight as fast as one; torch itself is three times as fast with one after
        the other.
        """
        places = self.tiling.places
        at_once = (
            max(AT_ONCE, -(-len(places) // MAX_PORTIONS)) if torch.compiler.is_exporting() else 1
        )
        return batched(places, at_once)

    @torch.inference_mode()
    def fit_scale(
        self,
        whole: Callable[[Tensor], Tensor],
        records: Sequence[Record],
        rule: DecodeRule,
        seen: Callable[[], object],
    ) -> None:
        """Sets the scale by validation images; ``whole`` returns their maps as a whole."""
        scores = []
        for _, image in decode_all(records, rule, self.tiling.size):
            if isinstance(image, Decoded):
                pixels = torch.from_numpy(image.pixels)[None]
                maps = self.stitched(pixels), self.enlarged(whole(pixels))
                scores.append(
                    torch.cat([self.to_heatmap.pool(self.to_heatmap(map)) for map in maps])
                )
            seen()
        found = torch.stack(scores)
        typical = found.quantile(0.5, 0)
        # The mean distance: of few images it says more than a quantile, and less of one strange
        # image than a variance.
        spread = torch.maximum((found - typical).abs().mean(0), LEAST_SPREAD * typical.abs() + 1e-6)
        self.scale.copy_(torch.stack([typical, spread], 1))

    def score_in_words(self) -> str:
        """Returns what the card says of the image's score."""
        return (
            f"mean of the {self.to_heatmap.places} hottest places of the heatmap, "
            f"1/{SCORE_AREAS_PER_TILE_SIDE**2} of a tile's"
        )


def coarse_side(grid: int) -> int:
    """Returns how many cells a side a heatmap has for a map of errors of ``grid``."""
    return grid // heatmap_factor(grid)


def finer(grid: int) -> int:
    """Returns how many places a side of the stitched map stand for one cell of a tile's map of
    errors of ``grid``.
    """
    return max(1, round(PLACES_PER_TILE_SIDE / coarse_side(grid)))


def tile_space(name: str) -> str:
    """Returns the space of the tiles beside a whole image in the space ``name``.

    Tiles are for what is small: deep features, whose cells average it away, hide it rather (see
    docs/research/2026-11-settings.md).
    """
    return "pixels" if name == "pixels" else "max_pooled"


@dataclass(frozen=True)
class TileReader:
    """Reads tiles of images, prepared on ``device``, as raw maps of a space."""

    rule: DecodeRule
    prepare: Preprocess
    space: Space
    tiling: Tiling
    device: str

    @torch.inference_mode()
    def extract(
        self, records: Sequence[Record], most: int, seed: int, seen: Callable[[], object]
    ) -> tuple[Tensor, float]:
        """Returns the raw maps of tiles, as ``extract`` has those of images, and which share of
        them is inspected on average; ``seen`` is called after each image.

        At most ``most``, as many of each image, at random places; those that a mask hides wholly
        are left out.
        """
        rng, shares = np.random.default_rng(seed), self.shares()
        chosen = [records[i] for i in np.sort(rng.permutation(len(records))[:most])]
        inspected = [number for number, share in enumerate(shares) if share > 0]
        each = min(len(inspected), most // len(chosen))
        drawn = [np.sort(rng.permutation(inspected)[:each]) for _ in chosen]
        found: list[Tensor] = []
        threads = min(available_cores(), MAX_THREADS)
        with one_thread_each(), ThreadPoolExecutor(threads) as pool:
            for some in batched(list(zip(chosen, drawn, strict=True)), 2 * threads):
                for maps in pool.map(self.maps_of, *zip(*some, strict=True)):
                    seen()
                    found += [] if maps is None else [maps]
        if not found:
            raise TrainingError(
                f"none of {len(chosen)} images could be read a second time, the files of before "
                "expected"
            )
        return torch.cat(found), float(
            np.mean([shares[number] for numbers in drawn for number in numbers])
        )

    def shares(self) -> list[float]:
        """Returns which share of each tile is inspected."""
        coverage = self.prepare.coverage(self.tiling.height, self.tiling.width)
        if coverage is None:
            return [1.0] * len(self.tiling.places)
        whole = coverage[None, None]
        return [float(self.tiling.cut(whole, [place]).mean()) for place in self.tiling.places]

    def maps_of(self, record: Record, numbers: Sequence[int]) -> Tensor | None:
        """Returns the raw maps of some tiles of an image, (tiles, C, h, w)."""
        try:
            image = decode(record.path, self.rule)
        except ImageError:
            return None  # it was read a moment ago, and is missed in the sample only
        with torch.inference_mode():  # a thread has a mode of its own
            x = self.prepare(torch.from_numpy(image.pixels)[None].to(self.device))
            cut = [self.tiling.cut(x, [self.tiling.places[number]]) for number in numbers]
            return torch.stack([self.space.raw(tile)[0].cpu() for tile in cut])
