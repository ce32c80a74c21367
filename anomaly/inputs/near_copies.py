"""Pairs of images that are near-copies of each other, from small grey copies."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
THUMB = 64  # pixels a side of the small copies that are compared
# Images compared with all others at the most; further ones are compared with their neighbours in
# the list
MAX_COMPARED_IMAGES = 20_000
NEAREST_CANDIDATES = 8  # candidates of each image
LIST_NEIGHBOURS = 2  # and its neighbours in the list: frames of a video
USUAL_DISTANCE_IMAGES = 12  # images by which an image's usual distance is told
# Quantile of the distances to these: of few parts with many copies, some of the others are copies
# too
USUAL_DISTANCE_QUANTILE = 0.7
CLOSE_DISTANCE_RATIO = 0.25  # times the usual distance, below which two images may be copies
CLOSER_DISTANCE_RATIO = 0.17  # the same where the difference is one of light
# correlation from which two such images are copies, unless their difference is smooth
COPY_CORRELATION = 0.965
# Correlation from which two images are copies even if all are as alike, if their difference is
# noise
NOISY_COPY_CORRELATION = 0.985
SURE_COPY_CORRELATION = 0.998  # and whatever it is
# Correlation of neighbouring pixels of a difference that is noise; of parts that differ it is
# higher
MAX_NOISE_CORRELATION = 0.3
# the same of pictures without detail, out of focus: they are alike, and no copies
MAX_BLURRED_NOISE_CORRELATION = 0.68
# the same of a difference of light and noise, where no more than a few others are close
MAX_LIGHT_NOISE_CORRELATION = 0.42
LOCAL_PIXELS = 7  # pixels: a mean and a contrast are those of a square so wide
MIN_CONTRAST = 0.01  # contrast below which there is nothing to see
SHIFTS = np.arange(-4, 4.01, 0.5)  # pixels of the small copies
EDGE = 5  # pixels that a shift may bring in from the other side
ROUNDS = 4
AT_ONCE = 256  # pairs


class Joined:
    """Union-find over n things."""

    def __init__(self, count: int) -> None:
        self.leader = list(range(count))

    def first(self, i: int) -> int:
        while self.leader[i] != i:
            self.leader[i] = self.leader[self.leader[i]]
            i = self.leader[i]
        return i

    def join(self, i: int, j: int) -> None:
        low, high = sorted((self.first(i), self.first(j)))
        self.leader[high] = low

    def scenes(self) -> Ints:
        return np.array([self.first(i) for i in range(len(self.leader))], np.int64)


def near_copies(thumbs: Floats) -> list[tuple[int, int, float]]:
    """Returns (i, j, correlation) of images that are near-copies; each is joined to its nearest,
    the rest follows from that.

    ``thumbs``: float32 (n, 64, 64). Joined images are compared again by one or two of each scene:
    copies among which all candidates were found do not hide those further off.
    """
    pictures, joined = _Pictures(_own(thumbs)), Joined(len(thumbs))
    usual, crowded = np.zeros(len(thumbs), np.float32), np.zeros(len(thumbs), bool)
    shown, found = np.arange(len(thumbs)), []
    for _ in range(ROUNDS):
        if len(shown) < 2:
            break
        distance, crowded[shown] = pictures.usual(shown)
        usual[shown] = np.maximum(usual[shown], distance)
        i, j = pictures.candidates(shown)
        apart = np.array(
            [joined.first(int(a)) != joined.first(int(b)) for a, b in zip(i, j, strict=True)], bool
        )
        i, j = i[apart], j[apart]
        alike, beside = pictures.compare(i, j)
        copies = _are_copies(alike, beside, np.sqrt(usual[i] * usual[j]), crowded[i] | crowded[j])
        if not copies.any():
            break
        for a, b, value in zip(
            i[copies].tolist(), j[copies].tolist(), alike[copies].tolist(), strict=True
        ):
            joined.join(a, b)
            found.append((a, b, value))
        shown = _shown(joined.scenes())
    return sorted(found, key=lambda pair: -pair[2])


def _are_copies(
    alike: Floats, beside: Floats, usual: Floats, crowded: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Returns which pairs are copies.

    ``alike``: their correlations; ``beside``: those of neighbouring pixels of their difference;
    ``usual``: the distance to others; ``crowded``: whether many others are as close.
    """
    relative = (1 - alike) / (usual + 1e-9)
    # Where many others are as close, these may be the parts of one product among several: then
    # only noise tells.
    light = (relative < CLOSER_DISTANCE_RATIO) & (beside < MAX_LIGHT_NOISE_CORRELATION) & ~crowded
    near = (relative < CLOSE_DISTANCE_RATIO) & (
        ((alike > COPY_CORRELATION) & (beside < MAX_BLURRED_NOISE_CORRELATION))
        | (beside < MAX_NOISE_CORRELATION)
    )
    noisy = (alike > NOISY_COPY_CORRELATION) & (beside < MAX_NOISE_CORRELATION)
    return (alike > SURE_COPY_CORRELATION) | noisy | near | light


