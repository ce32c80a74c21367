"""Which images of a folder are good and which show a defect, by the names of the folders that they
lie in.

The decision is taken level by level: where a folder holds one named `good` (or OK, pass, normal,
gut, ...), those beside it name classes of defects. Folders that say nothing (camera, day, lot) are
searched. Where a word for bad stands among names that say nothing, nobody can tell what those are:
that is refused, in one line that shows them with their counts.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomaly.errors import DatasetError
from anomaly.imaging.find import find_images
from anomaly.imaging.listing import READ_SUFFIXES, Passed
from anomaly.inputs.labels import GOOD, folded, is_bad_alone, is_named, kind_of, sides_of

SPLITS = ("train", "test")
MASKS = ("ground_truth", "groundtruth")
MAX_NAMES_SHOWN = 10  # names in a line
Folder = tuple[str, ...]  # parts of a path below the root


@dataclass(frozen=True)
class Placed:
    """An image with what its folders say: ``label`` as in a Record, and the folder that said it
    (relative to the root).
    """

    path: Path
    split: str | None
    label: str | None
    folder: Folder


def placed_images(
    root: Path,
    good: Sequence[str] = (),
    *,
    passed: Passed | None = None,
    plain: str | None = GOOD,
    say: Callable[[str], None] | None = None,
) -> Iterator[Placed]:
    """Yields the images of a folder with their labels, by path.

    ``good``: names that decide which folders hold good images (``.``: images that lie beside
    folders). ``plain``: the label of images of which nothing says more; unless it is "good",
    nothing is refused. ``passed`` counts what are no images; ``say`` gets a line on images that are
    not read.
    Raises DatasetError where names contradict each other or do not suffice.
    """
    tree = _Tree.of(root, good, passed)
    tree.check_names()
    splits = {name: SPLITS.index(folded(name)) for name in tree.below(()) if folded(name) in SPLITS}
    labels = (
        _of_splits(tree, splits, plain) if splits else _resolved(tree, (), plain) or {(): plain}
    )
    if say is not None:
        for line in tree.unread(splits):
            say(line)
        own = root.resolve().name
        if labels == {(): GOOD} and not good and kind_of(own) in ("bad", "type", "doubt"):
            say(
                f"read as good, although the folder is named {own!r}: if it holds defects, give "
                "the folder of good images"
            )
    for split in sorted({splits[name] for name in splits}) or (None,):
        yield from _placed(tree, labels, splits, split)


def _placed(
    tree: _Tree, labels: dict[Folder, str | None], splits: dict[str, int], split: int | None
) -> Iterator[Placed]:
    """Yields the images of one split, by path; without those that lie in no folder with a label."""
    for path in tree.paths:
        folder = path.relative_to(tree.root).parts[:-1]
        own = splits.get(folder[0]) if folder and splits else None
        found = next((folder[:n] for n in range(len(folder), -1, -1) if folder[:n] in labels), None)
        if found is not None and own == split and not _depth_of_masks(folder):
            yield Placed(path, None if own is None else SPLITS[own], labels[found], found)


@dataclass
class _Tree:
    """The folders below a root: names and images of each, and which of the names ``given`` as good
    were found.
    """

    root: Path
    paths: list[Path]
    images: dict[Folder, list[Path]]
    names: dict[Folder, list[str]]
    counts: Counter[Folder]
    hidden: Counter[str]
    given: Sequence[str]
    used: set[str]
    beside: set[str]  # names of folders beside named ones
    above: set[Folder]  # folders that hold named ones

    @classmethod
    def of(cls, root: Path, given: Sequence[str], passed: Passed | None) -> _Tree:
        paths, (folders, hidden) = find_images(root, passed), _folders(root)
        images: dict[Folder, list[Path]] = {}
        for path in paths:
            images.setdefault(path.relative_to(root).parts[:-1], []).append(path)
        folders |= {folder[:n] for folder in images for n in range(len(folder) + 1)}
        names: dict[Folder, list[str]] = {}
        for folder in sorted(folders - {()}):
            names.setdefault(folder[:-1], []).append(folder[-1])
        tree = cls(root, paths, images, names, _totals(images), hidden, given, set(), set(), set())
        for folder in sorted(folders) if given else ():
            if tree.named(folder) and folder:
                tree.beside |= {folded(name) for name in tree.below(folder[:-1])}
                tree.above |= {folder[:n] for n in range(len(folder))}
        return tree

    def below(self, at: Folder) -> list[str]:
        """Returns the names of the folders in one, without those of masks."""
        return [name for name in self.names.get(at, ()) if folded(name) not in MASKS]

    def within(self, at: Folder) -> Iterator[Folder]:
        """Yields the folders below one, without those of masks."""
        for name in self.below(at):
            yield (*at, name)
            yield from self.within((*at, name))

    def count(self, at: Folder) -> int:
        """Returns the number of images in a folder and below it, without masks."""
        return self.counts[at]

    def named(self, folder: Folder) -> bool:
        """Returns whether --good names this folder, by its name or its path below the root."""
        names = [
            name for name in self.given if is_named("/".join(folder) or ".", [name.strip("/")])
        ]
        names += [name for name in self.given if folder and is_named(folder[-1], [name])]
        self.used.update(names)
        return bool(names)

    def kind(self, folder: Folder) -> str | None:
        if self.named(folder):
            return "good"
        if folded(folder[-1]) in self.beside and folder not in self.above:
            return "bad"
        return kind_of(folder[-1])

    def check_names(self) -> None:
        """Raises DatasetError where a name of --good names no folder."""
        lost = [name for name in self.given if name not in self.used]
        if lost:
            names = counted(("/".join(folder), self.count(folder)) for folder in self.within(()))
            raise DatasetError(
                f"{self.root}: --good {lost[0]} names no folder; found: {names or 'no folders'}"
            )

    def unread(self, splits: Iterable[str]) -> Iterator[str]:
        """Yields a line for each kind of images that are not read as such."""
        masks = Counter[str]()
        beside = Counter[str]()
        for folder, images in self.images.items():
            if depth := _depth_of_masks(folder):
                masks["/".join(folder[:depth])] += len(images)
            elif splits and (not folder or folder[0] not in splits):
                beside[folder[0] if folder else "beside the folders"] += len(images)
        if masks:
            yield f"read as masks only: {counted(masks.items())}"
        if beside:
            yield f"not read, as they are neither in train nor in test: {counted(beside.items())}"
        if self.hidden:
            yield f"not read, in hidden folders: {counted(self.hidden.items())}"


def _depth_of_masks(folder: Folder) -> int:
    """Returns how many parts of a path lead to a folder of masks, 0 if there is none in it."""
    return next((i for i, name in enumerate(folder, 1) if folded(name) in MASKS), 0)


def _totals(images: dict[Folder, list[Path]]) -> Counter[Folder]:
    totals: Counter[Folder] = Counter()
    for folder, found in images.items():
        if not _depth_of_masks(folder):
            for n in range(len(folder) + 1):
                totals[folder[:n]] += len(found)
    return totals


def _folders(root: Path) -> tuple[set[Folder], Counter[str]]:
    """Returns the folders below one, empty ones too, and the number of images in each
    hidden one.
    """
    found: set[Folder] = set()
    hidden: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    for at, names, files in os.walk(root, followlinks=True):
        status = os.stat(at)
        folder = Path(at).relative_to(root).parts
        if (status.st_dev, status.st_ino) in seen:
            names.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        first = next((i for i, name in enumerate(folder) if name.startswith(".")), None)
        if first is None:
            found.add(folder)
        elif images := sum(
            Path(name).suffix.lower() in READ_SUFFIXES and not name.startswith("._")
            for name in files
        ):
            hidden["/".join(folder[: first + 1])] += images
    return found, hidden


# ---- train and test ----


def _of_splits(tree: _Tree, splits: Iterable[str], plain: str | None) -> dict[Folder, str | None]:
    """Returns the label of each folder of the layout train/good, test/good, test/<defect>."""
    found = {name: _resolved(tree, (name,), plain, test=folded(name) == "test") for name in splits}
    if not any(GOOD in labels.values() for labels in found.values()):
        for name in splits:
            if folded(name) == "train" and not found[name]:
                raise _without_good(tree, name)
    labels: dict[Folder, str | None] = {}
    for name, told in found.items():
        loose = tree.images.get((name,))
        if loose and (name,) not in told:
            raise _beside(loose[0])
        labels |= told or {(name, below): below for below in tree.below((name,))}
    return labels


def _without_good(tree: _Tree, name: str) -> DatasetError:
    names = counted(_counts(tree, (name,)))
    return DatasetError(
        f"{tree.root}: folder {name} without {name}/good found ({names}), {name}/good expected: "
        "rename the folder of good images, or name it: --good NAME"
    )


# ---- levels ----


def _resolved(
    tree: _Tree, at: Folder, plain: str | None, test: bool = False
) -> dict[Folder, str | None]:
    """Returns the labels of the folders below one; nothing where no name tells. Refuses what is in
    doubt if all may be good.
    """
    labels: dict[Folder, str | None] = (
        {at: GOOD} if tree.named(at) and at else _labels(tree, at, test)
    )
    if not labels and plain == GOOD and not test and at == () and not tree.given:
        _check_own_name(tree)
    doubtful = [folder for folder, label in labels.items() if label is None]
    if doubtful and plain == GOOD:
        raise _doubt(tree, labels, doubtful)
    return {folder: plain if label is None else label for folder, label in labels.items()}


def _labels(tree: _Tree, at: Folder, test: bool) -> dict[Folder, str | None]:
    """Returns the label of each folder at or below one, None where it is in doubt; nothing where no
    name tells.
    """
    names = tree.below(at)
    kinds = {name: tree.kind((*at, name)) for name in names}
    deeper = {
        name: _labels(tree, (*at, name), False)
        for name in names
        if kinds[name] not in ("good", "bad", "type")
    }
    good, bad, doubt, _ = sides_of(kinds)
    if not (good or bad or doubt or any(deeper.values())):
        return {}
    # beside a word for good, and in test, whatever is not in doubt itself names a defect
    unknown_is_defect = bool(good) or (test and "bad" not in kinds.values() and not doubt)
    labels: dict[Folder, str | None] = {}
    for name in names:
        here = (*at, name)
        if name in good or name in bad:
            _check_inside(tree, here, GOOD if name in good else name)
            labels[here] = GOOD if name in good else name
        elif deeper.get(name):
            labels |= deeper[name]
        elif tree.count(here):
            labels[here] = name if unknown_is_defect and name not in doubt else None
    if tree.images.get(at):
        labels[at] = _of_images_beside(tree, at, bool(good))
    return labels


def _of_images_beside(tree: _Tree, at: Folder, good: bool) -> str | None:
    """Returns the label of images that lie beside folders with labels."""
    if "." in tree.given:
        return GOOD
    if good:
        raise _beside(tree.images[at][0])
    return None


def _beside(image: Path) -> DatasetError:
    return DatasetError(
        f"{image}: an image beside the folder good has no label: move it into a folder (or, if "
        "such images are good, --good .)"
    )


def _check_inside(tree: _Tree, at: Folder, label: str) -> None:
    """Raises DatasetError where a folder of good images holds one named as bad, or the other way
    round.
    """
    if tree.given:
        return
    against = ("bad",) if label == GOOD else ("good",)
    for folder in tree.within(at):
        if tree.count(folder) and kind_of(folder[-1]) in against:
            place, own = "/".join(folder), "/".join(at)
            raise DatasetError(
                f"{tree.root}: folder {place} ({tree.count(folder)} images) found within {own}, "
                "whose name says the opposite: move it out, or name the folders of good images: "
                "--good NAME"
            )


def _check_own_name(tree: _Tree) -> None:
    """Raises DatasetError where nothing below tells, and the folder's own name stands for bad
    images.
    """
    name = tree.root.resolve().name
    if is_bad_alone(name):
        raise DatasetError(
            f"{tree.root}: a folder named {name!r} with {tree.count(())} images found where good "
            "images are expected: give the folder of good images, or, if these are good, --good ."
        )


def _doubt(
    tree: _Tree, labels: dict[Folder, str | None], doubtful: Sequence[Folder]
) -> DatasetError:
    known = [
        ("/".join(folder), tree.count(folder))
        for folder, label in labels.items()
        if label not in (None, GOOD)
    ]
    good = [
        ("/".join(folder), tree.count(folder)) for folder, label in labels.items() if label == GOOD
    ]
    unknown = [
        (
            "/".join(folder) or "beside them",
            len(tree.images.get(folder, ())) if folder == () else tree.count(folder),
        )
        for folder in doubtful
    ]
    said = [f"good: {counted(good)}"] * bool(good) + [f"bad by name: {counted(known)}"] * bool(
        known
    )
    names = f"good or bad: {counted(unknown)}?"
    first = "/".join(doubtful[0]) or "."
    return DatasetError(
        f"{tree.root}: folders found: {'; '.join([*said, names])} Say which hold good images, "
        f"--good NAME (such as --good {first!r}), or rename or move the others"
    )


def _counts(tree: _Tree, at: Folder) -> list[tuple[str, int]]:
    found = [("/".join((*at, name)), tree.count((*at, name))) for name in tree.below(at)]
    loose = len(tree.images.get(at, ()))
    return [*found, *([("directly in it", loose)] if loose else [])]


def counted(names: Iterable[tuple[str, int]], shown: int = MAX_NAMES_SHOWN) -> str:
    """Returns names with their counts, the first ones of
    many: `OK (20), NG (5) and 3 more (12)`.
    """
    found = list(names)
    more = (
        f" and {len(found) - shown} more ({sum(count for _, count in found[shown:])})"
        if len(found) > shown
        else ""
    )
    return ", ".join(f"{name} ({count})" for name, count in found[:shown]) + more
