"""The training range: is an image like the training images at all? Two stops darker, out of focus,
turned, another product.

Some fifty statistics of an image (brightness, contrast, colour, and the energy and direction of its
differences at seven scales) are compared with those of the training images in two ways, and an
image is in range only if it passes both:

- the distance of Mahalanobis, for what nobody thought of, such as another product;
- for each known change a linear discriminant (Fisher 1936) between good images and changed copies
  of them, because two stops may lie within the spread of a set that was photographed at several
  exposures, and noise still tells them.

What must not put an image out of range is shown to both beside the good images: copies with a
synthetic defect, be it over half of the image, which is the model's business, and copies compressed
as JPEG. Limits are set on images left out of the fit, whole groups at a time
(training/range_limits.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.detector.session import available_cores
from anomaly.errors import ImageError
from anomaly.imaging.decode import DecodeRule, decode
from anomaly.inputs.dataset import Record
from training.changed_copies import CHANGES, Pixels, compressed, large_defects, marked
from training.folds import folds
from training.preprocess import Preprocess, stretched
from training.range_limits import limits_of
from training.tensors import one_thread_each

Array = npt.NDArray[np.float64]

# fewer where they are large: a changed copy of 12 million pixels takes a second
MAX_GUARD_IMAGES = 400
MAX_TOTAL_PIXELS = 1_200_000_000
MARKS = 2  # copies with a synthetic defect
FOLDS = 20  # so that a guard has seen nearly all images; up to 20 groups are left out one by one

LEVELS = 6  # the prepared image and its halvings
# strips of three rows that are looked at in full resolution, and of how many columns in the middle
STRIPS, WIDEST = 64, 1024

ACROSS, DOWN = ((0, 0, 0), (0, -1, 1), (0, 0, 0)), ((0, 0, 0), (0, -1, 0), (0, 1, 0))
CURVED_ACROSS, CURVED_DOWN = ((0, 0, 0), (1, -2, 1), (0, 0, 0)), ((0, 1, 0), (0, -2, 0), (0, 1, 0))
# Immerkaer 1996: zero on every slope and every edge that lies straight
NOISE = ((1, -2, 1), (-2, 4, -2), (1, -2, 1))
FALLING, RISING = ((0, 0, 0), (0, -1, 0), (0, 0, 1)), ((0, 0, 0), (0, 0, -1), (0, 1, 0))


class Statistics(nn.Module):
    """uint8 images (N, H, W, 3) and their prepared pixels (N, 3, s, s) -> what an image looks like,
    float32 (N, D).

    ``mask``: as of Preprocess; a difference at full resolution counts where all its pixels are
    inside.
    """

    mask: Tensor | None
    fine: Tensor
    coarse: Tensor
    kept: Tensor

    def __init__(self, mask: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        fine = torch.tensor([ACROSS, DOWN, CURVED_ACROSS, CURVED_DOWN, NOISE], dtype=torch.float32)
        # (5, 3, 1, 3): the three rows are channels
        self.register_buffer("fine", fine[:, :, None], persistent=False)
        coarse = torch.tensor([ACROSS, DOWN, FALLING, RISING], dtype=torch.float32)
        self.register_buffer("coarse", coarse[:, None, 1:, 1:], persistent=False)  # (4, 1, 2, 2)
        # of four energies and four sizes those of two, and how much the energy is slanted
        kept = torch.zeros(8, 5)
        kept[[0, 1, 4, 5], [0, 1, 2, 3]], kept[2, 4], kept[3, 4] = 1, 1, -1
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, images: Tensor, x: Tensor) -> Tensor:
        return torch.cat([self.full(images), self.prepared(x)], 1)

    def full(self, images: Tensor) -> Tensor:
        """Returns 20 statistics of the differences at full resolution: noise and focus do not
        survive a resize.
        """
        d = F.conv2d(by_row(strips(images).float().mean(3)), self.fine)  # (N, 5, 64, W)
        size = d.abs()
        # (N, 20, 64, W)
        found = torch.cat([d * d, size, torch.sqrt(size), (size < 0.5).float()], 1)
        if self.mask is None:
            means = found.mean((2, 3))
        else:
            pixels = (
                strips(stretched(self.mask, images.shape[1], images.shape[2])[None, :, :, None])
                .float()
                .mean(3)
            )
            # (1, 1, 64, W)
            inside = F.avg_pool2d(by_row(pixels).mean(1, keepdim=True), (1, 3), 1) > 0.999
            means = (found * inside).sum((2, 3)) / (inside.sum() + 1e-6)
        return torch.log(means + torch.tensor([1e-2, 5e-2, 5e-2, 1e-2]).repeat_interleave(5))

    def prepared(self, x: Tensor) -> Tensor:
        """Returns those of colour, light, and differences by scale: logarithms, a ratio means the
        same at every level.
        """
        grey = light = (x[:, :1] + x[:, 1:2] + x[:, 2:]) / 3
        found: list[Tensor] = []
        while min(grey.shape[2:]) > 1 and len(found) < LEVELS:
            d = F.conv2d(grey, self.coarse, stride=2 if grey.shape[2] >= 64 else 1)
            found.append(torch.cat([d * d, d.abs()], 1).mean((2, 3)))
            grey = F.avg_pool2d(grey, 2)
            light = grey if len(found) <= 2 else light
        least = torch.tensor([1e-7] * 4 + [1e-4] * 4)
        # (N, levels, 5)
        differences = (
            torch.log(torch.cat(found, 1).unflatten(1, (len(found), 8)) + least) @ self.kept
        )
        both = torch.cat([torch.log(light + 2 / 255), light], 1)  # (N, 2, h, w)
        mean = both.mean((2, 3), keepdim=True)
        spread = torch.log(((both - mean) ** 2).mean((2, 3)) + 1e-6)
        colour = torch.log(x[:, :, ::4].mean((2, 3)) + 2 / 255)
        return torch.cat([colour, mean.flatten(1), spread, differences.flatten(1)], 1)


def strips(images: Tensor) -> Tensor:
    """Returns 64 strips of three rows over the height of images (N, H, W, C), the last column
    thrice: (N, 192, W + 2, C).

    Of images wider than 1,024 pixels the middle, so that a strange one takes no more memory than
    others.
    """
    height, left = images.shape[1], torch.sym_max(0, (images.shape[2] - WIDEST) // 2)
    first = torch.arange(STRIPS) * torch.sym_max(height - 3, 0) // (STRIPS - 1)
    rows = images.index_select(
        1, (first[:, None] + torch.arange(3)).flatten().clamp(max=height - 1)
    )
    rows = rows.narrow(2, left, torch.sym_min(images.shape[2], WIDEST))
    return torch.cat([rows, rows[:, :, -1:], rows[:, :, -1:]], 2)  # an image may be one pixel wide


def by_row(grey: Tensor) -> Tensor:
    """Returns (N, 192, W) with the three rows of every strip as channels, (N, 3, 64, W)."""
    return grey.unflatten(1, (STRIPS, 3)).transpose(1, 2)


# ---- the guard ----
class Guard(nn.Module):
    """uint8 images (N, H, W, 3) and their prepared pixels (N, 3, s, s) -> whether each image is in
    range, bool (N,).

    ``noticed``: of the training images' changed copies, the share that is out of range, by change;
    ``refused``: of the training images themselves. Both are cross-fitted: found with guards that
    had not seen the image's group.
    """

    centre: Tensor
    scale: Tensor
    whiten: Tensor
    weights: Tensor
    limits: Tensor

    def __init__(
        self,
        centre: Tensor,
        scale: Tensor,
        whiten: Tensor,
        weights: Tensor,
        limits: Tensor,
        mask: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.statistics = Statistics(mask)
        for name, value in {
            "centre": centre,
            "scale": scale,
            "whiten": whiten,
            "weights": weights,
            "limits": limits,
        }.items():
            self.register_buffer(name, value.float())
        self.noticed: dict[str, float] = {}
        self.refused = 0.0

    def forward(self, images: Tensor, x: Tensor) -> Tensor:
        return self.judged(self.statistics(images, x))

    def judged(self, statistics: Tensor) -> Tensor:
        """Returns whether images of these statistics (N, D) are in range, bool (N,)."""
        z = (statistics - self.centre) / self.scale
        far = torch.log(((z @ self.whiten) ** 2).sum(1, keepdim=True) + 1e-9)
        return (torch.cat([far, z @ self.weights], 1) - self.limits).amax(1) <= 0


@dataclass(frozen=True)
class Side:
    """A Gaussian of what is accepted and, for each change, the direction that tells it: all linear
    in the statistics.
    """

    centre: Array
    scale: Array
    whiten: Array
    weights: Array

    @classmethod
    def of(cls, accepted: Array, changed: Array) -> Side:
        """Fits ``accepted`` (copies, n, D), the images themselves first, and ``changed`` (changes,
        n, D).
        """
        good = accepted[0]
        centre, scale = good.mean(0), good.std(0) + 1e-3
        z = ((accepted - centre) / scale).reshape(-1, good.shape[1])
        # of covariances towards independence: few images say little of 57 statistics together
        shrink = 1 / len(good)
        within = _shrunk(z.T @ z / len(z), shrink)
        directions = []
        for copies in (changed - centre) / scale:
            direction = np.linalg.solve(
                (within + _shrunk(np.cov(copies.T, bias=True), shrink)) / 2, copies.mean(0)
            )
            directions.append(
                direction / max(float(((good - centre) / scale @ direction).std()), 1e-9)
            )
        return cls(centre, scale, np.linalg.cholesky(np.linalg.inv(within)), np.array(directions).T)

    def checks(self, statistics: Array) -> Array:
        """Returns the logarithm of the squared distance and the discriminants, (n, 1 + changes)."""
        z = (statistics - self.centre) / self.scale
        return np.concatenate(
            [np.log(((z @ self.whiten) ** 2).sum(1) + 1e-9)[:, None], z @ self.weights], 1
        )


def _shrunk(covariance: Array, share: float) -> Array:
    return (1 - share) * covariance + share * np.eye(len(covariance))


def fit_guard(
    accepted: Array, changed: Array, groups: Sequence[str], mask: Tensor | None = None
) -> Guard:
    """Returns the guard of statistics (copies, n, D) to accept, the images' own first, and
    (changes, n, D) to refuse.
    """
    fold, own = folds(groups, FOLDS), len(accepted)
    # what each check says of images left out of its fit
    held = np.empty((own + len(changed), len(groups), 1 + len(changed)))
    for k in range(fold.max() + 1):
        out = fold == k
        side = Side.of(accepted[:, ~out], changed[:, ~out])
        held[:, out] = [side.checks(each[out]) for each in (*accepted, *changed)]
    limits = limits_of(held[:own], held[own:], len(set(groups)))
    side = Side.of(accepted, changed)
    centre, scale, whiten, weights, limits_ = map(
        torch.from_numpy, (side.centre, side.scale, side.whiten, side.weights, limits)
    )
    guard = Guard(centre, scale, whiten, weights, limits_, mask)
    beyond = (held > limits).any(2).mean(1)
    guard.refused, guard.noticed = (
        float(beyond[0]),
        dict(zip(CHANGES, beyond[own:].tolist(), strict=False)),
    )
    return guard


# ---- from images ----
def learn_guard(records: Sequence[Record], rule: DecodeRule, prepare: Preprocess) -> Guard:
    """Returns the guard of up to 400 of these good images, evenly spaced, and of their copies."""
    statistics = Statistics(prepare.mask)
    lossless = not all(record.path.suffix.lower() in (".jpg", ".jpeg") for record in records)

    def one(number: int, record: Record) -> tuple[str, list[Array]] | None:
        try:
            pixels = decode(record.path, rule, reduce_to=prepare.size).pixels
        except ImageError:  # it was said already that it cannot be read
            return None
        # before the changes, which would carry what lies outside to the inside
        if prepare.mask is not None:
            pixels = blotted(pixels, stretched(prepare.mask, *pixels.shape[:2]).numpy())
        copies = [*accepted_copies(pixels, number, lossless), *changed_copies(pixels)]
        with torch.inference_mode():  # a thread has a mode of its own
            return record.group, [statistics_of(statistics, prepare, copy) for copy in copies]

    chosen = spaced(records, rule)
    with one_thread_each(), ThreadPoolExecutor(available_cores()) as pool:
        found = [image for image in pool.map(one, range(len(chosen)), chosen) if image is not None]
    values = np.array([image for _, image in found]).transpose(1, 0, 2)
    return fit_guard(
        values[: -len(CHANGES)],
        values[-len(CHANGES) :],
        [group for group, _ in found],
        prepare.mask,
    )


def accepted_copies(pixels: Pixels, seed: int, lossless: bool) -> list[Pixels]:
    """Returns an image and what must be judged like it: with small and large synthetic defects,
    and as a JPEG where the files are ``lossless``.
    """
    rng = np.random.default_rng(seed)
    marks = [marked(pixels, rng) for _ in range(MARKS)]
    files = [compressed(pixels)] if lossless else []
    return [pixels, *marks, *large_defects(pixels, rng), *files]


def changed_copies(pixels: Pixels) -> list[Pixels]:
    """Returns the image with each of CHANGES."""
    return [change(pixels) for change in CHANGES.values()]


def blotted(pixels: Pixels, inside: npt.NDArray[np.bool_]) -> Pixels:
    """Returns the image (H, W, 3) with its mean colour ``inside`` (H, W) everywhere else."""
    mean_colour = np.rint(pixels[inside].mean(0)) if inside.any() else np.zeros(3)
    return np.where(inside[..., None], pixels, mean_colour.astype(np.uint8))


def spaced(records: Sequence[Record], rule: DecodeRule) -> Sequence[Record]:
    """Returns up to MAX_GUARD_IMAGES records, evenly spaced; of large images fewer, at least 50."""
    first = decode(records[0].path, rule)
    count = min(MAX_GUARD_IMAGES, max(50, MAX_TOTAL_PIXELS // first.pixels[..., 0].size))
    if len(records) <= count:
        return records
    return [records[i] for i in np.linspace(0, len(records) - 1, count).astype(int)]


def statistics_of(statistics: Statistics, prepare: Preprocess, pixels: Pixels) -> Array:
    """Returns the statistics of one image uint8 (H, W, 3), float64 (D,)."""
    images = torch.from_numpy(pixels)[None]
    return statistics(images, prepare(images))[0].double().numpy()


def guard_facts(guard: Guard) -> dict[str, object]:
    """Returns what the card says of the guard: shares of good images refused and of changed copies
    noticed, cross-fitted.
    """
    return {
        "refused": round(guard.refused, 4),
        "noticed": {change: round(share, 4) for change, share in guard.noticed.items()},
    }
