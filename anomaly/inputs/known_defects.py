"""Known defects: images of parts that inspectors found to be defective, with their types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from anomaly.errors import DatasetError
from anomaly.inputs.dataset import Record, read_dataset
from anomaly.inputs.labels import GOOD

UNTYPED = "defect"  # the type of a defect of which nothing says more


def read_defects(
    defects: Path, group_by: str | None = None, say: Callable[[str], None] | None = None
) -> list[Record]:
    """Returns the images of known defects, their label the type, in a fixed order.

    ``defects``: a folder with a folder for each type, one without (then the type is ``defect``), a
    folder in the layout of MVTec AD (test/<type>, masks in ground_truth), or a manifest with
    ``path`` and, where known, ``label``, ``group`` and ``mask``. Images that are labelled good are
    left out, and said by ``say``. Raises DatasetError where no defect is left.
    """
    records = read_dataset(defects, group_by, plain=None, say=say)
    good = [record for record in records if record.label == GOOD]
    if good and say is not None:
        say(f"{defects}: {len(good)} images labelled good left out: give them as good images")
    typed = [_typed(record, defects) for record in records if record.label != GOOD]
    if not typed:
        raise DatasetError(
            f"{defects}: no image of a defect found, a folder for each type of defect expected"
        )
    return typed


def _typed(record: Record, root: Path) -> Record:
    """Returns a record whose label is its type: where no label says so, the folder below the
    root.
    """
    if record.label is not None:
        return record
    inside = root.is_dir() and record.path.is_relative_to(root)
    folders = record.path.relative_to(root).parts[:-1] if inside else ()
    return replace(record, label=folders[0] if folders else UNTYPED)
