"""The input guard: is an image like the training images at all? Two stops darker, out of focus, turned, another product.

Some fifty statistics of an image (brightness, contrast, colour, and the energy and direction of its differences at seven
scales) are compared with those of the training images in two ways, and an image is in range only if it passes both:

- the distance of Mahalanobis, for what nobody thought of, such as another product;
- for each known change a linear discriminant (Fisher 1936) between good images and changed copies of them, because two
  stops may lie within the spread of a set that was photographed at several exposures, and noise still tells them.

Limits are set on images that were left out of the fit, whole groups at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.dataset import Record
from anomaly.errors import ImageError
from anomaly.images import DecodeRule, decode
from anomaly.scorer import available_cores
from training.preprocess import Preprocess, stretched

Array = npt.NDArray[np.float64]

CROP = 512  # pixels a side of the middle that is looked at in full resolution: noise and focus do not survive the resize
LEVELS = 6  # halvings of the prepared image
PARTS = 5  # the groups are left out in so many parts
MOST = 400  # images that the guard is learnt on, fewer where they are large: a changed copy of 12 million pixels takes a second
MOST_PIXELS = 1_200_000_000
SHRINK = 3e-3  # of the covariance towards independence
TAIL = 2.7  # standard deviations of a discriminant, more where few groups are known
SEEN = 0.02  # quantile of the changed copies, towards which a limit moves where they are far from the good images
FAR = 4.0  # the same of the logarithm of the distance


# ---- statistics ----
class FullResolution(nn.Module):
    """uint8 images (N, H, W, 3) -> 20 statistics of the pixels' differences in the middle, at full resolution (N, 20).

    ``mask``: as of Preprocess; a difference counts where all its pixels are inside.
    """

    mask: Tensor | None

    def __init__(self, mask: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        middle, inside = cropped(images).float().mean(3)[:, None], None
        if self.mask is not None:
            inside = cropped(stretched(self.mask, images.shape[1], images.shape[2])[None].float())[:, None]
        image = (padded(middle), None if inside is None else padded(inside))
        across, down = differ(*image, 3), differ(*image, 2)
        curved = differ(*across, 3)
        noise = differ(*differ(*curved, 2), 2)  # Immerkaer's
        return torch.stack([s for each in (across, down, curved, differ(*down, 2), noise) for s in sizes(*each)], 1)


def cropped(images: Tensor) -> Tensor:
    """Returns the middle of (N, H, W, ...), at most CROP a side."""
    top, left = (torch.sym_max(0, (length - CROP) // 2) for length in images.shape[1:3])
    return images[:, top : top + CROP, left : left + CROP]


def padded(x: Tensor) -> Tensor:
    return F.pad(x, (0, 3, 0, 3), mode="replicate")  # an image may be one pixel wide


def differ(x: Tensor, inside: Tensor | None, axis: int) -> tuple[Tensor, Tensor | None]:
    """Returns the differences of neighbours along an axis, and where all pixels of them are inside."""
    if inside is None:
        return x.diff(dim=axis), None
    length = inside.shape[axis] - 1
    return x.diff(dim=axis), inside.narrow(axis, 0, length) * inside.narrow(axis, 1, length)


def thin(x: Tensor) -> Tensor:
    """Returns every fourth row of (N, C, h, w): their mean says nearly as much, at a quarter of the cost."""
    return x[:, :, ::4]


def sizes(d: Tensor, inside: Tensor | None) -> list[Tensor]:
    """Returns the logarithms of energy, mean size, typical size and share of zeros of differences (N, 1, h, w)."""

    def average(x: Tensor) -> Tensor:
        return mean(x) if inside is None else (x * inside).sum((1, 2, 3)) / (inside.sum() + 1e-6)

    d, inside = thin(d), None if inside is None else thin(inside)
    size = d.abs()
    return [
        torch.log(average(d**2) + 1e-2),
        torch.log(average(size) + 5e-2),
        average(torch.log(size + 0.5)),
        torch.log(average((size < 0.5).float()) + 1e-2),
    ]


def prepared_statistics(x: Tensor) -> Tensor:
    """Returns 35 statistics of prepared pixels (N, 3, s, s), float32 (N, 35): light, colour, and differences by scale.

    All are logarithms, so that a ratio means the same at every level.
    """
    grey = x.mean(1, keepdim=True)
    light = torch.log(thin(grey) + 2 / 255)
    colour = torch.log(thin(x).mean((2, 3)) + 2 / 255)
    found = [
        mean(light),
        torch.log(deviation(light) + 1e-2),
        torch.log(deviation(thin(grey)) + 1e-3),
        colour[:, 0] - colour[:, 1],
        colour[:, 2] - colour[:, 1],
    ]
    for _ in range(LEVELS):
        if min(grey.shape[2:]) > 1:
            found += level(grey)
            grey = F.avg_pool2d(grey, 2)
    return torch.stack(found, 1)


def level(grey: Tensor) -> list[Tensor]:
    """Returns five statistics of (N, 1, h, w): energy and size of the differences across and down, and how slanted they are."""
    found, step = [], 4 if grey.shape[2] >= 128 else 1
    upper, lower = grey[:, :, :-1:step], grey[:, :, 1::step]  # pairs of rows
    for d in (upper.diff(dim=3), lower - upper):
        found += [torch.log(mean(d**2) + 1e-7), torch.log(mean(d.abs()) + 1e-4)]
    falling = lower[..., 1:] - upper[..., :-1]
    rising = lower[..., :-1] - upper[..., 1:]
    return [*found, torch.log(mean(falling**2) + 1e-7) - torch.log(mean(rising**2) + 1e-7)]


def mean(x: Tensor) -> Tensor:
    """Returns the mean of each image (N, 1, h, w) as (N,)."""
    return x.mean((1, 2, 3))


def deviation(x: Tensor) -> Tensor:
    return torch.sqrt(mean((x - x.mean((1, 2, 3), keepdim=True)) ** 2) + 1e-12)


# ---- known changes ----
def _stops(stops: float) -> npt.NDArray[np.uint8]:
    """Returns the table that makes sRGB pixels darker by so many stops of light."""
    v = np.arange(256) / 255
    light = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) * 0.5**stops
    return np.rint(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)).astype(np.uint8)


def darker(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return _stops(2)[pixels]


def out_of_focus(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))


def turned(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.rot90(pixels))


CHANGES: dict[str, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
    "two stops darker": darker,
    "out of focus": out_of_focus,
    "turned by 90 degrees": turned,
}


# ---- the guard ----
class Guard(nn.Module):
    """Statistics (N, D) -> whether each image is in range, bool (N,).

    ``noticed``: of the training images' changed copies, the share that is out of range, by change; ``refused``: of
    the training images themselves. Both are cross-fitted: found with guards that had not seen the image's group.
    """

    def __init__(
        self, centre: Tensor, scale: Tensor, whiten: Tensor, weights: Tensor, limits: Tensor, mask: Tensor | None = None
    ) -> None:
        super().__init__()
        self.native = FullResolution(mask)
        for name, value in {"centre": centre, "scale": scale, "whiten": whiten, "weights": weights, "limits": limits}.items():
            self.register_buffer(name, value.float())
        self.noticed: dict[str, float] = {}
        self.refused = 0.0

    def forward(self, images: Tensor, x: Tensor) -> Tensor:
        return self.excess(torch.cat([self.native(images), prepared_statistics(x)], 1)) <= 0

    def excess(self, statistics: Tensor) -> Tensor:
        """Returns by how much the worst of the checks is above its limit (N,); above 0 is out of range."""
        z = (statistics - self.centre) / self.scale
        far = torch.log(((z @ self.whiten) ** 2).sum(1, keepdim=True) + 1e-9)
        return (torch.cat([far, z @ self.weights], 1) - self.limits).amax(1)


@dataclass(frozen=True)
class Side:
    """A Gaussian of good images' statistics and, for each change, the direction that tells it: all linear in them."""

    centre: Array
    scale: Array
    whiten: Array
    weights: Array

    @classmethod
    def of(cls, good: Array, changed: Array) -> Side:
        """Fits good (n, D) and changed (changes, n, D)."""
        centre, scale = good.mean(0), good.std(0) + 1e-3
        z = (good - centre) / scale
        inverse = np.linalg.inv(_shrunk(z))
        directions = []
        for copies in (changed - centre) / scale:
            direction = np.linalg.solve((_shrunk(z) + _shrunk(copies)) / 2, copies.mean(0) - z.mean(0))
            directions.append(direction / max(float((z @ direction).std()), 1e-9))
        return cls(centre, scale, np.linalg.cholesky(inverse), np.array(directions).T)

    def checks(self, statistics: Array) -> Array:
        """Returns the logarithm of the squared distance and the discriminants, (n, 1 + changes)."""
        z = (statistics - self.centre) / self.scale
        return np.concatenate([np.log(((z @ self.whiten) ** 2).sum(1) + 1e-9)[:, None], z @ self.weights], 1)


