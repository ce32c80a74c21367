"""Figures are scikit-learn's, intervals hold what they guarantee, and nothing crashes for want of
one kind of image.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from anomaly.errors import DatasetError
from anomaly.statistics import metrics as evaluation
from anomaly.statistics import pixel_metrics, resampling
from anomaly.statistics.calibration import Rate, calibrate
from anomaly.statistics.intervals import clopper_pearson
from anomaly.statistics.metrics import LabelledScores, evaluate
from anomaly.statistics.pixel_metrics import PixelMap
from anomaly.statistics.resampling import Interval

CALIBRATION = calibrate(np.arange(99) / 100, 0.1)  # threshold 0.89, 10 of 99


def small(scores, labels, groups=None, **options):
    """The evaluation of a few images at the threshold of CALIBRATION, each a group of its own where
    nothing is said.
    """
    groups = groups or [f"{i:03}" for i in range(len(scores))]
    given = {name: options.pop(name) for name in ("names", "inspected") if name in options}
    flagged = CALIBRATION.is_anomaly(scores)
    return evaluate(
        LabelledScores(scores, labels, groups, flagged, **given), CALIBRATION, **options
    )


def spread(n, seed=0, shift=1.5):
    """n scores and labels, every third image one of two classes of defects."""
    generator = np.random.default_rng(seed)
    labels = [("scratch" if i % 2 else "hole") if i % 3 == 0 else "good" for i in range(n)]
    scores = generator.normal(size=n) + shift * (np.array(labels) != "good")
    return np.round(scores, 1).astype(np.float32), labels  # rounded: with ties


def test_json():
    found = small(
        [0.1, 0.2, 0.95, 0.3, 0.9, 0.99, 0.5],
        ["good"] * 4 + ["hole", "hole", "scratch"],
        detector="cells 1",
    )
    exact = {
        name: pytest.approx(value)
        for name, value in [("2/3", 2 / 3), ("5/6", 5 / 6), ("3/4", 3 / 4)]
    }
    interval = {"low": pytest.approx(0.5, abs=0.5), "high": pytest.approx(0.5, abs=0.5)}
    assert json.loads(json.dumps(found.to_json())) == {
        "image_auroc": {"value": exact["5/6"], **interval},
        "average_precision": {"value": pytest.approx((1 + 2 / 3 + 3 / 4) / 3), **interval},
        "false_alarms": {
            "guaranteed_rate": 0.1,
            "estimated_rate": None,
            "upper_bound": pytest.approx(CALIBRATION.upper_bound),
            "n": 4,
            "flagged": 1,
            "ordinary_up_to": 2,
        },
        "recall": {
            "value": exact["2/3"],
            "low": pytest.approx(clopper_pearson(2, 3)[0]),
            "high": pytest.approx(clopper_pearson(2, 3)[1]),
            "flagged": 2,
            "n": 3,
        },
        "pixel_auroc": None,
        "aupro": None,
        "review": None,
        "per_class": {
            "hole": {
                "image_auroc": {"value": pytest.approx(7 / 8), **interval},
                "recall": {
                    "value": 1.0,
                    "low": pytest.approx(clopper_pearson(2, 2)[0]),
                    "high": 1.0,
                    "flagged": 2,
                    "n": 2,
                },
                "n": 2,
                "missed_at_most": pytest.approx(1 - 0.05**0.5),
            },
            "scratch": {
                "image_auroc": {"value": exact["3/4"], **interval},
                "recall": {
                    "value": 0.0,
                    "low": 0.0,
                    "high": pytest.approx(0.975),
                    "flagged": 0,
                    "n": 1,
                },
                "n": 1,
                "missed_at_most": 1.0,
            },
        },
        "n_normal": 4,
        "n_anomalous": 3,
        "detector": "cells 1",
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(6, 60), st.integers(0, 99), st.randoms())
def test_figures_are_scikit_learns_in_any_order(n, seed, random):
    scores, labels = spread(n, seed)
    groups = [f"part {i // 2}" for i in range(n)]
    names = [f"{i}.png" for i in range(n)]
    order = random.sample(range(n), n)
    found = small(scores, labels, groups, names=names)
    again = small(
        scores[order],
        *([one[i] for i in order] for one in (labels, groups)),
        names=[names[i] for i in order],
    )
    defect = np.array(labels) != "good"
    assert found.image_auroc.value == pytest.approx(roc_auc_score(defect, scores))
    assert found.average_precision.value == pytest.approx(average_precision_score(defect, scores))
    hole = (np.array(labels) == "hole") | ~defect
    assert found.per_class["hole"].image_auroc.value == pytest.approx(
        roc_auc_score(defect[hole], scores[hole])
    )
    assert again.to_json()["recall"] == found.to_json()["recall"]
    assert again.to_json()["false_alarms"] == found.to_json()["false_alarms"]
    assert again.image_auroc.low == pytest.approx(found.image_auroc.low, abs=1e-9)
    assert again.average_precision.high == pytest.approx(found.average_precision.high, abs=1e-9)


def test_every_draw_is_scikit_learns_on_the_drawn_images():
    scores, labels = spread(60)
    groups = np.array([f"part {i // 4}" for i in range(60)])
    test = resampling.TestSet.of(scores, labels, groups.tolist(), None, None, None, 3)
    auroc, precision, classes = resampling.resampled_values(test)
    order = np.argsort(test.ranks, kind="stable")  # the draws are of the sorted images
    defect, hole = np.array(labels) != "good", np.array(labels) == "hole"
    for draw, weights in enumerate(resampling.group_draws(groups[order], defect[order], 3)):
        drawn = np.repeat(order, weights.astype(int))
        assert set(np.bincount(drawn, minlength=60)[:4]) == {weights[order == 0][0]}  # whole groups
        assert auroc[draw] == pytest.approx(roc_auc_score(defect[drawn], scores[drawn]))
        assert precision[draw] == pytest.approx(
            average_precision_score(defect[drawn], scores[drawn])
        )
        holes = drawn[hole[drawn] | ~defect[drawn]]
        assert classes["hole"][draw] == pytest.approx(roc_auc_score(defect[holes], scores[holes]))
        if draw == 30:
            break


def test_intervals_are_wider_when_images_share_groups():
    scores, labels = spread(240)
    # the same image four times is no more evidence than once
    once = small(scores, labels)
    repeated = small(
        np.repeat(scores, 4), np.repeat(labels, 4).tolist(), [f"{i // 4:03}" for i in range(960)]
    )
    apart = small(np.repeat(scores, 4), np.repeat(labels, 4).tolist())
    width = {
        name: one.image_auroc.high - one.image_auroc.low
        for name, one in [("once", once), ("repeated", repeated), ("apart", apart)]
    }
    assert width["repeated"] == pytest.approx(width["once"], rel=0.15)
    assert width["apart"] == pytest.approx(width["once"] / 2, rel=0.15)
    assert repeated.recall == once.recall and repeated.recall_images == (
        4 * once.recall.flagged,
        320,
    )
    assert repeated.false_alarms.flagged == once.false_alarms.flagged
    assert repeated.false_alarms.images_flagged == 4 * once.false_alarms.flagged.flagged


def test_intervals_hold_the_true_figure():
    # 12 defective and 40 good images; the true AUROC is 0.9
    generator, held, truth = np.random.default_rng(5), 0, 0.9
    labels = ["hole"] * 12 + ["good"] * 40
    for _ in range(60):
        scores = generator.normal(size=52) + 1.8124 * (np.array(labels) != "good")
        found = small(
            scores.astype(np.float32), labels, seed=int(generator.integers(99))
        ).image_auroc
        held += found.low <= truth <= found.high
    assert held >= 53  # 57 are expected


@pytest.mark.parametrize("n", [1, 5, 40])
def test_a_perfect_ranking_is_not_certain(n):
    found = small(np.r_[np.full(n, 0.95), np.linspace(0, 0.5, 100)], ["hole"] * n + ["good"] * 100)
    low = 0.025 ** (1 / n)
    assert found.image_auroc == Interval(1.0, pytest.approx(low), 1.0)
    assert found.per_class["hole"].image_auroc == Interval(1.0, pytest.approx(low), 1.0)
    assert found.average_precision.value == found.average_precision.high == 1.0
    assert found.average_precision.low < low
    assert found.recall == Rate(n, n, pytest.approx(low), 1.0)


def test_the_bound_of_a_perfect_precision_holds():
    # populations of which 1 in 12 defects lies below and 1 in 100 good images above all others: AP
    # about 0.88
    generator, perfect, missed = np.random.default_rng(0), 0, 0
    labels = ["hole"] * 20 + ["good"] * 100
    defects, good = np.r_[np.full(11, 2.0), -1.0], np.r_[np.zeros(99), 3.0]
    truth = average_precision_score(
        np.r_[np.ones(1200), np.zeros(6000)], np.r_[np.tile(defects, 100), np.tile(good, 60)]
    )
    for _ in range(2000):
        scores = np.r_[generator.choice(defects, 20), generator.choice(good, 100)]
        if scores[:20].min() > scores[20:].max():
            perfect += 1
            test = resampling.TestSet.of(
                scores, labels, [str(i) for i in range(120)], None, None, None, 0
            )
            missed += evaluation._average_precision(test, np.ones(2)).low > truth
    assert perfect > 50 and missed == 0


def test_the_reverse_of_a_perfect_ranking():
    found = small(np.r_[np.zeros(5), np.full(9, 0.5)], ["hole"] * 5 + ["good"] * 9)
    assert found.image_auroc == Interval(0.0, 0.0, pytest.approx(1 - 0.025**0.2))


def test_scores_that_are_all_the_same_say_little():
    found = small(np.full(20, 0.5), ["hole"] * 10 + ["good"] * 10)
    assert found.image_auroc == Interval(0.5, *map(pytest.approx, clopper_pearson(5, 10)))


def test_a_single_group_gives_no_interval():
    scores, labels = spread(12)
    found = small(scores, labels, ["the part"] * 12)
    assert (found.image_auroc.low, found.image_auroc.high) == (0.0, 1.0)
    assert (found.average_precision.low, found.average_precision.high) == (0.0, 1.0)
    assert found.recall.n == found.false_alarms.flagged.n == 1
    assert found.recall_images[1] == 4 and found.false_alarms.images == 8


def test_not_a_number_ranks_highest_and_is_flagged():
    images = LabelledScores(
        [0.1, math.inf, math.nan, 0.2],
        ["good", "good", "hole", "hole"],
        list("abcd"),
        [False, True, False, False],
    )
    found = evaluate(images, None)
    assert found.image_auroc.value == 0.75
    assert (found.recall.flagged, found.recall.n) == (1, 2)
    assert found.false_alarms is None


def test_scores_are_not_clamped():
    scores = np.float32([-1e30, -5, 1e30, 3e30])
    assert small(scores, ["good", "hole", "good", "hole"]).image_auroc.value == 0.75


@pytest.mark.parametrize("label", ["good", "hole"])
def test_one_kind_of_image_only(label):
    found = small([0.1, 0.95, 0.3], [label] * 3).to_json()
    assert found["image_auroc"] is found["average_precision"] is found["pixel_auroc"] is None
    assert (found["false_alarms"] is None, found["recall"] is None) == (
        label != "good",
        label == "good",
    )
    assert found["per_class"] == (
        {}
        if label == "good"
        else {
            "hole": {
                "image_auroc": None,
                "recall": found["recall"],
                "n": 3,
                "missed_at_most": pytest.approx(0.95 ** (1 / 3), abs=1e-9),
            }
        }
    )
    assert (found["n_normal"], found["n_anomalous"]) == ((3, 0) if label == "good" else (0, 3))


def test_no_image_at_all():
    found = evaluate(LabelledScores([], [], [], []), CALIBRATION)
    assert (found.image_auroc, found.recall, found.false_alarms, found.roc, found.per_class) == (
        None,
        None,
        None,
        None,
        {},
    )


def test_a_detector_that_only_ranks_has_no_rates():
    found = evaluate(LabelledScores([0.1, 0.9], ["good", "hole"], ["a", "b"], None), None)
    assert found.image_auroc.value == 1.0
    assert found.false_alarms is found.recall is found.recall_images is None
    assert found.per_class["hole"].recall is None


def test_images_that_were_not_inspected_are_counted_apart():
    found = small(
        [0.1, math.nan, 0.95, 0.2, math.nan],
        ["good", "good", "hole", "hole", "crack"],
        inspected=[True, False, True, True, False],
    )
    assert (found.n_normal, found.n_anomalous, found.not_inspected, found.not_inspected_normal) == (
        1,
        2,
        2,
        1,
    )
    assert (
        found.image_auroc.value == 1.0 and found.recall.n == 2 and found.false_alarms.flagged.n == 1
    )
    assert found.per_class["crack"].to_json() == {
        "image_auroc": None,
        "recall": None,
        "n": 0,
        "missed_at_most": None,
    }


def test_details_for_the_report():
    found = small([0.1, 0.4, 0.35, 0.8], ["good", "good", "hole", "hole"])
    assert found.roc.fpr.tolist() == [0, 0, 0.5, 0.5, 1]
    assert found.roc.tpr.tolist() == [0, 0.5, 0.5, 1, 1]
    assert found.roc.threshold.tolist() == [math.inf, *np.float32([0.8, 0.4, 0.35, 0.1]).tolist()]
    assert {label: scores.tolist() for label, scores in found.scores.items()} == {
        "good": np.float32([0.1, 0.4]).tolist(),
        "hole": np.float32([0.35, 0.8]).tolist(),
    }


def test_false_alarms_beside_their_guarantee():
    calibration = calibrate(np.arange(300.0))
    scores = np.r_[np.full(5, 500.0), np.zeros(297)]
    groups = [str(i) for i in range(302)]
    images = LabelledScores(scores, ["good"] * 302, groups, calibration.is_anomaly(scores))
    found = evaluate(images, calibration)
    assert found.false_alarms.to_json() == {
        "guaranteed_rate": 3 / 301,
        "estimated_rate": None,
        "upper_bound": pytest.approx(0.020836230527, rel=1e-9),
        "n": 302,
        "flagged": 5,
        "ordinary_up_to": 8,
    }
    assert (found.false_alarms.flagged.low, found.false_alarms.flagged.high) == clopper_pearson(
        5, 302
    )


@pytest.mark.parametrize("what", ["scores", "groups", "flagged", "inspected", "names"])
def test_arguments_must_match_the_labels(what):
    given = {"scores": [0.1, 0.2], "groups": ["a", "b"], "flagged": None}
    with pytest.raises(
        DatasetError, match=rf"{what} of shape \(3,\) for 2 labels: expected one for each image"
    ):
        evaluate(
            LabelledScores(**(given | {"labels": ["good", "hole"], what: ["a", "b", "c"]})), None
        )


# Pixels


def painted(generator, label, *, offset=0.0, noise=1.0, size=(48, 40), map_size=(12, 10)):
    """A heatmap and the mask of up to two defects, which it shows faintly."""
    mask = np.zeros(size, dtype=bool)
    if label != "good":
        top, left = generator.integers(0, 20, 2)
        mask[top : top + 12, left : left + 9] = True
        mask[40:46, 30:34] = generator.random() < 0.5
    shown = np.asarray(
        Image.fromarray(mask).resize(map_size[::-1], Image.Resampling.BOX), dtype=np.float32
    )
    heatmap = generator.normal(size=map_size) * noise + 2 * noise * shown + offset
    return PixelMap(heatmap.astype(np.float32), mask if label != "good" else None, size)


def enlarged(image):
    return np.asarray(
        Image.fromarray(image.heatmap).resize(image.size[::-1], Image.Resampling.BILINEAR)
    )


def exact_aupro(heatmaps, masks):
    """Bergmann et al.'s figure from every threshold that there is."""
    normal = np.sort(
        np.concatenate([heatmap[~mask] for heatmap, mask in zip(heatmaps, masks, strict=True)])
    )
    regions = []
    for heatmap, mask in zip(heatmaps, masks, strict=True):
        numbers, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [np.sort(heatmap[numbers == i + 1]) for i in range(count)]
    thresholds = np.unique(np.concatenate(heatmaps))[::-1]
    fpr = np.r_[0, 1 - np.searchsorted(normal, thresholds) / len(normal)]
    found = np.r_[
        0,
        np.mean(
            [1 - np.searchsorted(region, thresholds) / len(region) for region in regions], axis=0
        ),
    ]
    x = np.linspace(0, 0.3, 200_001)
    return np.trapezoid(np.interp(x, fpr, found), x) / 0.3


