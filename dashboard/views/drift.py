"""Drift: whether new images still are like the good ones that set the limit, and what to do where they are not."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from anomaly.calibrate import Calibration
from anomaly.drift import Series, Watch, Window, calibration_quantiles, watch, windows
from anomaly.errors import AnomalyError
from dashboard.address import filters_here, run_here
from dashboard.components import plain
from dashboard.desk import Desk, open_desk

ALARM_RATE = 0.01
DEPTHS = {"all together": 0, "folder": 1, "subfolder": 2}
QUANTILES = ("5 %", "25 %", "median", "75 %", "95 %")
POINTS = 600  # of a line: more cannot be seen
TO_DO = """
1. Look at the images round the change: **Queue**, that folder. Dirt on a lens, a lamp, a new lot, or real defects?
2. If good parts look different now: `anomaly check RUN NEW_GOOD` says whether to keep, recalibrate or retrain.
3. If the camera or the light failed: mend it, and treat what was judged since then as not inspected.
4. Until then the promise does not hold: it is for good images like the ones that set the limit.
"""


def show(desk: Desk) -> None:
    """Shows the test of every folder, and the scores over time against the calibration."""
    run = run_here(desk, filters_here(desk))
    calibration = desk.detector(run.detector).calibration
    if calibration is None:
        st.info("This detector only ranks images: there are no calibration scores to compare with.")
        return
    left, middle, right = st.columns([3, 1.6, 1.4], vertical_alignment="bottom")
    left.caption(
        plain(f"{desk.detector(run.detector).short}: all its runs in the order of time, against {calibration.n:,} good images")
    )
    depth = right.segmented_control("Series for each", list(DEPTHS), default="folder", required=True, key="depth")
    found = desk.series(run.detector, depth=DEPTHS[depth])
    if not found:
        st.info("No image has been scored by this detector yet.")
        return
    names = [series.name for series in found]
    chosen = middle.selectbox("Folder", range(len(names)), format_func=names.__getitem__)
    watches = watch(found, calibration, false_alarm_rate=ALARM_RATE)
    verdict(watches)
    charts(found[chosen], watches[chosen], calibration)


def verdict(watches: list[Watch]) -> None:
    """Says for each series whether it has changed, the alarms first, and what to do."""
    alarms = [one for one in watches if one.alarm_at is not None]
    for one in alarms:
        st.error(plain(one.text()), icon=":material/warning:")
    if alarms:
        with st.expander("What to do", expanded=True):
            st.markdown(TO_DO)
    calm = len(watches) - len(alarms)
    if calm:
        texts = [one.text() for one in watches if one.alarm_at is None]
        st.success(
            plain(texts[0]) if calm == 1 else f"{calm} of {len(watches)} series show no change.", icon=":material/check:"
        )
    st.caption(
        f"A conformal test martingale: if nothing ever changes, the probability that any of the {len(watches)} series raises "
        f"an alarm, ever, is at most {ALARM_RATE:.0%}, however often one looks."
    )


def charts(series: Series, one: Watch, calibration: Calibration) -> None:
    """Shows the quantiles of the scores, window by window, and the evidence against 'nothing has changed'."""
    found = windows(series, calibration)
    left, right = st.columns(2, gap="medium")
    with left.container(border=True):
        st.markdown("###### Scores over time")
        st.altair_chart(quantile_chart(found, calibration), width="stretch")
        st.caption(
            "Lines: quantiles of windows of images. Band: 5 to 95 % of the good images that set the limit; dashed: the limit."
        )
    with right.container(border=True):
        st.markdown("###### Evidence of a change")
        st.altair_chart(wealth_chart(one), width="stretch")
        st.caption("The martingale's wealth, powers of ten: low while nothing changes, above the dashed line an alarm.")
    rows = [window_row(window) for window in found]
    st.dataframe(rows, hide_index=True, width="stretch", height=min(240, 36 * (len(rows) + 1)))


def window_row(window: Window) -> dict[str, Any]:
    """Returns one window as a row."""
    ordinary = "" if window.ordinary_up_to is None else f"up to {window.ordinary_up_to:,}"
    return {
        "From": window.start[:16].replace("T", " "),
        "To": window.end[:16].replace("T", " "),
        "Images": window.images,
        "Stopped": window.flagged,
        "Ordinary": ordinary,
        **{name: round(float(value), 4) for name, value in zip(QUANTILES, window.quantiles, strict=True)},
    }


def quantile_chart(found: list[Window], calibration: Calibration) -> alt.LayerChart:
    """Returns the lines of the windows' quantiles over the band of the calibration."""
    lines = pd.DataFrame(
        [
            {"window": at + 1, "score": float(value), "quantile": name, "from": window.start}
            for at, window in enumerate(found)
            for name, value in zip(QUANTILES, window.quantiles, strict=True)
        ]
    )
    low, *_, high = (float(value) for value in calibration_quantiles(calibration))
    band = (
        alt.Chart(pd.DataFrame([{"low": low, "high": high}]))
        .mark_rect(opacity=0.14, color="#888")
        .encode(y="low:Q", y2="high:Q")
    )
    limit = (
        alt.Chart(pd.DataFrame([{"limit": float(calibration.threshold)}]))
        .mark_rule(color="#d1433a", strokeDash=[5, 4])
        .encode(y="limit:Q")
    )
    drawn = (
        alt.Chart(lines)
        .mark_line(point=len(found) < 60)
        .encode(
            x=alt.X("window:O", title="window", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            y=alt.Y("score:Q", title="score", scale=alt.Scale(zero=False)),
            color=alt.Color(
                "quantile:N",
                sort=list(QUANTILES),
                legend=alt.Legend(orient="top", title=None),
                scale=alt.Scale(domain=list(QUANTILES), range=["#9db7d9", "#6f98cc", "#1f6feb", "#6f98cc", "#12438f"]),
            ),
            tooltip=["from:N", "quantile:N", "score:Q"],
        )
    )
    return (band + limit + drawn).properties(height=250)


def wealth_chart(one: Watch) -> alt.LayerChart:
    """Returns the martingale over the images, with the line of the alarm."""
    every = max(1, one.images // POINTS)
    kept = sorted({*range(0, one.images, every), one.images - 1, *([one.alarm_at] if one.alarm_at is not None else [])} - {-1})
    line = pd.DataFrame({"image": [at + 1 for at in kept], "wealth": [float(one.log10_wealth[at]) for at in kept]})
    drawn = (
        alt.Chart(line).mark_line().encode(x=alt.X("image:Q", title="image"), y=alt.Y("wealth:Q", title="log10 of the wealth"))
    )
    rule = alt.Chart(pd.DataFrame([{"limit": one.limit}])).mark_rule(color="#d1433a", strokeDash=[5, 4]).encode(y="limit:Q")
    layers = drawn + rule
    if one.changed_at is not None:
        mark = alt.Chart(pd.DataFrame([{"image": one.changed_at + 1}])).mark_rule(color="#b7791f").encode(x="image:Q")
        layers = layers + mark
    return layers.properties(height=250)


try:
    show(open_desk())
except AnomalyError as error:
    st.error(plain(str(error)))