def _shrunk(z: Array) -> Array:
    covariance = np.cov(z.T, bias=True)
    return (1 - SHRINK) * covariance + SHRINK * np.eye(len(covariance))


def fit_guard(good: Array, changed: Array, groups: Sequence[str], mask: Tensor | None = None) -> Guard:
    """Returns the guard of good images' statistics (n, D) and of their changed copies' (changes, n, D)."""
    part = parts_of(groups)
    held = np.empty((1 + len(changed), len(good), 1 + len(changed)))  # what each check says of images left out of its fit
    for k in range(part.max() + 1):
        out = part == k
        side = Side.of(good[~out], changed[:, ~out])
        held[:, out] = [side.checks(each[out]) for each in (good, *changed)]
    limits = limits_of(held, len(set(groups)))
    side = Side.of(good, changed)
    guard = Guard(*map(torch.from_numpy, (side.centre, side.scale, side.whiten, side.weights, limits)), mask=mask)
    beyond = (held > limits).any(2).mean(1)
    guard.refused, guard.noticed = float(beyond[0]), dict(zip(CHANGES, beyond[1:].tolist(), strict=False))
    return guard


def limits_of(held: Array, groups: int) -> Array:
    """Returns the limit of each check: the end of the good images' tail, and halfway to the changed copies beyond it."""
    tail = 1 + 5 / groups
    limits = []
    for check, deviations in enumerate([FAR] + [TAIL] * (held.shape[2] - 1)):
        good = held[0, :, check]
        limit = good.mean() + deviations * tail * good.std()
        copies = np.quantile(held[check, :, check], SEEN) if check else 0.0
        limits.append(max(limit, (limit + copies) / 2))
    return np.array(limits)