@pytest.mark.parametrize(
    ("offset", "noise"), [(0, 1), (100, 0.01), (-5000, 1), (0, 1e-20), (1e10, 1e6)]
)
def test_pixel_figures_agree_with_the_exact_ones(offset, noise):
    generator = np.random.default_rng(0)
    labels = ["hole" if i % 3 == 0 else "good" for i in range(30)]
    images = [painted(generator, label, offset=offset, noise=noise) for label in labels]
    heatmaps = [enlarged(image) for image in images]
    masks = [np.zeros(image.size, bool) if image.mask is None else image.mask for image in images]
    found = small(np.linspace(0, 1, 30), labels, maps=iter(images))
    auroc = roc_auc_score(np.ravel(masks), np.ravel(heatmaps))
    assert found.pixels.auroc.value == pytest.approx(auroc, abs=1e-4)
    assert found.pixels.aupro.value == pytest.approx(exact_aupro(heatmaps, masks), abs=3e-4)
    assert found.to_json()["pixel_auroc"] == found.pixels.auroc.value
    assert found.to_json()["aupro"] == found.pixels.aupro.value
    for figure in (found.pixels.auroc, found.pixels.aupro):
        assert 0 < figure.low < figure.value < figure.high < 1
        assert 0.01 < figure.high - figure.low < 0.4
    assert (found.pixels.images, found.pixels.without_mask) == (30, 0)
    assert found.pixels.regions == sum(ndimage.label(mask, np.ones((3, 3)))[1] for mask in masks)


