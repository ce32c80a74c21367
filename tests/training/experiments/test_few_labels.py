from __future__ import annotations

from pathlib import Path

import pytest

from training.experiments import few_labels


def test_a_few_labels_on_latents_and_on_pixels(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(few_labels, "HELD_OUT", 100)
    monkeypatch.setattr(
        "sys.argv",
        [
            "few_labels",
            str(digits),
            "--model",
            "linear",
            "--labels",
            "10",
            "300",
            "--seeds",
            "0",
            "1",
        ],
    )
    few_labels.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["   10 labels", "  300 labels"]
    accuracies = [
        [float(part.split()[0]) for part in (line.split("pixels ")[1], line.rsplit("pixels ")[2])]
        for line in lines
    ]
    assert min(accuracies[1]) > 0.85 > max(accuracies[0]) > 0.3
