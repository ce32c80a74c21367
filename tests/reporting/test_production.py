from __future__ import annotations

import csv
import io
import re
from datetime import date
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from anomaly.reporting import production as say
from anomaly.reporting.bars import MAX_BARS, Bar, Kind, bars, png, svg
from anomaly.statistics.intervals import Estimate
from anomaly.statistics.tallies import Audited, Pace, Part, Production, Tally

DAYS = date(2026, 2, 3), date(2026, 2, 4)
EVIL = "<script>alert('&')</script>"


def part(day: int, line: str, tally: Tally, **types: int) -> Part:
    return Part(f"2026-02-{day:02}", "all day", line, "=order", tally, types)


@pytest.fixture
def busy() -> Production:
    parts = [
        part(3, "line 1", Tally(1000, 10, 6, 3, 2, 4, 1), dent=4, scratch=2),
        part(4, EVIL, Tally(500, 2, 0, 0, 0, 0, 0)),
    ]
    known = Audited("r", Estimate(0.01, 0.001, 0.05, 100), Estimate(None, None, None, 3, 17))
    return Production(*DAYS, parts, [known], ["quiet"], [Pace("", 9, 2.5), Pace("ann", 9, 2.5)])


def test_the_words_have_counts_before_percent_and_every_kind(busy: Production) -> None:
    said = say.production_text(busy)
    for line in (
        r"flagged +12   0.8 % of the images",
        r"confirmed +6   of 12 flagged",
        r"undecided +3   of 12 flagged",
        r"not judged +4   1 of them looked at since",
        r"defect types +dent 4, scratch 2",
        r"escape \(missed defects\) 1 of 100 audited, so 0.1 to 5 % of the images that passed",
        r"overkill \(false alarms\) unknown: 3 answers, 17 more needed",
        r"missed defects unknown  ?no answers of an audit sample in quiet",
        r"3 images were not judged by the detector and nobody has looked since: treat as not OK",
    ):
        assert re.search(line, said), (line, said)


def test_the_table_for_spreadsheets_has_a_row_for_each_part(busy: Production) -> None:
    rows = list(csv.DictReader(io.StringIO(say.csv(busy))))
    assert [row["images"] for row in rows] == ["1000", "500"]
    assert rows[0]["defect types"] == "dent: 4; scratch: 2" and rows[0]["undecided"] == "1"
    assert rows[0]["order"] == "'=order", "a spreadsheet would run it"


def test_the_page_stands_alone_and_escapes_names(busy: Production) -> None:
    page = say.production_page(busy, busy, "line")
    assert (
        "<script" not in page
        and "&lt;script&gt;" in page
        and "http" not in re.sub(r"http-equiv|http://www.w3.org/2000/svg", "", page)
    )
    for word in ("By day", "By line", "dent", "line 1", "treat as not OK"):
        assert word in page
    empty = Production(*DAYS, [], [], [], [])
    assert "How it goes" in say.production_page(empty, empty, "day")


def test_bars_are_as_long_as_their_counts_in_svg_and_png() -> None:
    drawn = bars(
        "t",
        [Kind("a", "#ff0000"), Kind("b", "#0000ff")],
        [Bar("x", (3, 1), ""), Bar("y", (0, 2), "")],
    )
    *_, a, b, c = [rect.width for rect in drawn.rects]
    assert (a, b, c) == pytest.approx((3 * b, b, 2 * b))
    widths = [
        float(one.get("width"))
        for one in ElementTree.fromstring(svg(drawn))
        if one.tag.endswith("rect")
    ]
    assert widths[-3:] == pytest.approx([a, b, c], abs=0.06)
    pixels = np.asarray(Image.open(io.BytesIO(png(drawn, scale=1))))
    first = pixels[62 + 14]
    assert np.sum((first == (255, 0, 0)).all(1)) == pytest.approx(a, abs=2)


def test_of_very_many_bars_the_last_are_drawn_and_the_rest_is_said() -> None:
    rows = [Bar(f"{number}", (1,), "") for number in range(500)]
    drawn = bars("t", [Kind("a", "#ff0000")], rows)
    assert len(drawn.rects) == MAX_BARS
    assert f"and {500 - MAX_BARS} before these" in [text.text for text in drawn.texts]
