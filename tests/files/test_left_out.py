"""What was left out is said in few lines."""

from __future__ import annotations

from anomaly.files.left_out import left_out_lines


def test_one_line_for_each_reason_with_its_count() -> None:
    lines = [f"/d/good/{i}.png: trained on it" for i in range(40)]
    found = list(left_out_lines([*lines, "no images: 3 text files", "x.png: damaged: cut off"]))
    assert found == [
        (
            "left out: 40 images: trained on it: good/0.png good/1.png good/2.png good/3.png "
            "good/4.png and 35 more"
        ),
        "left out: no images: 3 text files",
        "left out: x.png: damaged: cut off",
    ]
