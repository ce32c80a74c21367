"""Finds images that are copies of each other: the same pixels, saved again, moved a little,
brightened, or frames of one part.

Copies are not independent, so that a guaranteed rate that counts them as such is false. Two images
are compared by what is left of small copies when light and contrast are taken away, at the shift
that fits best. They count as copies where they are nearly equal, or where they are much more alike
than either is to the other images and their difference looks like noise. The difference of two
images needs no estimate of what all of them share: few distinct parts are enough, however many
copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly.inputs.dataset import Record
from anomaly.inputs.near_copies import THUMB, Floats, Ints, Joined, near_copies


def thumb(pixels: npt.NDArray[np.uint8], size: int = THUMB) -> Floats:
    """Returns the small grey copy, float32 (64, 64) in 0..1, of an image as a model of that size
    sees it.
    """
    # resizing is linear: the mean may come first
    grey = Image.fromarray(pixels.mean(2, dtype=np.float32) / 255)
    squashed = grey.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(squashed.resize((THUMB, THUMB), Image.Resampling.BILINEAR))


def digest(pixels: npt.NDArray[np.uint8]) -> str:
    """Returns the sha256 of decoded pixels and their size: equal bytes have one, and so has a
    lossless copy.
    """
    return hashlib.sha256(
        repr(pixels.shape).encode() + np.ascontiguousarray(pixels).data
    ).hexdigest()


@dataclass(frozen=True)
class Copies:
    """Which images are copies of each other.

    ``scene``: int64 (n,), equal for images that are joined, directly or through others. ``pairs``:
    (i, j, correlation) that join different groups, the most alike first. ``near``: whether some of
    them differ in their pixels.
    """

    scene: Ints
    pairs: list[tuple[int, int, float]]
    near: bool = False

    @classmethod
    def of(
        cls,
        thumbs: Floats,
        groups: Sequence[str],
        digests: Sequence[str] = (),
        same_only: bool = False,
    ) -> Copies:
        """Returns the copies among images; ``digests`` of their pixels, where known; ``same_only``:
        only equal pixels.
        """
        joined = Joined(len(groups))
        found = list(_same(digests))
        for i, j, _ in found:
            joined.join(i, j)
        if not same_only:
            # the first of the same pixels stands for them
            first = np.unique(joined.scenes(), return_index=True)[1]
            near = near_copies(thumbs[first])
            found += [(int(first[i]), int(first[j]), alike) for i, j, alike in near]
        for i, j, _ in found:
            joined.join(i, j)
        across = sorted(
            (pair for pair in found if groups[pair[0]] != groups[pair[1]]),
            key=lambda pair: -pair[2],
        )
        return cls(
            joined.scenes(),
            across,
            any(not digests or digests[i] != digests[j] for i, j, _ in across),
        )

    @property
    def images(self) -> int:
        """How many images are a copy of one in another group."""
        return len({index for pair in self.pairs for index in pair[:2]})


def _same(digests: Sequence[str]) -> Iterator[tuple[int, int, float]]:
    """Yields each image of the same pixels as an earlier one, with the first of them."""
    first: dict[str, int] = {}
    for i, name in enumerate(digests):
        if first.setdefault(name, i) != i:
            yield first[name], i, 1.0


def joined_groups(groups: Sequence[str], pairs: Sequence[tuple[int, int, float]]) -> list[str]:
    """Returns the group of each image, where groups that a pair of images joins (directly or not)
    have one name.
    """
    names = sorted(set(groups))
    number = {name: i for i, name in enumerate(names)}
    joined = Joined(len(names))
    for i, j, _ in pairs:
        joined.join(number[groups[i]], number[groups[j]])
    return [names[joined.first(number[group])] for group in groups]


@dataclass
class Looks:
    """What is kept of decoded images in order to compare them: small copies and digests, in the
    order they were added.
    """

    size: int = THUMB
    thumbs: list[Floats] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    def add(self, pixels: npt.NDArray[np.uint8]) -> None:
        self.thumbs.append(thumb(pixels, self.size))
        self.digests.append(digest(pixels))

    def copies(self, groups: Sequence[str], same_only: bool = False) -> Copies:
        """Returns which of them are copies of each other."""
        thumbs = np.stack(self.thumbs) if self.thumbs else np.zeros((0, THUMB, THUMB), np.float32)
        return Copies.of(thumbs, groups, self.digests, same_only)


def regrouped(records: Sequence[Record], copies: Copies, whole: bool = False) -> list[Record]:
    """Returns the records with copies in one group. ``whole``: two groups are joined only if every
    image has its copy there.
    """
    groups = [record.group for record in records]
    pairs = _whole(groups, copies) if whole else copies.pairs
    return [
        replace(r, group=group)
        for r, group in zip(records, joined_groups(groups, pairs), strict=True)
    ]


def _whole(groups: Sequence[str], copies: Copies) -> list[tuple[int, int, float]]:
    """Returns a pair of images for each two groups whose images show the same scenes: units, all of
    whose views are alike.
    """
    scenes: dict[str, set[int]] = {}
    first: dict[frozenset[int], int] = {}
    for group, scene in zip(groups, copies.scene.tolist(), strict=True):
        scenes.setdefault(group, set()).add(scene)
    pairs = []
    for i, group in enumerate(groups):
        j = first.setdefault(frozenset(scenes[group]), i)
        if groups[j] != group:
            pairs.append((j, i, 1.0))
    return pairs
