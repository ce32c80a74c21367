"""Where the detector files are: the store knows a detector by its digest only, and only a file with
that digest is used.

Looked for in the places that `anomaly review --detector` names, then beside the run's table, then
where a new file was written from the Threshold page.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from anomaly.detector.file import read_card
from anomaly.errors import AnomalyError
from anomaly.imaging.good_images import FILE, GoodImages
from anomaly.review import Run, Store
from anomaly.scorer import Scorer

MAX_READY_SCORERS = 3  # scorers held: some 50 MB each


NOT_FOUND = (
    "not available: the detector's file was not found; give --detector FILE to anomaly review"
)


class DetectorFiles:
    """Finds detector files by digest and holds a few scorers ready; threads may share it."""

    def __init__(self, store: Store, places: Sequence[Path] = ()) -> None:
        self._store = store
        self._places = tuple(places)
        self._digests: dict[tuple[Path, int, int], str] = {}
        self._scorers: OrderedDict[str, Scorer] = OrderedDict()
        self._good: OrderedDict[str, GoodImages | AnomalyError] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, run: Run) -> Path | None:
        """Returns the file of the detector that scored a run, or None where it is not found."""
        with self._lock:
            return next(
                (file for file in self._candidates(run) if self._digest(file) == run.detector), None
            )

    def scorer(self, run: Run) -> Scorer:
        """Returns a scorer of the detector that scored a run; AnomalyError where its file is not
        found.
        """
        with self._lock:
            ready = self._scorers.get(run.detector)
            if ready is not None:
                self._scorers.move_to_end(run.detector)
                return ready
        file = self.find(run)
        if file is None:
            raise AnomalyError(NOT_FOUND)
        made = Scorer(file, device="cpu", threads=1)
        with self._lock:
            self._scorers[run.detector] = made
            while len(self._scorers) > MAX_READY_SCORERS:
                self._scorers.popitem(last=False)
        return made

    def good_images(self, run: Run) -> GoodImages:
        """Returns the good images beside the detector that scored a run; AnomalyError where there
        are none.
        """
        with self._lock:
            ready = self._good.get(run.detector)
        if ready is None:
            file = self.find(run)
            try:
                ready = GoodImages.read(file.with_name(FILE)) if file else AnomalyError(NOT_FOUND)
            except AnomalyError as error:
                ready = error
            with self._lock:
                self._good[run.detector] = ready  # none is looked for once: each image asks
                while len(self._good) > MAX_READY_SCORERS:
                    self._good.popitem(last=False)
        if isinstance(ready, AnomalyError):
            raise ready
        return ready

    def _candidates(self, run: Run) -> Iterator[Path]:
        for place in self._places:
            yield from _detectors_in(place)
        # newest first: a file written from the Threshold page is most likely the one that is asked
        # for
        for event in self._store.events(actions=("threshold",), limit=100):
            yield from _detectors_in(Path(str(event.payload.get("path") or "")))
        table = Path(run.source)
        yield from _detectors_in(table.parent)
        for folder in sorted(table.parent.iterdir()) if table.parent.is_dir() else ():
            if (folder / "detector.onnx").is_file():
                yield folder / "detector.onnx"

    def _digest(self, file: Path) -> str:
        status = file.stat()
        key = (file, status.st_mtime_ns, status.st_size)
        if key not in self._digests:
            with open(file, "rb") as opened:
                self._digests[key] = hashlib.file_digest(opened, "sha256").hexdigest()
        return self._digests[key]


def _detectors_in(place: Path) -> Iterator[Path]:
    """Yields the ONNX files of a place, which is a file or a folder; not explain.onnx, which is no
    detector.
    """
    if place.is_file():
        yield place
    elif place.is_dir() and place != Path(""):
        yield from sorted(
            file for file in place.glob("*.onnx") if file.is_file() and file.name != "explain.onnx"
        )


def check_places(store: Store, places: Sequence[Path]) -> list[str]:
    """Returns a line for each detector that is there but scored none of the store's runs.

    AnomalyError for a place without a detector; it names the detectors of the runs and the folders
    beside it.
    """
    scored = {detector.digest: detector for detector in store.detectors()}
    wanted = (
        ", ".join(f"{one.name}@{one.version} ({one.digest[:8]})" for one in scored.values())
        or "none yet"
    )
    said = []
    for place in places:
        found = _digests_at(place)
        if not found:
            near = ", ".join(_names_beside(place)) or "none"
            raise AnomalyError(
                f"--detector {place}: no detector found there, a run folder or an .onnx file "
                f"expected; beside it: {near}; the runs of this database were scored by: {wanted}"
            )
        if scored and not found & set(scored):
            said.append(
                f"--detector {place} scored no run of this database; its runs were scored by: "
                f"{wanted}"
            )
    return said


def _digests_at(place: Path) -> set[str]:
    """Returns the digests of the detectors at a place; AnomalyError where it holds ONNX files of
    which none is one.
    """
    found, wrong = set(), None
    for file in _detectors_in(place):
        try:
            found.add(read_card(file).digest)
        except AnomalyError as error:
            wrong = AnomalyError(f"--detector {place}: {error}")
    if wrong is not None and not found:
        raise wrong
    return found


def _names_beside(place: Path) -> list[str]:
    """Returns the detectors in the folder that a place would lie in, ten at most: run folders and
    ONNX files.
    """
    parent = place.absolute().parent
    try:
        others = sorted(parent.iterdir()) if parent.is_dir() else []
    except OSError:
        return []
    return [
        str(place.parent / other.name)
        for other in others
        if (other / "detector.onnx").is_file() or _is_onnx(other)
    ][:10]


def _is_onnx(file: Path) -> bool:
    return file.suffix == ".onnx" and file.name != "explain.onnx" and file.is_file()
