"""Records of normal images -> three disjoint sets, and what training needs to know of
each image.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from anomaly.detector.session import available_cores
from anomaly.errors import DatasetError, ImageError
from anomaly.imaging.decode import Decoded, DecodeRule, decode
from anomaly.inputs.copies import digest
from anomaly.inputs.dataset import Record
from anomaly.inputs.near_copies import THUMB
from training.pixels import to_levels
from training.pose import Pose
from training.preprocess import Preprocess
from training.protocols import Space
from training.sets import PICTURE, batched


@dataclass(frozen=True)
class Extracted:
    """What was seen of a list of images.

    ``maps``: the space's raw maps float32 (n, C, h, w), or uint8 pixels (n, 3, s, s) in pixel
    space. ``pictures``: uint8 (n, 3, 96, 96). ``thumbs``: float32 (n, 64, 64). ``facts``: size,
    bits and greyness of each file. ``left_out``: what could not be read, with the reason.
    ``digests``: of each image's pixels.
    """

    records: list[Record]
    maps: Tensor
    pictures: Tensor
    thumbs: npt.NDArray[np.float32]
    facts: list[tuple[int, int, int, bool]]
    left_out: list[str]
    digests: list[str] = field(default_factory=list)

    def subset(self, records: Sequence[Record]) -> Extracted:
        """Returns what was seen of some of the images only."""
        wanted = {record.path for record in records}
        index = [i for i, record in enumerate(self.records) if record.path in wanted]
        return Extracted(
            [self.records[i] for i in index],
            self.maps[index],
            self.pictures[index],
            self.thumbs[index],
            [self.facts[i] for i in index],
            [],
            [self.digests[i] for i in index],
        )


# map, picture, thumb, facts, digest
Seen = tuple[Tensor, Tensor, Tensor, tuple[int, int, int, bool], str]


def seen_of(
    image: Decoded, prepare: Preprocess, space: Space, device: str, pose: Pose | None
) -> Seen:
    """Returns what training needs to know of one image."""
    x = prepare(torch.from_numpy(image.pixels)[None].to(device))
    framed = x if pose is None else pose(x)[0]
    return (
        space.raw(framed)[0].cpu(),
        to_levels(small(framed, PICTURE)[0]).cpu(),
        small(x, THUMB)[0].mean(0).cpu(),
        (image.width, image.height, image.bits, image.grey),
        digest(image.pixels),
    )


@torch.inference_mode()
def extract(
    records: Sequence[Record],
    rule: DecodeRule,
    prepare: Preprocess,
    space: Space,
    device: str,
    seen: Callable[[], object],
    pose: Pose | None = None,
) -> Extracted:
    """Returns what training needs to know of the images; ``seen`` is called after each. Unreadable
    ones are left out.

    With a ``pose`` maps and pictures are of the part in its frame.
    """

    def one(record: Record) -> Seen | ImageError:
        try:
            image = decode(record.path, rule, reduce_to=max(prepare.shape))
        except ImageError as error:
            return error
        with torch.inference_mode():  # a thread has a mode of its own
            return seen_of(image, prepare, space, device, pose)

    found, left_out = [], []
    with one_thread_each(), ThreadPoolExecutor(available_cores()) as pool:
        for chunk in batched(records, 64):
            for record, image in zip(chunk, pool.map(one, chunk), strict=True):
                seen()
                if isinstance(image, ImageError):
                    left_out.append(str(image))
                else:
                    found.append((record, *image))
    if not found:
        raise DatasetError(
            f"none of {len(records)} images could be read, the first: {(left_out or ['?'])[0]}"
        )
    kept, maps, pictures, thumbs, facts, digests = zip(*found, strict=True)
    return Extracted(
        list(kept),
        torch.stack(maps),
        torch.stack(pictures),
        torch.stack(thumbs).numpy(),
        list(facts),
        left_out,
        list(digests),
    )


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Lets torch compute with one thread, while images are shared among threads: the cores never
    wait for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def small(x: Tensor, side: int) -> Tensor:
    """Returns prepared pixels (N, 3, s, s) at ``side`` pixels a side."""
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)


def sha256_of(record: Record) -> str:
    """Returns the sha256 of an image file's bytes."""
    return hashlib.sha256(record.path.read_bytes()).hexdigest()


def digest_of(records: Sequence[Record]) -> str:
    """Returns the sha256 over the sorted sha256 of the images' bytes: the same set gives the same
    digest.
    """
    digests = sorted(sha256_of(record) for record in records)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