def _shown(scenes: Ints) -> Ints:
    """Returns the first and the last image of each scene."""
    first, last = (np.unique(one, return_index=True)[1] for one in (scenes, scenes[::-1]))
    return np.unique(np.concatenate([first, len(scenes) - 1 - last]))


def _own(thumbs: Floats) -> Floats:
    """Returns what is left of pictures (n, 64, 64) without light and contrast: by its place, each
    detail counts alike.
    """
    own = np.empty(thumbs.shape, np.float32)
    for start in range(0, len(thumbs), 1000):  # of many images only one copy is held
        some = thumbs[start : start + 1000]
        fine = some - _blurred(some)
        own[start : start + 1000] = fine / (
            np.sqrt(np.maximum(_blurred(fine * fine), 0)) + MIN_CONTRAST
        )
    return own


def _blurred(x: Floats) -> Floats:
    """Returns pictures (n, h, w) as means over squares, their edges continued."""
    half = LOCAL_PIXELS // 2
    for axis in (1, 2):
        wide = np.pad(x, [(half * (axis == a), half * (axis == a)) for a in range(3)], mode="edge")
        total = np.zeros_like(x)
        for i in range(LOCAL_PIXELS):
            total += wide.take(range(i, i + THUMB), axis)
        x = total / np.float32(LOCAL_PIXELS)
    return x