@pytest.mark.parametrize(
    ("small_size", "size"),
    [((5, 7), (31, 64)), ((1, 1), (3, 4)), ((8, 8), (8, 8)), ((2, 9), (50, 9))],
)
def test_heatmaps_are_enlarged_as_pillow_does(small_size, size, monkeypatch):
    monkeypatch.setattr(pixel_metrics, "_STRIPE", 200)  # so that there are several stripes
    heatmap = np.random.default_rng(0).normal(size=small_size).astype(np.float32)
    whole = np.concatenate([values for _, values in pixel_metrics._enlarged(heatmap, size)])
    expected = enlarged(PixelMap(heatmap, None, size))
    np.testing.assert_allclose(whole, expected, atol=1e-6)


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=50), st.floats(-1e6, 1e6))
def test_bins_keep_the_order(values, centre):
    values = np.sort(np.float32(values))
    bins = pixel_metrics._bins(values, centre)
    assert (np.diff(bins) >= 0).all() and bins.min() >= 0 and bins.max() < 1 << 18
    assert len(set(pixel_metrics._bins(np.float32([0.0, -0.0]), 0.0).tolist())) == 1


def test_a_heatmap_that_shows_the_defect_exactly():
    generator = np.random.default_rng(0)
    labels = ["hole"] * 12 + ["good"] * 12
    images = [painted(generator, label) for label in labels]
    exact = [
        PixelMap(
            np.zeros(i.size, np.float32) if i.mask is None else i.mask.astype(np.float32),
            i.mask,
            i.size,
        )
        for i in images
    ]
    found = small(np.linspace(0, 1, 24), labels, maps=exact).pixels
    assert found.auroc == Interval(1.0, pytest.approx(0.025 ** (1 / 12)), 1.0)
    assert found.aupro == Interval(1.0, pytest.approx(0.025 ** (1 / 12)), 1.0)


