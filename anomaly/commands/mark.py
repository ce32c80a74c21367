"""The command `anomaly mark`: a person says whether images that set the threshold are good."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import command
from anomaly.errors import AnomalyError
from anomaly.reporting.lines import line_of


def add_mark(commands: Any) -> None:
    """Adds `mark` to the command line."""
    p = command(
        commands,
        "mark",
        run_mark,
        "mark images that set a threshold as good or as defects",
        "anomaly mark run --defect photos/good/0119.png",
        "Marks images that a run was trained on as good or as defects; without images, lists "
        "those that set the threshold.",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    for kind in ("good", "defect", "unknown"):
        text = (
            "remove a mark"
            if kind == "unknown"
            else f"mark as {'good' if kind == 'good' else 'a defect'}"
        )
        p.add_argument(f"--{kind}", type=Path, nargs="+", default=[], metavar="IMAGE", help=text)
    p.add_argument("--by", metavar="NAME", help="who marks them (default: you)")


def run_mark(options: argparse.Namespace) -> None:
    """Notes the marks, or lists the images that set the threshold with theirs."""
    from anomaly.detector.file import user
    from anomaly.quality.marks import KINDS, add_mark, names_of, training_images

    rows = training_images(options.detector)
    names = names_of(options.detector)
    given = [(kind, path) for kind in KINDS for path in getattr(options, kind)]
    known = {row["sha256"]: row for row in rows}
    digests = [(kind, path, find(options.detector, path, rows, names)) for kind, path in given]
    said: dict[str, str] = {}
    for kind, path, sha256 in digests:
        if said.setdefault(sha256, kind) != kind:
            raise AnomalyError(
                f"{path}: --{said[sha256]} and --{kind} found, one of them expected; nothing was "
                "marked"
            )
    for kind, path, sha256 in digests:
        add_mark(options.detector, known[sha256]["path"], sha256, kind, options.by or user())
        print(line_of(kind, path))
    if not given:
        print(list_text(options.detector))


def find(run: Path, path: Path, rows: list[dict[str, str]], names: dict[str, str]) -> str:
    """Returns the digest of the image that a path means: a file of the training, a name of the
    list, or the end of one path.

    ``rows``: of the run's images.csv; ``names``: digests of the listed images. Raises AnomalyError
    where it is none of these.
    """
    from anomaly.quality.marks import sha256_of_image

    known = {row["sha256"] for row in rows}
    if path.is_file() and (own := sha256_of_image(path)) in known:
        return own
    ends = {
        row["sha256"]: row["path"]
        for row in rows
        if Path(row["path"]).parts[-len(path.parts) :] == path.parts
    }
    listed = names.get(str(path))
    found = [listed] if listed is not None else list(ends)
    if len(found) == 1 and not changed(Path(ends.get(found[0], "")), found[0]):
        return found[0]
    why = (
        (
            f"the end of the paths of {len(found)} images that {run} was trained on, one expected: "
            "give more of the path"
        )
        if len(found) > 1
        else (
            f"not an image that {run} was trained on, as it is now; a name that `anomaly mark "
            f"{run}` lists expected"
            f"{f', such as {next(iter(names))}' if names else ''}, or a path of images.csv beside "
            "it"
        )
    )
    raise AnomalyError(f"{path}: {why}; nothing was marked")


def changed(path: Path, sha256: str) -> bool:
    """Returns whether a file is there that has other bytes than it had in the training."""
    from anomaly.quality.marks import sha256_of_image

    return path.is_file() and sha256_of_image(path) != sha256


def list_text(run: Path) -> str:
    """Returns the images that set a run's threshold with their marks, a line each."""
    from anomaly.quality.marks import read_highest, read_marks

    card, highest = read_highest(run)
    marks = read_marks(run)
    threshold = 0.0 if card.calibration is None else float(card.calibration.threshold)
    lines = [line_of("threshold", f"{threshold:.4g}")]
    for image in highest:
        mark = marks.get(image.sha256)
        said = "not marked" if mark is None else f"{mark.mark}, by {mark.by}"
        sets = "" if image.score < threshold else "; sets the threshold"
        lines.append(line_of(f"{image.score:.4g}", f"{image.name}   {said}{sets}"))
    return "\n".join(lines)
