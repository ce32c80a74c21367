"""Verdicts as COCO has annotations: a box, and where a region was drawn its outline or its
pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from anomaly.imaging.drawn_regions import Marked, Region, frame_of
from anomaly.review.findings import DefectType, Finding

UNNAMED = "anomalous"  # the category, and the folder, of anomalous images without a defect type


def to_coco(
    judged: Sequence[Finding],
    drawn: Mapping[int, Sequence[Region]],
    types: Sequence[DefectType],
) -> str:
    """Returns findings that are judged anomalous or normal as COCO's JSON.

    An anomalous image has an annotation for each region that was drawn on it (``drawn``, by
    finding), with a segmentation; without any, the box of its hottest region. ``source`` says
    which. A box and a polygon are polygons there, a brush stroke is run lengths.
    """
    anomalous = [finding for finding in judged if finding.state == "anomalous"]
    numbers = category_numbers(anomalous, drawn, types)
    annotations = [
        note
        for finding in anomalous
        for note in (_drawn(finding, drawn, numbers) or _found(finding, numbers))
    ]
    content = {
        "info": {
            "description": (
                "Verdicts on anomalies. source: inspector, a region drawn by hand; detector, the "
                "box of the detector's hottest region."
            )
        },
        "images": [_image(finding) for finding in judged],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "annotations": [{"id": number, **note} for number, note in enumerate(annotations, 1)],
    }
    return json.dumps(content, ensure_ascii=False, indent=1)


def category_numbers(
    anomalous: Sequence[Finding],
    drawn: Mapping[int, Sequence[Region]],
    types: Sequence[DefectType],
) -> dict[str, int]:
    """Returns the numbers of the defect types from 1 on: those of the list first."""
    listed = [kind.name for kind in types]
    used = {finding.defect_type or UNNAMED for finding in anomalous if not drawn.get(finding.id)}
    used |= {type_of(region, f) for f in anomalous for region in drawn.get(f.id, ())}
    names = [*listed, *sorted(used - set(listed))]
    return {name: number for number, name in enumerate(names, 1)}


def type_of(region: Region, finding: Finding) -> str:
    """Returns the defect type of a region: its own, or that of its image."""
    return region.defect_type or finding.defect_type or UNNAMED


def _image(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.id,
        "file_name": finding.path,
        "width": finding.width,
        "height": finding.height,
        "sha256": finding.sha256,
        "state": finding.state,
    }


def _drawn(
    finding: Finding, drawn: Mapping[int, Sequence[Region]], numbers: Mapping[str, int]
) -> list[dict[str, Any]]:
    return [
        {
            "image_id": finding.id,
            "category_id": numbers[type_of(region, finding)],
            **_outlined(region, finding.width or 0, finding.height or 0),
            "iscrowd": 0,
            "score": finding.score,
            "source": "inspector",
        }
        for region in drawn.get(finding.id, ())
    ]


def _outlined(region: Region, width: int, height: int) -> dict[str, Any]:
    marked = region.mask(width, height)
    polygon = [[value for corner in region.corners for value in corner]]
    return {
        "bbox": list(frame_of(marked)),
        "area": int(marked.sum()),
        "segmentation": run_lengths(marked) if region.kind == "brush" else polygon,
    }


def _found(finding: Finding, numbers: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    if finding.box is not None:
        yield {
            "image_id": finding.id,
            "category_id": numbers[finding.defect_type or UNNAMED],
            "bbox": finding.box,
            "area": finding.area,
            "iscrowd": 0,
            "score": finding.score,
            "source": "detector",
        }


def run_lengths(marked: Marked) -> dict[str, list[int]]:
    """Returns COCO's uncompressed run lengths: of pixels column by column, the first of those that
    are not marked.
    """
    flat = marked.ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=1 - flat[-1]))
    return {"size": list(marked.shape), "counts": np.diff(edges, prepend=0).tolist()}
