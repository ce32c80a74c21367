"""A heatmap whose unit is not the score's has its own typical value and threshold, whoever sets
the threshold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from anomaly.detector.calibration_nodes import set_calibration
from anomaly.detector.card import Card
from anomaly.detector.file import read_card
from anomaly.errors import DetectorError
from anomaly.inputs.used_images import IMAGES, read_listing
from anomaly.quality.moved_threshold import with_rank, write_moved
from anomaly.quality.recalibrate import Asked, GoodImages, recalibrate_on
from anomaly.scorer import Scorer
from anomaly.scoring.pictures import colour_anchors
from tests.detector.test_file import changed, edit_card
from tests.support.runs import trained


@pytest.fixture(scope="module", params=["split", "cross"])
def own(
    request: pytest.FixtureRequest, parts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("own") / "run"
    options = {"space": "filters", "score": "mean", "expected_picture": False}
    return trained(out, parts, calibrate=request.param, **options)


def largest(detector: Path, images: list[Path]) -> list[float]:
    scorer = Scorer(detector, device="cpu")
    return sorted(float(scorer.score(path).heatmap.max()) for path in images)


def test_it_holds_the_largest_value_of_each_calibration_image(own: Path) -> None:
    card = read_card(own)
    assert not card.pooled and card.heatmap.n == card.calibration.n
    assert card.heatmap.k == card.calibration.k and card.heatmap.kind == card.calibration.kind
    assert card.heatmap.threshold > 1.5 * card.calibration.threshold  # of a mean
    assert Card.from_json(card.to_json()).heatmap == card.heatmap
    if card.calibration.kind == "split":
        images = [Path(r["path"]) for r in read_listing(own / IMAGES) if r["set"] == "calibration"]
        np.testing.assert_allclose(card.heatmap.scores, largest(own, images), rtol=1e-6)


def test_colours_and_boxes_go_by_it(own: Path, parts: Path) -> None:
    scorer = Scorer(own, device="cpu")
    card = scorer.card
    good = [scorer.score(path) for path in sorted((parts / "test" / "good").iterdir())]
    anchors = (float(card.heatmap.median), float(card.heatmap.threshold))
    assert card.heatmap_anchors == colour_anchors(scorer, good[0]) == anchors
    calm = [x for x in good if not x.is_anomaly]
    assert np.mean([(x.heatmap >= anchors[1]).mean() for x in calm]) < 0.02
    assert np.mean([x.area / (x.width * x.height) for x in calm]) < 0.05


def test_a_new_threshold_brings_a_new_one_of_the_heatmap(
    own: Path, parts: Path, tmp_path: Path
) -> None:
    good = parts / "test" / "good"
    card, path, _ = recalibrate_on(
        own, GoodImages(good, independent=True), out=tmp_path / "new.onnx", asked=Asked(0.1)
    )
    assert card.heatmap.k == card.calibration.k and card.heatmap.n == 30
    np.testing.assert_array_equal(card.heatmap.scores, largest(path, sorted(good.iterdir())))
    moved = with_rank(card.calibration, 5)
    after = write_moved(path, moved, tmp_path / "moved.onnx", by="ann")
    assert after.heatmap.k == after.calibration.k == 5
    assert after.heatmap.threshold == card.heatmap.scores[-5]

    def strip(model: onnx.ModelProto) -> None:
        set_calibration(model, None)
        edit_card(model, calibration=None, heatmap=None)

    ranks = changed(own, tmp_path / "rank.onnx", strip)
    assert read_card(ranks).heatmap_anchors is None
    again, _, _ = recalibrate_on(
        ranks, GoodImages(good, independent=True), out=tmp_path / "again.onnx", asked=Asked(0.1)
    )
    assert again.heatmap == card.heatmap


def test_a_card_that_contradicts_itself_is_refused(own: Path, run: Path, tmp_path: Path) -> None:
    values = read_card(own).to_json()["heatmap"]
    for number, (detector, change) in enumerate(
        [
            (own, {"heatmap": None}),
            (own, {"pooled": True}),
            (own, {"pooled": "no"}),
            (run, {"pooled": False}),
            (run, {"heatmap": values}),
            (own, {"heatmap": {**values, "scores": values["scores"][1:]}}),
            (own, {"heatmap": {**values, "threshold": values["threshold"] + 1}}),
            (own, {"heatmap": {**values, "k": 2}}),
        ]
    ):
        path = changed(detector, tmp_path / f"{number}.onnx", lambda m, c=change: edit_card(m, **c))
        with pytest.raises(DetectorError, match=r"damaged|does not keep"):
            read_card(path)
