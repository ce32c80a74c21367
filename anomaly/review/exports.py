"""Findings and verdicts for other programs: CSV, JSON lines, COCO, the whole log, and a folder to
train and test on.

Files appear whole or not at all, and nothing that is there is overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from anomaly.errors import AnomalyError
from anomaly.files.atomic import whole_file, write_atomically
from anomaly.files.csv_cells import csv_text
from anomaly.files.table import portable
from anomaly.imaging.drawn_regions import mask_of_regions
from anomaly.imaging.mask import to_png
from anomaly.review.coco import UNNAMED, to_coco
from anomaly.review.evidence import ImageFile
from anomaly.review.findings import Event, Filters, Finding
from anomaly.review.regions import drawn_regions, regions_of
from anomaly.review.store import Store
from anomaly.review.verdicts import VERDICTS

FORMATS = (".csv", ".jsonl", ".json")
PAGE = 2_000
NORMAL = "good"  # the folder, and the label in a manifest, of normal images
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Exported:
    """``written`` rows or images; ``left_out``: a line for each that could not be, with
    the reason.
    """

    written: int
    left_out: list[str]


def export_findings(store: Store, out: Path, filters: Filters) -> Exported:
    """Writes the findings that match, with what was said of them: .csv, .jsonl, or .json for COCO.

    COCO: ``images`` are those judged anomalous or normal; see ``coco.to_coco``.
    """
    _check_out(out, FORMATS)
    findings = list(_all(store, filters))
    text = {".csv": _to_csv, ".jsonl": _to_json_lines, ".json": _to_coco}[out.suffix.lower()](
        store, findings
    )
    with whole_file(out) as file:
        file.write(text.encode())
    judged = sum(finding.state in ("anomalous", "normal") for finding in findings)
    return Exported(judged if out.suffix.lower() == ".json" else len(findings), [])


def export_events(store: Store, out: Path, run: int | None = None) -> Exported:
    """Writes the log as JSON lines, the oldest event first: whatever was done, also what was
    undone.
    """
    _check_out(out, (".jsonl",))
    events = store.events(run=run, limit=None)[::-1]
    with whole_file(out) as file:
        file.write(
            "".join(
                json.dumps(asdict(event), ensure_ascii=False) + "\n" for event in events
            ).encode()
        )
    return Exported(len(events), [])


def export_folder(store: Store, out: Path, filters: Filters, *, link: bool = False) -> Exported:
    """Copies (or links; members of archives are always copied) the judged images that match into
    ``train/good``, ``test/good`` and ``test/<defect type>``, and a mask of the regions that were
    drawn on each into ``ground_truth/<defect type>``.

    A fifth of the normal ones is for testing, always the same ones: an image's digest decides. An
    image that moved or changed since it was scored is left out. A file that is there stays as it
    is.
    """
    left_out: list[str] = []
    written, drawn = 0, drawn_regions(store.standing())
    for finding, image in judged_images(store, out, filters, left_out):
        target = out / _folder(finding) / file_name(finding, image)
        written += place_image(target, image, link)
        regions = drawn.get(finding.id) if finding.state == "anomalous" else None
        mask = out / "ground_truth" / target.parent.name / f"{target.stem}_mask.png"
        if regions and not mask.exists():
            mask.parent.mkdir(parents=True, exist_ok=True)
            marked = mask_of_regions(regions, finding.width or 0, finding.height or 0)
            write_atomically(mask, to_png(marked))
    return Exported(written, left_out)


def judged_images(
    store: Store, out: Path, filters: Filters, left_out: list[str]
) -> Iterator[tuple[Finding, ImageFile]]:
    """Yields the images that match and are judged anomalous or normal, each once by its bytes, as
    they were scored; what is not goes to ``left_out``. AnomalyError where ``out`` is a file.
    """
    if out.exists() and not out.is_dir():
        raise AnomalyError(
            f"{out}: a file found, a folder to write images to expected: choose another name"
        )
    done: set[str] = set()
    for state in ("anomalous", "normal"):
        for finding in _all(store, replace(filters, state=state)):
            if finding.sha256 in done:
                continue
            image = store.image(finding.id)
            if image.state != "same" or image.data is None or finding.sha256 is None:
                left_out.append(image.message)
                continue
            done.add(finding.sha256)
            yield finding, image


def write_calibration_manifest(store: Store, run: int, out: Path) -> Exported:
    """Writes a manifest (CSV) of the images that may set a new threshold, as ``anomaly calibrate``
    takes it.

    They are those of the audit sample's core that were judged normal (see
    ``verdicts.calibration_rows``).
    """
    _check_out(out, (".csv",))
    rows, left_out = [], []
    for finding in store.calibration_images(run):
        image = store.image(finding.id)
        if image.state != "same":
            left_out.append(image.message)
        elif image.path is None:
            left_out.append(
                f"{finding.path} lies in an archive, a file expected: unpack the archive and score "
                "it again"
            )
        else:
            rows.append((os.fspath(image.path), "train", NORMAL))
    with whole_file(out) as file:
        file.write(csv_text([("path", "split", "label"), *rows]).encode("utf-8", "surrogateescape"))
    return Exported(len(rows), left_out)


@dataclass(frozen=True)
class Learnable:
    """What a detector may learn from verdicts: images judged anomalous with their type (None: not
    said), images that may set a threshold (see ``write_calibration_manifest``), and messages on
    those that are not as they were, or lie in archives.

    ``masks``: as PNG, of the defects on which regions were drawn; of the size of the original.
    """

    defects: list[tuple[Path, str | None]]
    good: list[Path]
    left_out: list[str]
    masks: dict[Path, bytes]


def learnable(store: Store) -> Learnable:
    """Returns what may be learnt from the verdicts on all runs; each image once, by its bytes."""
    found = Learnable([], [], [], {})
    done: set[str] = set()
    drawn = drawn_regions(store.standing())
    good = [one for run in store.runs() for one in store.calibration_images(run.id)]
    for finding in [*_all(store, Filters(state="anomalous")), *good]:
        if finding.sha256 is None or finding.sha256 in done:
            continue
        done.add(finding.sha256)
        image = store.image(finding.id)
        if image.state != "same":
            found.left_out.append(image.message)
        elif image.path is None:
            found.left_out.append(
                f"{finding.path} lies in an archive, a file expected: unpack the archive and score "
                "it again"
            )
        elif finding.state == "anomalous":
            found.defects.append((image.path, finding.defect_type))
            if regions := drawn.get(finding.id):
                marked = mask_of_regions(regions, finding.width or 0, finding.height or 0)
                found.masks[image.path] = to_png(marked)
        else:
            found.good.append(image.path)
    return found


def _check_out(out: Path, suffixes: tuple[str, ...]) -> None:
    if out.suffix.lower() not in suffixes:
        raise AnomalyError(
            f"{out}: {out.suffix or 'no suffix'} found, {' or '.join(suffixes)} expected for this "
            "export"
        )
    if out.exists():
        raise AnomalyError(f"{out} is there already and stays as it is: choose another --out")
    if not out.parent.is_dir():
        raise AnomalyError(f"{out.parent}: no such folder; make it first, or choose another --out")


def _all(store: Store, filters: Filters) -> Iterator[Finding]:
    start = 0
    while page := store.findings(filters, "position", PAGE, start):
        yield from page
        start += len(page)


# ---- files ----


def _rows(store: Store, findings: list[Finding]) -> Iterator[dict[str, Any]]:
    """A finding with the verdicts that count, by inspector, and the comments that are
    not undone.
    """
    names = {run.id: run.name for run in store.runs()}
    said: dict[int, list[Event]] = {}
    for event in store.standing():
        said.setdefault(event.finding or 0, []).append(event)
    for finding in findings:
        events = said.get(finding.id, [])
        yield {
            **asdict(finding),
            "run": names[finding.run],
            "verdicts": {
                event.inspector: event.action for event in events if event.action in VERDICTS
            },
            "comments": [
                f"{event.inspector}: {event.payload['text']}"
                for event in events
                if "text" in event.payload
            ],
            "judged_at": max(
                (event.at for event in events if event.action in VERDICTS), default=None
            ),
            "regions": [
                {"inspector": event.inspector, **region.to_json()}
                for event in events
                for region in regions_of(event)
            ],
        }


def _to_json_lines(store: Store, findings: list[Finding]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(store, findings))


def _to_csv(store: Store, findings: list[Finding]) -> str:
    names = [field.name for field in fields(Finding) if field.name != "box"]
    lines: list[list[Any]] = [
        [*names, "box_x", "box_y", "box_w", "box_h", "verdicts", "comments", "judged_at"]
    ]
    for row in _rows(store, findings):
        verdicts = "; ".join(f"{who}: {what}" for who, what in row["verdicts"].items())
        said = [verdicts or None, "\n".join(row["comments"]) or None, row["judged_at"]]
        lines.append([*(row[name] for name in names), *(row["box"] or [None] * 4), *said])
    return csv_text(lines)


def _to_coco(store: Store, findings: list[Finding]) -> str:
    judged = [finding for finding in findings if finding.state in ("anomalous", "normal")]
    return to_coco(judged, drawn_regions(store.standing()), store.defect_types())


# ---- a folder of images ----


def _folder(finding: Finding) -> Path:
    if finding.state == "anomalous":
        return Path("test", portable(finding.defect_type or UNNAMED))
    return Path("test" if is_for_testing(finding) else "train", NORMAL)


def is_for_testing(finding: Finding) -> bool:
    """Whether an image is among the fifth that is kept for testing: its digest decides."""
    lot = int(hashlib.sha256(f"split {finding.sha256}".encode()).hexdigest()[:8], 16) / 2**32
    return lot < TEST_SHARE


def file_name(finding: Finding, image: ImageFile) -> str:
    """Returns the name of an image's copy: its own, and part of its digest."""
    source = image.path or Path(finding.path.rpartition("::")[0])
    stem = portable(re.sub(r"[^\w.-]", "_", source.stem)[:100])
    return f"{stem}-{(finding.sha256 or '')[:12]}{source.suffix.lower()}"


def place_image(target: Path, image: ImageFile, link: bool) -> int:
    """Puts an image (or a link to it, where it is a file of its own) to its place; 1, or 0 where it
    was there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        return 0
    if link and image.path is not None:
        # Windows allows links to some users only, and some shares have none: then it is copied
        with suppress(OSError):
            target.symlink_to(image.path)
            return 1
    with whole_file(target) as file:
        file.write(image.data or b"")
    return 1
