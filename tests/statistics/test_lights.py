from __future__ import annotations

import numpy as np
import pytest

from anomaly.reporting.lights import light_text, lights_table
from anomaly.statistics.calibration import calibrate
from anomaly.statistics.drift import Series, window_images
from anomaly.statistics.lights import AMBER, GREEN, RED, DayCount, by_day, lights

GOOD = calibrate(np.arange(300.0))  # 1 %


def colours(flagged: int, not_judged: int = 0, images: int = 400, lines: int = 3) -> list[str]:
    counts = [DayCount("2026-02-03", "odd", images, flagged, not_judged)]
    counts += [DayCount("2026-02-03", f"{line}", 400, 4, 0) for line in range(lines - 1)]
    return [light.colour for light in lights(counts, GOOD)]


def test_a_light_turns_with_its_count_and_no_other_with_it() -> None:
    found = [colours(flagged)[0] for flagged in range(60)]
    assert found[:12] == [GREEN] * 12 and found[-1] == RED and AMBER in found
    assert found == sorted(found, key=(GREEN, AMBER, RED).index)
    assert colours(59)[1:] == [GREEN, GREEN]
    assert colours(0, 200)[0] == RED and colours(0, 8)[0] == GREEN
    assert colours(1, 0, images=1)[0] == colours(0, 1, images=1)[0] == GREEN, "one is ordinary"


def test_of_good_images_a_red_light_comes_on_at_most_on_one_day_of_a_hundred() -> None:
    """Over detectors and days: calibration sets and days drawn anew each time."""
    random, days, lines = np.random.default_rng(0), 400, 3
    seen = {RED: 0, AMBER: 0}
    for _ in range(days):
        one = calibrate(random.random(300))
        flagged = [int(one.is_anomaly(random.random(200)).sum()) for _ in range(lines)]
        blind = random.binomial(200, 0.02, lines)
        counts = [
            DayCount("d", f"{at}", 200 + int(blind[at]), flagged[at], int(blind[at]))
            for at in range(lines)
        ]
        found = {light.colour for light in lights(counts, one)}
        seen[RED] += RED in found
        seen[AMBER] += RED in found or AMBER in found
    assert seen[RED] <= 4 + 3 * 4**0.5 and seen[AMBER] <= 20 + 3 * 20**0.5


def test_without_a_calibration_those_not_judged_are_counted_alone() -> None:
    (found,) = lights([DayCount("2026-02-03", "a", 100, 90, 40)], None)
    assert (found.colour, found.because, found.flagged_up_to) == (RED, ("not judged",), None)
    assert light_text(found) == (
        "a, 2026-02-03: red, not judged. 40 of 100 not judged (up to 5 is ordinary)"
    )


def test_a_series_is_counted_by_day() -> None:
    times = ["2026-02-03T01", "2026-02-03T02", "2026-02-04T00", "2026-02-05T00"]
    series = Series("a", np.array([0.5, 900.0, np.nan, 1.0]), times, "unit")
    days = [("3", "2026-02-03T00", "2026-02-04T00"), ("4", "2026-02-04T00", "2026-02-05T00")]
    assert by_day([series], GOOD, days) == [
        DayCount("3", "a", 2, 1, 0, "unit"),
        DayCount("4", "a", 1, 0, 1, "unit"),
    ]


def test_the_table_says_each_light_by_a_sign_and_a_word_and_escapes_names() -> None:
    counts = [DayCount(f"2026-02-0{day}", "<b>", 400, 100 * (day == 3), 0) for day in (3, 4)]
    said = lights_table(lights(counts, GOOD))
    assert "<b>" not in said and "&lt;b&gt;" in said
    assert said.count(">red<") == said.count(">green<") == 1 and "100 of 400" in said


@pytest.mark.parametrize(("images", "each"), [(0, 20), (100, 20), (6_000, 100), (100_000, 1667)])
def test_windows_fit_the_amount(images: int, each: int) -> None:
    assert window_images(images) == each