def test_a_defective_image_without_a_mask_is_left_out_and_counted():
    generator = np.random.default_rng(0)
    labels = ["hole", "hole", "hole", "good", "good", "hole"]
    images = [painted(generator, label) for label in labels]
    images[1] = PixelMap(images[1].heatmap, None, images[1].size)
    # marks nothing
    images[2] = PixelMap(images[2].heatmap, np.zeros(images[2].size), images[2].size)
    images[5] = PixelMap(None, images[5].mask, images[5].size)  # could not be judged
    found = small(np.linspace(0, 1, 6), labels, maps=images).pixels
    assert (found.images, found.without_mask) == (3, 2)
    kept = [images[i] for i in (0, 3, 4)]
    masks = [np.zeros(i.size, bool) if i.mask is None else i.mask for i in kept]
    assert found.auroc.value == pytest.approx(
        roc_auc_score(np.ravel(masks), np.ravel([enlarged(i) for i in kept])), abs=1e-4
    )


def test_without_any_mask_there_are_no_pixel_figures():
    generator = np.random.default_rng(0)
    images = [PixelMap(painted(generator, "good").heatmap, None, (48, 40)) for _ in range(4)]
    assert small([0.1, 0.2, 0.3, 0.4], ["good", "good", "hole", "hole"], maps=images).pixels is None