class _Pictures:
    """Pictures (n, 64, 64) to be compared at the shift that fits best."""

    def __init__(self, own: Floats) -> None:
        self.own = own
        line = np.sqrt(np.hanning(THUMB + 2)[1:-1])
        self.window = np.outer(line, line).astype(np.float32)
        frequency = np.fft.fftfreq(THUMB)
        # (shifts, 64)
        self.waves = np.exp(2j * np.pi * np.outer(SHIFTS, frequency)).astype(np.complex64)
        self.frequency = np.where(np.abs(frequency) == 0.5, 0, frequency)

    def usual(self, shown: Ints) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Returns the usual distance of each of these images to others of them, 1 - correlation,
        and whether some are close.
        """
        rng, count = np.random.default_rng(0), len(shown)
        each = min(
            USUAL_DISTANCE_IMAGES if count <= 5000 else USUAL_DISTANCE_IMAGES // 2, count - 1
        )
        step = np.array([rng.choice(count - 1, each, replace=False) + 1 for _ in range(count)])
        others = shown[(np.arange(count)[:, None] + step) % count]
        alike, _ = self.compare(np.repeat(shown, each), others.ravel())
        distances = 1 - alike.reshape(count, each)
        usual = np.quantile(distances, USUAL_DISTANCE_QUANTILE, axis=1).astype(np.float32)
        return usual, distances.min(1) < CLOSE_DISTANCE_RATIO * usual

    def candidates(self, shown: Ints) -> tuple[Ints, Ints]:
        """Returns pairs of these images that are alike at first sight, and neighbours in the list,
        i < j.
        """
        compared, pairs = shown[:MAX_COMPARED_IMAGES], set[tuple[int, int]]()
        small = (
            self.own[compared]
            .reshape(-1, THUMB // 2, 2, THUMB // 2, 2)
            .mean((2, 4))
            .reshape(len(compared), -1)
        )
        small -= small.mean(0)
        small /= np.linalg.norm(small, axis=1, keepdims=True) + 1e-6
        for start in range(0, len(compared), 1024):
            alike = small[start : start + 1024] @ small.T
            rows = np.arange(len(alike))
            alike[rows, start + rows] = -2
            few = min(NEAREST_CANDIDATES, len(compared) - 1)
            nearest = np.argpartition(-alike, few - 1, axis=1)[:, :few]
            pairs.update(
                zip(np.repeat(start + rows, few).tolist(), nearest.ravel().tolist(), strict=True)
            )
        pairs.update(
            (i, i + step)
            for step in range(1, LIST_NEIGHBOURS + 1)
            for i in range(len(shown) - step)
        )
        chosen = np.array(sorted({(min(pair), max(pair)) for pair in pairs}), np.int64)
        return shown[chosen[:, 0]], shown[chosen[:, 1]]

    def compare(self, i: Ints, j: Ints) -> tuple[Floats, Floats]:
        """Returns the correlation of pairs at the best shift, (p,), and that of their difference's
        neighbouring pixels.
        """
        if not len(i):
            return np.zeros(0, np.float32), np.zeros(0, np.float32)
        starts = range(0, len(i), AT_ONCE)
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            parts = list(
                pool.map(
                    lambda at: self._compare(i[at : at + AT_ONCE], j[at : at + AT_ONCE]), starts
                )
            )
        return np.concatenate([alike for alike, _ in parts]), np.concatenate(
            [beside for _, beside in parts]
        )

    def _compare(self, i: Ints, j: Ints) -> tuple[Floats, Floats]:
        a, b = self.own[i], self.own[j]
        down, across = self._shift(a, b)
        here = a[:, EDGE:-EDGE, EDGE:-EDGE]
        moved, plain = (x[:, EDGE:-EDGE, EDGE:-EDGE] for x in (self._moved(b, down, across), b))
        first, second = _correlation(here, moved), _correlation(here, plain)
        best = np.where((first > second)[:, None, None], moved, plain)
        return np.maximum(first, second), _beside(here, best)

    def _shift(
        self, a: Floats, b: Floats
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Returns how far to move b down and across to lie on a, by the peak of
        their correlation.
        """
        crossed = np.fft.fft2(a * self.window).conj() * np.fft.fft2(b * self.window)
        peaks = np.einsum(
            "nsl,tl->nst",
            np.einsum("sk,nkl->nsl", self.waves, crossed, optimize=True),
            self.waves,
            optimize=True,
        )
        n, count = np.arange(len(a)), len(SHIFTS)
        y, x = np.divmod(peaks.real.reshape(len(a), -1).argmax(1), count)
        y, x = (np.clip(at, 1, count - 2) for at in (y, x))
        cross = peaks.real
        return (
            SHIFTS[y] + 0.5 * _vertex(cross[n, y - 1, x], cross[n, y, x], cross[n, y + 1, x]),
            SHIFTS[x] + 0.5 * _vertex(cross[n, y, x - 1], cross[n, y, x], cross[n, y, x + 1]),
        )

    def _moved(
        self, b: Floats, down: npt.NDArray[np.float64], across: npt.NDArray[np.float64]
    ) -> Floats:
        turn_y, turn_x = (
            np.exp(2j * np.pi * by[:, None] * self.frequency) for by in (down, across)
        )
        half = turn_x[:, : THUMB // 2 + 1]
        moved = np.fft.irfft2(
            np.fft.rfft2(b) * turn_y[:, :, None] * half[:, None, :], s=(THUMB, THUMB)
        )
        return moved.astype(np.float32)


def _vertex(before: Floats, at: Floats, after: Floats) -> Floats:
    """Returns where between -1 and 1 the parabola through three values is highest."""
    curve = before - 2 * at + after
    found = (before - after) / np.where(curve < 0, 2 * curve, -np.inf)
    return np.clip(found, -1, 1)


def _correlation(a: Floats, b: Floats) -> Floats:
    product = (a * b).sum((1, 2))
    return np.asarray(
        product / np.sqrt((a * a).sum((1, 2)) * (b * b).sum((1, 2)) + 1e-9), np.float32
    )


def _beside(a: Floats, b: Floats) -> Floats:
    """Returns the correlation of neighbouring pixels of the differences of pictures (n, h, w): low
    where they are noise.
    """
    scale = (a * b).sum((1, 2)) / ((b * b).sum((1, 2)) + 1e-9)
    rest = a - scale[:, None, None] * b
    beside = (
        (rest[:, 1:] * rest[:, :-1]).mean((1, 2)) + (rest[:, :, 1:] * rest[:, :, :-1]).mean((1, 2))
    ) / 2
    return np.asarray(beside / ((rest * rest).mean((1, 2)) + 1e-9), np.float32)