def parts_of(groups: Sequence[str]) -> npt.NDArray[np.int64]:
    """Returns the part, 0 to 4, in which each image is left out: whole groups, drawn with a fixed seed."""
    names = sorted(set(groups))
    order = np.random.default_rng(0).permutation(len(names))
    part = {name: int(order[i]) % min(PARTS, len(names)) for i, name in enumerate(names)}
    return np.array([part[group] for group in groups])


# ---- from images ----
def learn_guard(records: Sequence[Record], rule: DecodeRule, prepare: Preprocess) -> Guard:
    """Returns the guard of up to 400 of these good images, evenly spaced, and of their changed copies."""
    good, changed, groups = see_changes(records, rule, prepare)
    return fit_guard(good, changed, groups, prepare.mask)


def see_changes(records: Sequence[Record], rule: DecodeRule, prepare: Preprocess) -> tuple[Array, Array, list[str]]:
    """Returns the statistics (n, D) of good images and (changes, n, D) of their changed copies, and the images' groups."""
    native = FullResolution(prepare.mask)

    def one(record: Record) -> tuple[str, list[Array]] | None:
        try:
            pixels = decode(record.path, rule, reduce_to=prepare.size).pixels
        except ImageError:  # it was said already that it cannot be read
            return None
        if prepare.mask is not None:  # before the changes, which would carry what lies outside to the inside
            pixels = blotted(pixels, stretched(prepare.mask, *pixels.shape[:2]).numpy())
        with torch.inference_mode():  # a thread has a mode of its own
            copies = [pixels, *(change(pixels) for change in CHANGES.values())]
            return record.group, [statistics_of(native, prepare, copy) for copy in copies]

    with ThreadPoolExecutor(available_cores()) as pool:
        found = [image for image in pool.map(one, spaced(records, rule)) if image is not None]
    values = np.array([statistics for _, statistics in found]).transpose(1, 0, 2)
    return values[0], values[1:], [group for group, _ in found]


def blotted(pixels: npt.NDArray[np.uint8], inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Returns the image (H, W, 3) with its mean colour ``inside`` (H, W) everywhere else."""
    mean_colour = np.rint(pixels[inside].mean(0)) if inside.any() else np.zeros(3)
    return np.where(inside[..., None], pixels, mean_colour.astype(np.uint8))


def spaced(records: Sequence[Record], rule: DecodeRule) -> Sequence[Record]:
    """Returns up to MOST records, evenly spaced; of large images no more than MOST_PIXELS hold, and at least 50."""
    first = decode(records[0].path, rule)
    count = min(MOST, max(50, MOST_PIXELS // first.pixels[..., 0].size))
    if len(records) <= count:
        return records
    return [records[i] for i in np.linspace(0, len(records) - 1, count).astype(int)]


def statistics_of(native: FullResolution, prepare: Preprocess, pixels: npt.NDArray[np.uint8]) -> Array:
    """Returns the statistics of one image uint8 (H, W, 3), float64 (D,)."""
    images = torch.from_numpy(pixels)[None]
    return torch.cat([native(images), prepared_statistics(prepare(images))], 1)[0].double().numpy()


def guard_facts(guard: Guard) -> dict[str, object]:
    """Returns what the card says of the guard: shares of good images refused and of changed copies noticed, cross-fitted."""
    return {"refused": round(guard.refused, 4), "noticed": {change: round(share, 4) for change, share in guard.noticed.items()}}
