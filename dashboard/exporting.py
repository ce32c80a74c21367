"""Findings and verdicts as files to download: what `anomaly review export` writes, made when it is
asked for.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import streamlit as st

from anomaly.errors import AnomalyError
from anomaly.review import Filters, Run
from anomaly.review.exports import export_findings, export_folder
from dashboard.access import Person
from dashboard.desk import Desk

FORMATS = {  # suffix of the file, what kind it is
    "Table (CSV)": (".csv", "text/csv"),
    "Rows (JSON lines)": (".jsonl", "application/jsonl"),
    "COCO (JSON)": (".json", "application/json"),
    "Images to train on (ZIP)": (".zip", "application/zip"),
}
MAX_ZIP_BYTES = 256 << 20  # a browser's download is held in memory until it is fetched


def offer_export(desk: Desk, person: Person, runs: list[Run], chosen: int | None) -> None:
    """Offers a run's findings with all verdicts, to admins: inspectors judge without knowing what
    others said.
    """
    if not person.may("admin"):
        return
    with st.expander("Export findings and verdicts"):
        columns = st.columns([2, 2.6, 1.4], vertical_alignment="bottom")
        numbers = [run.id for run in runs]
        names = {run.id: run.name for run in runs}
        at = numbers.index(chosen) if chosen in numbers else 0
        run = columns[0].selectbox("Run", numbers, at, format_func=names.__getitem__)
        kind = columns[1].segmented_control(
            "As", list(FORMATS), default=next(iter(FORMATS)), required=True, key="export as"
        )
        suffix, media = FORMATS[kind]
        columns[2].download_button(
            "Download",
            lambda: exported(desk, Filters(run=run), suffix),
            f"{names[run]}{suffix}",
            media,
            icon=":material/download:",
            on_click="ignore",
            width="stretch",
        )
        st.caption(
            "The same as anomaly review export. The ZIP holds judged images as train/good, "
            "test/good and test/TYPE, with masks where regions were drawn; what could not be "
            "read is listed in it."
        )


def exported(desk: Desk, filters: Filters, suffix: str) -> bytes:
    """Returns the bytes of an export; AnomalyError where a ZIP would be too large for a page."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / f"export{suffix}"
        if suffix != ".zip":
            export_findings(desk.store, out, filters)
            return out.read_bytes()
        folder = Path(temporary) / "images"
        done = export_folder(desk.store, folder, filters, link=True)
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        if sum(file.stat().st_size for file in files) > MAX_ZIP_BYTES:
            raise AnomalyError(
                f"more than {MAX_ZIP_BYTES >> 20} MiB of images found, at most that for a page: "
                "anomaly review export FOLDER"
            )
        with zipfile.ZipFile(out, "w") as packed:  # images do not compress further
            for file in files:
                packed.write(file, file.relative_to(folder))
            packed.writestr("LEFT_OUT.txt", "".join(f"{line}\n" for line in done.left_out))
        return out.read_bytes()
