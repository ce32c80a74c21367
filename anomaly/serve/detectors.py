"""Which detectors are served, by name; one whose file changes is loaded anew while the old one goes
on answering.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from anomaly.detector.file import find_detector
from anomaly.detector.signature import signature_of
from anomaly.detector.trial import end_trials
from anomaly.errors import AnomalyError
from anomaly.scorer import Scorer
from anomaly.serve.names import name_of

Stamp: TypeAlias = tuple[int, ...]


def stamp_of(file: Path) -> Stamp | None:
    """Returns what changes when a detector's file or its signature is written or replaced; None
    where there is no file.
    """
    stamp: Stamp = ()
    for path in (file, signature_of(file)):
        try:
            status = path.stat()
        except OSError:
            continue
        stamp += (status.st_mtime_ns, status.st_size, status.st_ino)
    return stamp if file.is_file() else None


@dataclass(frozen=True)
class Served:
    """One detector as it was loaded from its file. A request that has got it keeps it to
    its end.
    """

    name: str
    file: Path
    scorer: Scorer
    stamp: Stamp | None


class Detectors:
    """The detectors of a service; each has passed its checks and its golden samples.

    Raises AnomalyError where one cannot be loaded or two have the same name.
    """

    def __init__(
        self,
        places: Sequence[Path],
        *,
        device: str = "auto",
        max_pixels: int = 100_000_000,
        seconds: float | None = None,
        key: Path | None = None,
    ) -> None:
        self._device, self._max_pixels, self._seconds, self._key = device, max_pixels, seconds, key
        self._stopping = False
        self._seen: dict[str, Stamp | None] = {}
        self._served: dict[str, Served] = {}
        for place in places:
            name = name_of(place)
            if name in self._served:
                raise AnomalyError(
                    f"two detectors named {name!r} given: rename a run folder or file, names must "
                    "differ"
                )
            self._served[name] = self._load(name, find_detector(place))

    def _load(self, name: str, file: Path) -> Served:
        stamp = self._seen[name] = stamp_of(file)
        # One thread for each image: requests run beside each other, as many as there are workers.
        scorer = Scorer(
            file,
            device=self._device,
            threads=1,
            verify=True,
            key=self._key,
            max_pixels=self._max_pixels,
            seconds=self._seconds,
            at_once=1000,
        )
        return Served(name, file, scorer, stamp)

    @property
    def names(self) -> list[str]:
        return list(self._served)

    def get(self, name: str) -> Served | None:
        """Returns the detector of that name as it is now."""
        return self._served.get(name)

    def refresh(self) -> list[tuple[Served, AnomalyError | None]]:
        """Loads what has changed and returns it, with the reason where the old one stays.

        A file is loaded when it has looked the same twice in a row, so that one that is being
        copied is left alone, and a bad one is tried once. They are loaded at once, so that one that
        takes long does not keep the others waiting.
        """
        changed: list[Served] = []
        if self._stopping:
            return []
        for name, old in list(self._served.items()):
            stamp = stamp_of(old.file)
            settled, self._seen[name] = stamp == self._seen[name], stamp
            if stamp is None or stamp == old.stamp or not settled:
                continue
            changed.append(Served(name, old.file, old.scorer, stamp))
        if not changed:
            return []
        with ThreadPoolExecutor(len(changed)) as loading:
            return list(loading.map(self._replace, changed))

    def _replace(self, old: Served) -> tuple[Served, AnomalyError | None]:
        """Serves what a changed file holds now; where that cannot be loaded the old one stays."""
        found: AnomalyError | None = None
        try:
            new = self._load(old.name, old.file)
        except AnomalyError as error:
            new, found = old, error
        self._served[old.name] = new
        return new, found

    def stop(self) -> None:
        """Ends what is being tried out, so that the process can end; nothing is loaded any more."""
        self._stopping = True
        end_trials()