def test_a_good_image_with_a_mask_is_a_mistake_in_the_data():
    image = painted(np.random.default_rng(0), "hole")
    with pytest.raises(
        DatasetError,
        match=r"group part 7 is labelled good but its mask marks \d+ pixels: correct the",
    ):
        small([0.1], ["good"], ["part 7"], maps=[image])


def test_masks_of_any_number_type_mark_what_is_above_zero():
    image = painted(np.random.default_rng(0), "hole")
    both = [
        small(
            [0.9, 0.1],
            ["hole", "good"],
            maps=[
                PixelMap(image.heatmap, mask, image.size),
                painted(np.random.default_rng(1), "good"),
            ],
        )
        for mask in (image.mask, image.mask.astype(np.uint8) * 255)
    ]
    assert both[0].pixels == both[1].pixels


def test_heatmap_values_that_are_not_finite_rank_as_scores_do():
    heatmap = np.float32([[0, 1], [-np.inf, np.nan]])
    mask = np.array([[False, False], [False, True]])
    found = small([0.9], ["hole"], maps=[PixelMap(heatmap, mask, (2, 2))]).pixels
    assert found.auroc.value == found.aupro.value == 1.0


def test_without_scikit_learn_the_extra_is_named():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from anomaly.statistics.metrics import LabelledScores, evaluate\n"
        "from anomaly.errors import RuntimeMissing\n"
        "try: evaluate(LabelledScores([0.1], ['good'], ['a'], None), None)\n"
        "except RuntimeMissing as error: print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert said == (
        "anomaly evaluate needs scikit-learn, which is not installed: pip install "
        "'anomaly[evaluate]'\n"
    )
