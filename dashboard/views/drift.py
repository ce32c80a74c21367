"""Drift: whether new images still are like the good ones that set the threshold, and what to do
where they are not.
"""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from anomaly.errors import AnomalyError
from anomaly.reporting.drift import score_watch_text
from anomaly.reporting.lights import light_text, lights_table
from anomaly.statistics.calibration import Calibration
from anomaly.statistics.change_point import RUN_LENGTH
from anomaly.statistics.drift import (
    ORDINARY_PROBABILITY,
    ScoreWatch,
    Window,
    calibration_quantiles,
    count_level,
    window_images,
    windows,
)
from anomaly.statistics.lights import AMBER, RED, Light
from dashboard.address import filters_here, run_here
from dashboard.components import cells, plain, show_chart
from dashboard.desk import Desk, open_desk

DEPTHS = {"all together": 0, "line": 1, "subfolder": 2}
LIGHT_DAYS = 14  # in the table
MAX_SENTENCES = 12  # of a colour
LIGHTS = """
.st-key-lights table { border-collapse: separate; border-spacing: 3px; font-size: 0.95rem; }
.st-key-lights caption { caption-side: bottom; text-align: left; opacity: 0.8; }
.st-key-lights th, .st-key-lights td { padding: 4px 10px; white-space: nowrap; }
.st-key-lights th { text-align: left; }
.st-key-lights td { border-radius: 4px; position: relative; font-variant-numeric: tabular-nums; }
.st-key-lights div { overflow-x: auto; }
"""
QUANTILES = ("5 %", "25 %", "median", "75 %", "95 %")
POINTS = 600  # of a line: more cannot be seen
TO_DO = """
1. Look at the newest images, and at those round a change: **Queue**, that folder. Dirt, a lamp,
   a new lot, real defects?
2. What was not judged has not been inspected: look at it, or take the pictures again.
3. If good parts look different now: `anomaly check RUN NEW_GOOD` says whether to keep,
   recalibrate or retrain.
4. If the camera or the light failed: mend it, and treat what was judged since then as not
   inspected.
5. Until then the guaranteed rate does not hold: it is for good images like the ones that set the
   threshold.
"""


def show(desk: Desk) -> None:
    """Shows the lights of lines and days, the alarms, and the scores over time; below, the test."""
    run = run_here(desk, filters_here(desk))
    known = desk.detector(run.detector)
    calibration = known.calibration
    st.caption(plain(f"{known.short}: all its runs. A light for each line and day"))
    light_table(desk.lights(run.detector, LIGHT_DAYS))
    found, watches = desk.watched(run.detector, DEPTHS["line"])
    if not found:
        st.info("No image has been scored by this detector yet.")
        return
    verdict(watches)
    if calibration is None:
        why = (
            "it only ranks images"
            if known.detector.card
            else "its card is not here: import the table with --detector"
        )
        st.info(
            f"No calibration scores of this detector ({why}): only images that were not judged are "
            "counted."
        )
        return
    scores_over_time(desk, run.detector, calibration)


def light_table(found: list[Light]) -> None:
    """Shows the table of lights, and in a sentence each that is not green."""
    if not found:
        return
    with st.container(key="lights", width="stretch"):
        st.html(f"<style>{LIGHTS}</style>{lights_table(found)}")
    for colour, show_as, icon in ((RED, st.error, "error"), (AMBER, st.warning, "warning")):
        some = [light for light in found if light.colour == colour]
        for light in some[-MAX_SENTENCES:]:
            show_as(plain(light_text(light)), icon=f":material/{icon}:")
        if len(some) > MAX_SENTENCES:
            st.caption(f"and {len(some) - MAX_SENTENCES} more {colour} lights in the table")


def scores_over_time(desk: Desk, detector: str, calibration: Calibration) -> None:
    """Shows the scores of one line against the calibration scores, and the test behind it."""
    left, middle, right = st.columns([3, 1.6, 1.6], vertical_alignment="bottom")
    left.markdown("##### Scores over time")
    depth = right.segmented_control(
        "Series for each", list(DEPTHS), default="line", required=True, key="depth"
    )
    found, watches = desk.watched(detector, DEPTHS[depth])
    first = next((at for at, one in enumerate(watches) if one.alarm), 0)
    names = [series.name for series in found]
    chosen = middle.selectbox("Line", range(len(names)), index=first, format_func=names.__getitem__)
    series = found[chosen]
    images = window_images(len(series.scores))
    cut = windows(series, calibration, images, count_level(found, calibration))
    show_chart(quantile_chart(cut, calibration), "Quantiles of the scores over time")
    st.caption(
        f"Lines: quantiles of up to {images:,} {series.what}s each, at the time of the last. Band: "
        f"5 to 95 % of the {calibration.n:,} calibration scores; dashed: the threshold."
    )
    with st.expander("The test behind it, and the figures of each window"):
        behind(watches[chosen], cut)


def verdict(watches: list[ScoreWatch]) -> None:
    """Says for each series whether there is an alarm, the alarms first, and what to do."""
    alarms = [one for one in watches if one.alarm]
    for one in alarms:
        st.error(plain(score_watch_text(one)), icon=":material/warning:")
    if alarms:
        with st.expander("What to do", expanded=True):
            st.markdown(TO_DO)
    texts = [score_watch_text(one) for one in watches if not one.alarm]
    if texts:
        st.success(
            plain(texts[0])
            if len(texts) == 1
            else f"Test over all images: {len(texts)} of {len(watches)} lines without an alarm.",
            icon=":material/check:",
        )


