"""Records of normal images -> three disjoint sets, and what training needs to know of each image."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.calibrate import DEFAULT_RATE, lowest_wish, needed
from anomaly.dataset import Record
from anomaly.errors import CalibrationError, DatasetError, ImageError
from anomaly.images import Decoded, DecodeRule, decode
from anomaly.scorer import available_cores
from anomaly.wording import needs_text, percent
from training.preprocess import Preprocess

FEWEST = 5  # groups: two to fit on, one to validate on, two to calibrate on
PICTURE = 96  # pixels a side of the small copies that the picture decoder learns from
THUMB = 64  # pixels a side of the copies that are compared to find near-duplicates


@dataclass(frozen=True)
class Sets:
    """Three disjoint sets of records; no group is in two of them."""

    fit: list[Record]
    validation: list[Record]
    calibration: list[Record]


def three_sets(records: Sequence[Record], seed: int, wish: float | None, rank_only: bool = False) -> Sets:
    """Returns fit, validation and calibration sets, drawn by group: 65, 15 and 20 % of the groups.

    Calibration grows up to half of the groups where the false-alarm rate ``wish`` needs it (None: 1 %, as far as it
    goes). Raises CalibrationError where a rate asked for cannot be promised, DatasetError below five groups.
    """
    groups = sorted({record.group for record in records})
    count = len(groups)
    if count < FEWEST:
        raise DatasetError(
            f"{count} good image{'s' * (count != 1)} (or groups) found, at least {FEWEST} expected to train at all, "
            "about 200 for a 1 % false-alarm rate: add good images"
        )
    calibration = 0 if rank_only else max(round(0.20 * count), min(needed(wish or DEFAULT_RATE), count // 2))
    if not rank_only and wish is not None and needed(wish) > calibration:
        raise CalibrationError(
            f"{count} good images (or groups) found: {count // 2} of them can set the limit, so the lowest promise is "
            f"{percent(1 / (count // 2 + 1))}. {needs_text(wish)} That takes {2 * needed(wish)} in all: add images, or "
            f"--false-alarm-rate {lowest_wish(count // 2)}, or --rank-only (order, no promise)"
        )
    validation = max(1, round((count - calibration) * 15 / 80))
    order = [groups[i] for i in np.random.default_rng(seed).permutation(count)]
    parts = (order[calibration + validation :], order[calibration : calibration + validation], order[:calibration])
    by_group: dict[str, list[Record]] = {}
    for record in records:
        by_group.setdefault(record.group, []).append(record)
    return Sets(*([record for group in sorted(part) for record in by_group[group]] for part in parts))


@dataclass(frozen=True)
class Seen:
    """What was seen of a list of images.

    ``maps``: the space's raw maps float32 (n, C, h, w), or uint8 pixels (n, 3, s, s) in pixel space. ``pictures``: uint8
    (n, 3, 96, 96). ``thumbs``: float32 (n, 64, 64). ``statistics``: float32 (n, 5). ``facts``: size, bits and
    greyness of each file. ``left_out``: what could not be read, with the reason.
    """

    records: list[Record]
    maps: Tensor
    pictures: Tensor
    thumbs: npt.NDArray[np.float32]
    statistics: npt.NDArray[np.float32]
    facts: list[tuple[int, int, int, bool]]
    left_out: list[str]

    def part(self, records: Sequence[Record]) -> Seen:
        """Returns what was seen of some of the images only."""
        wanted = {record.path for record in records}
        index = [i for i, record in enumerate(self.records) if record.path in wanted]
        return Seen(
            [self.records[i] for i in index],
            self.maps[index],
            self.pictures[index],
            self.thumbs[index],
            self.statistics[index],
            [self.facts[i] for i in index],
            [],
        )


def decode_all(records: Sequence[Record], rule: DecodeRule, size: int) -> Iterator[tuple[Record, Decoded | ImageError]]:
    """Yields each record with its pixels or the error, in order; a few images are decoded ahead in threads."""

    def one(record: Record) -> Decoded | ImageError:
        try:
            return decode(record.path, rule, reduce_to=size)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        for chunk in _batched(records, 16):
            yield from zip(chunk, pool.map(one, chunk), strict=True)


def _batched(records: Sequence[Record], count: int) -> Iterator[Sequence[Record]]:
    for start in range(0, len(records), count):
        yield records[start : start + count]


def find_rule(records: Sequence[Record], reduced: bool = False) -> DecodeRule:
    """Returns the decode rule for a set of images: the true depth of 16-bit files is the largest found among them."""
    rule = DecodeRule(reduced=reduced)
    first = [image for _, image in decode_all(records[:3], rule, PICTURE)]
    if all(isinstance(image, Decoded) and image.bits == 8 for image in first):
        return rule
    # An image alone may be dark: only the whole set shows the depth.
    bits = max((image.bits for _, image in decode_all(records, rule, PICTURE) if isinstance(image, Decoded)), default=8)
    return replace(rule, bits=bits) if bits > 8 else rule


@torch.inference_mode()
def see(
    records: Sequence[Record],
    rule: DecodeRule,
    prepare: Preprocess,
    space: nn.Module,
    device: str,
    seen: Callable[[], object],
) -> Seen:
    """Returns what training needs to know of the images; ``seen`` is called after each. Unreadable ones are left out."""

    def one(record: Record) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[int, int, int, bool]] | ImageError:
        try:
            image = decode(record.path, rule, reduce_to=prepare.size)
        except ImageError as error:
            return error
        with torch.inference_mode():  # a thread has a mode of its own
            x = prepare(torch.from_numpy(image.pixels)[None].to(device))
            picture = (small(x, PICTURE)[0] * 255).round().byte().cpu()
            facts = (image.width, image.height, image.bits, image.grey)
            return _map_of(space, x), picture, small(x, THUMB)[0].mean(0).cpu(), pixel_statistics(x)[0].cpu(), facts

    found, left_out = [], []
    with one_thread_each(), ThreadPoolExecutor(available_cores()) as pool:
        for chunk in _batched(records, 64):
            for record, image in zip(chunk, pool.map(one, chunk), strict=True):
                seen()
                if isinstance(image, ImageError):
                    left_out.append(str(image))
                else:
                    found.append((record, *image))
    if not found:
        raise DatasetError(f"none of {len(records)} images could be read, the first: {(left_out or ['?'])[0]}")
    kept, maps, pictures, thumbs, statistics, facts = zip(*found, strict=True)
    return Seen(
        list(kept), torch.stack(maps), torch.stack(pictures), torch.stack(thumbs).numpy(), torch.stack(statistics).numpy(),
        list(facts), left_out,
    )  # fmt: skip


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Lets torch compute with one thread, while images are shared among threads: the cores never wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _map_of(space: nn.Module, x: Tensor) -> Tensor:
    raw = getattr(space, "raw", None)
    return (x[0] * 255).round().byte().cpu() if raw is None else raw(x)[0].float().cpu()


def small(x: Tensor, side: int) -> Tensor:
    """Returns prepared pixels (N, 3, s, s) at ``side`` pixels a side."""
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)


def pixel_statistics(x: Tensor) -> Tensor:
    """Returns brightness, contrast, colour, sharpness and direction of prepared pixels (N, 3, s, s), float32 (N, 5).

    By these the graph's ``in_range`` tells an image that is unlike the training images. Sharpness and direction are
    logarithms of ratios, so that a margin means the same at every level.
    """
    grey = x.mean(1)  # (N, s, s)
    across = (grey[:, :, 1:] - grey[:, :, :-1]).abs().mean((1, 2))
    down = (grey[:, 1:, :] - grey[:, :-1, :]).abs().mean((1, 2))
    contrast = torch.sqrt(((grey - grey.mean((1, 2), keepdim=True)) ** 2).mean((1, 2)) + 1e-6)
    colour = (x.amax(1) - x.amin(1)).mean((1, 2))
    sharpness = torch.log((across + down + 1e-4) / (contrast + 1e-3))
    direction = torch.log((across + 1e-4) / (down + 1e-4))
    return torch.stack([grey.mean((1, 2)), torch.log(contrast + 1e-2), colour, sharpness, direction], 1)


def statistic_limits(
    statistics: npt.NDArray[np.float32], groups: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Returns the lowest and the highest statistics (5,) that count as in range.

    That is the range of the fit and validation images, widened on both sides by a quarter of it and at least by a
    little: among few images (or groups of them) the extremes have not been seen yet.
    """
    low, high = statistics.min(0), statistics.max(0)
    least = np.array([0.02, 0.1, 0.02, 0.1, 0.1], np.float32)
    margin = np.maximum(least, (high - low) * (0.25 + 5.0 / groups))
    return low - margin, high + margin


