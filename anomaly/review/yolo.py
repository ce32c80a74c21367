"""Verdicts as a data set in YOLO's layout: images, a text file of boxes for each, and data.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from anomaly.errors import AnomalyError
from anomaly.files.atomic import write_atomically
from anomaly.imaging.drawn_regions import Region, frame_of
from anomaly.review.coco import category_numbers, type_of
from anomaly.review.exports import (
    Exported,
    file_name,
    is_for_testing,
    judged_images,
    place_image,
)
from anomaly.review.findings import Filters, Finding
from anomaly.review.regions import drawn_regions
from anomaly.review.store import Store


def export_yolo(store: Store, out: Path, filters: Filters, *, link: bool = False) -> Exported:
    """Writes the judged images that match to ``images/train`` and ``images/val`` (a fifth), the
    boxes of the defects on each to ``labels``, and ``data.yaml``.

    Boxes are those of the regions that were drawn. An anomalous image without any is left out: a
    detector's own box is no label. A normal image has an empty list. Raises AnomalyError where
    ``out`` holds a data.yaml already: the numbers of the types may have changed since.
    """
    if (out / "data.yaml").exists():
        raise AnomalyError(f"{out} holds a data.yaml already: choose another folder")
    left_out: list[str] = []
    written, drawn = 0, drawn_regions(store.standing())
    found = list(judged_images(store, out, filters, left_out))
    anomalous = [one for one, _ in found if one.state == "anomalous" and drawn.get(one.id)]
    numbers = category_numbers(anomalous, drawn, store.defect_types())
    for finding, image in found:
        regions = drawn.get(finding.id, []) if finding.state == "anomalous" else []
        if finding.state == "anomalous" and not regions:
            left_out.append(f"{finding.path}: judged anomalous, but no region was drawn on it")
            continue
        part = "val" if is_for_testing(finding) else "train"
        target = out / "images" / part / file_name(finding, image)
        written += place_image(target, image, link)
        label = out / "labels" / part / f"{target.stem}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(label, label_text(finding, regions, numbers).encode())
    names = [f"  {number - 1}: {json.dumps(name)}\n" for name, number in numbers.items()]
    for part in ("train", "val"):
        (out / "images" / part).mkdir(parents=True, exist_ok=True)
    # without a path of its own: the folders are then looked for beside this file
    text = "train: images/train\nval: images/val\nnames:\n" + "".join(names)
    write_atomically(out / "data.yaml", text.encode())
    return Exported(written, left_out)


def label_text(finding: Finding, regions: Sequence[Region], numbers: Mapping[str, int]) -> str:
    """Returns a line for each region: number of its type from 0 on, then centre, width and height
    of its box in parts of the image's sides.
    """
    wide, high = finding.width or 1, finding.height or 1
    lines = []
    for region in regions:
        x, y, width, height = frame_of(region.mask(wide, high))
        place = ((x + width / 2) / wide, (y + height / 2) / high, width / wide, height / high)
        values = " ".join(f"{value:.6f}" for value in place)
        lines.append(f"{numbers[type_of(region, finding)] - 1} {values}\n")
    return "".join(lines)