SURE = (
    f"Change of the scores: while nothing changes, a false alarm comes after {RUN_LENGTH:,.0f} "
    "images or more on average, and among the next n images of all series together with "
    f"probability n / {RUN_LENGTH:,.0f} at most. This is proven for the first alarm, if images are "
    "exchangeable with those that set the threshold: one image of each group, in the order they "
    "were taken, nothing left out. What comes after an alarm was measured (docs/benchmarks.md). "
    "The delay after a change does not grow with the images before it. Counts: of good images "
    "none is above its limit with "
    f"probability {ORDINARY_PROBABILITY:.0%}, "
    "each time one looks."
)


def behind(one: ScoreWatch, cut: list[Window]) -> None:
    """Shows the evidence against 'nothing has changed' (the wealth of who bets on a change), how
    sure an alarm is, and the windows in figures.
    """
    show_chart(evidence_chart(one), "Evidence of a change, image by image")
    st.caption("In powers of ten: low while nothing changes, at the dashed line an alarm.")
    st.markdown(plain(SURE))
    rows = [window_row(window) for window in reversed(cut)]
    st.dataframe(
        cells(rows), hide_index=True, width="stretch", height=min(240, 36 * (len(rows) + 1))
    )


def window_row(window: Window) -> dict[str, object]:
    """Returns one window as a row."""
    ordinary = "" if window.ordinary_up_to is None else f"up to {window.ordinary_up_to:,}"
    return {
        "From": window.start[:16].replace("T", " "),
        "To": window.end[:16].replace("T", " "),
        "Images": window.images,
        "Not judged": window.not_judged,
        "Flagged": window.flagged,
        "Ordinary": ordinary,
        **{
            name: None if np.isnan(value) else round(float(value), 4)
            for name, value in zip(QUANTILES, window.quantiles, strict=True)
        },
    }


def quantile_chart(found: list[Window], calibration: Calibration) -> alt.LayerChart:
    """Returns the lines of the windows' quantiles over the band of the calibration."""
    lines = pd.DataFrame(
        [
            {"time": window.end, "score": float(value), "quantile": name, "from": window.start}
            for window in found
            for name, value in zip(QUANTILES, window.quantiles, strict=True)
            if not np.isnan(value)
        ],
        columns=["time", "score", "quantile", "from"],
    )
    low, *_, high = (float(value) for value in calibration_quantiles(calibration))
    band = (
        alt.Chart(pd.DataFrame([{"low": low, "high": high}]))
        .mark_rect(opacity=0.14, color="#888")
        .encode(y="low:Q", y2="high:Q")
    )
    threshold = (
        alt.Chart(pd.DataFrame([{"threshold": float(calibration.threshold)}]))
        .mark_rule(color="#d1433a", strokeDash=[5, 4])
        .encode(y="threshold:Q")
    )
    drawn = (
        alt.Chart(lines)
        .mark_line(point=len(found) < 60)
        .encode(
            x=alt.X("time:T", title=None, axis=alt.Axis(labelOverlap=True)),
            y=alt.Y("score:Q", title="score", scale=alt.Scale(zero=False)),
            color=alt.Color(
                "quantile:N",
                sort=list(QUANTILES),
                legend=alt.Legend(orient="top", title=None),
                scale=alt.Scale(
                    domain=list(QUANTILES),
                    range=["#9db7d9", "#6f98cc", "#1f6feb", "#6f98cc", "#12438f"],
                ),
            ),
            tooltip=["from:N", alt.Tooltip("time:N", title="to"), "quantile:N", "score:Q"],
        )
    )
    chart: alt.LayerChart = (band + threshold + drawn).properties(height=250)
    return chart


def evidence_chart(one: ScoreWatch) -> alt.LayerChart:
    """Returns the evidence over the judged images, with the line of the alarm and the beginning of
    each change.
    """
    images, changes = len(one.log10_evidence), one.changes[-20:]
    every = max(1, images // POINTS)
    kept = sorted(
        {*range(0, images, every), images - 1, *(change.alarm_at for change in changes)} - {-1}
    )
    line = pd.DataFrame(
        {
            "image": [at + 1 for at in kept],
            "evidence": [float(one.log10_evidence[at]) for at in kept],
        }
    )
    drawn = (
        alt.Chart(line)
        .mark_line()
        .encode(
            x=alt.X("image:Q", title=one.what), y=alt.Y("evidence:Q", title="log10 of the evidence")
        )
    )
    rule = (
        alt.Chart(pd.DataFrame([{"end": one.limit}]))
        .mark_rule(color="#d1433a", strokeDash=[5, 4])
        .encode(y="end:Q")
    )
    begun = pd.DataFrame({"image": [change.changed_at + 1 for change in changes]})
    mark = alt.Chart(begun).mark_rule(color="#b7791f").encode(x="image:Q")
    chart: alt.LayerChart = (drawn + rule + mark).properties(height=250)
    return chart


try:
    show(open_desk())
except AnomalyError as error:
    st.error(plain(str(error)))