def file_ranges(facts: Sequence[tuple[int, int, int, bool]]) -> dict[str, object]:
    """Returns the ranges of size, aspect, depth and colour of the training images' files, for the card."""
    aspects = [width / height for width, height, _, _ in facts]
    pixels = [width * height for width, height, _, _ in facts]
    return {
        "aspect": [min(aspects), max(aspects)],
        "pixels": [min(pixels), max(pixels)],
        "bits": sorted({bits for _, _, bits, _ in facts}),
        "grey": all(grey for _, _, _, grey in facts),
    }


def sha256_of(record: Record) -> str:
    """Returns the sha256 of an image file's bytes."""
    return hashlib.sha256(record.path.read_bytes()).hexdigest()


def digest_of(records: Sequence[Record]) -> str:
    """Returns the sha256 over the sorted sha256 of the images' bytes: the same set gives the same digest."""
    digests = sorted(sha256_of(record) for record in records)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


ALIKE = 0.65  # correlation above which two images show the same thing
COMPARED = 5000  # images compared with each other at the most


def near_duplicates(thumbs: npt.NDArray[np.float32], groups: Sequence[str]) -> list[tuple[int, int, float]]:
    """Returns (i, j, correlation) of images of different groups that show the same thing, the most alike first.

    Compared is what an image has of its own: small copies without their low frequencies (light), without the mean
    image and the strongest common components (what all parts share, the camera's frame), as unit vectors. On the
    magnetic tiles two photographs of one tile reach 0.64 at the median and those of different tiles 0.46 at the most.
    """
    n = min(len(thumbs), COMPARED)
    x = torch.from_numpy(np.ascontiguousarray(thumbs[:n]))[:, None]
    x = (x - F.avg_pool2d(F.pad(x, (3, 3, 3, 3), mode="replicate"), 7, 1)).flatten(1)
    x = x - x.mean(0)
    x = x / (x.norm(dim=1, keepdim=True) + 1e-6)
    components = min(20, n // 4)
    if components:
        with torch.random.fork_rng(devices=[]):  # it draws its start at random: the same images must give the same warning
            torch.manual_seed(0)
            _, _, v = torch.svd_lowrank(x, q=components, niter=4)
        x = x - (x @ v) @ v.T
    norms = x.norm(dim=1, keepdim=True)
    x = x / (norms + 1e-4)
    alike = torch.triu(x @ x.T, diagonal=1)
    index = torch.nonzero(alike > ALIKE)
    pairs = [(int(i), int(j), float(alike[i, j])) for i, j in index if groups[int(i)] != groups[int(j)]]
    return sorted(pairs, key=lambda pair: -pair[2])
