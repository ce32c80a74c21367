from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from training.experiments import few_labels, fine_tuning
from training.experiments.fine_tuning import fine_tuned, moved
from training.models import MODELS

pytestmark = pytest.mark.usefixtures("one_thread")


def printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *given: str
) -> dict[tuple[str, int], float]:
    """Returns the mean accuracy that each kind of classifier reaches with each number of labels."""
    monkeypatch.setattr(few_labels, "HELD_OUT", 100)
    monkeypatch.setattr("sys.argv", ["few_labels", *given])
    few_labels.main()
    lines = re.findall(r"^ +(\d+) labels: (.*) (0\.\d+) \(", capsys.readouterr().out, re.M)
    return {(name, int(count)): float(mean) for count, name, mean in lines}


def test_a_few_labels_on_pixels_on_latents_and_to_fine_tune(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fine_tuning, "STEPS", 40)
    monkeypatch.setattr(fine_tuning, "SHIFT", 0)  # two pixels are a quarter of these digits
    given = ["--model", "dense-autoencoder", "--epochs", "5", "--labels", "10", "300"]
    found = printed(capsys, monkeypatch, str(digits), *given, "--seeds", "0")
    names = [
        "raw pixels",
        "latents of dense-autoencoder on pixels",
        "fine-tuned",
        "fine-tuned from random weights",
    ]
    assert list(found) == [(name, count) for name in names for count in (10, 300)]
    for name in names:
        assert found[name, 300] > 0.75 > found[name, 10] > 0.2, name


def test_a_model_in_closed_form_has_nothing_to_tune(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", "linear", "--labels", "300", "--seeds", "0", "--development"]
    monkeypatch.setattr(few_labels, "DEVELOPMENT_IMAGES", 300)
    found = printed(capsys, monkeypatch, str(digits), *given, "--images", "900")
    assert list(found) == [("raw pixels", 300), ("latents of linear on pixels", 300)]
    assert min(found.values()) > 0.85


def test_images_are_moved_by_up_to_two_pixels() -> None:
    x = torch.rand(200, 1, 6, 7)
    found = moved(x, torch.Generator().manual_seed(0))
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    places = [(top, left) for top in range(5) for left in range(5)]
    cuts = torch.stack([padded[:, :, top : top + 6, left : left + 7] for top, left in places])
    same = (cuts == found).all((2, 3, 4))
    assert same.any(0).all() and same.any(1).all()  # every image is a cut, every place is drawn


def test_fine_tuning_starts_at_the_frozen_latents_and_leaves_the_model_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a step it is the linear classifier, and a class without labels is never named."""
    monkeypatch.setattr(fine_tuning, "STEPS", 0)
    torch.manual_seed(0)
    model, x = MODELS["dense-vae"](1, 8, 8, pixels=True), torch.rand(40, 1, 8, 8)
    labels = (x[:, 0, :4].mean((1, 2)) > 0.5).numpy().astype(np.uint8) * 2
    classifier = fine_tuned(model, x, x, labels, 0)
    latents = classifier.latents(x).detach().numpy()
    logistic = fine_tuning.linear_classifier(latents, labels)
    named = classifier(x).argmax(1).numpy()
    assert named.tolist() == logistic.predict(latents).tolist()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(fine_tuning, "STEPS", 3)
    tuned = fine_tuned(model, x, x, labels, 0).model.state_dict()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert not torch.equal(tuned["encoder.1.weight"], before["encoder.1.weight"])
