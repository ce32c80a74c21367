from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anomaly.errors import AnomalyError
from anomaly.reporting.review import estimate_text
from anomaly.review.estimates import precision, precision_at, recall, recall_at
from anomaly.review.inspectors import Act, agreement, team
from anomaly.review.threshold_preview import Band, band, histograms, preview
from anomaly.review.verdicts import (
    NO_AUDIT,
    NO_THRESHOLD,
    Sample,
    Stratum,
    calibration_rows,
    draw,
    resolve,
)
from anomaly.statistics.calibration import Calibration, calibrate
from anomaly.statistics.intervals import Estimate, clopper_pearson

pytest.importorskip("scipy", reason="SciPy is not installed: intervals of recall need it")


def reviewed(
    scores: NDArray[np.float64],
    bad: NDArray[np.bool_],
    threshold: float,
    images: int,
    *,
    seed: int = 0,
    audit_share: float = 1.0,
    flagged_judged: bool = True,
) -> Sample:
    """A run whose inspectors are always right, and have judged the flagged images and this share of
    the audit sample.
    """
    flagged = scores > threshold
    found = draw(scores, flagged, images, seed)
    rows = np.flatnonzero(flagged | found.drawn)
    states = np.where(bad[rows], "anomalous", "normal").astype("<U12")
    lots = np.where(found.drawn, found.lot, np.nan)[rows]
    audited = rows[~np.isnan(lots)]
    last = (
        np.sort(found.lot[audited])[max(0, int(audit_share * len(audited)) - 1)]
        if len(audited)
        else 0.0
    )
    states[~flagged[rows] & (lots > last)] = "open"
    if not flagged_judged:
        states[flagged[rows]] = "open"
    return Sample(
        threshold,
        found.strata,
        rows.astype(np.int64),
        scores[rows].astype(np.float32),
        found.stratum[rows],
        lots,
        found.core[rows],
        states,
    )


def population(
    seed: int, images: int = 4000, defects: int = 80, shift: float = 2.5
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores of good images and defects that overlap, float32 as in a table."""
    random = np.random.default_rng(seed)
    bad = np.zeros(images, dtype=bool)
    bad[random.choice(images, defects, replace=False)] = True
    return np.float64(np.float32(random.normal(size=images) + shift * bad)), bad


def flagged_only(anomalous: int, normal: int, waiting: int = 0) -> Sample:
    """A run of which only flagged images were judged."""
    n = anomalous + normal + waiting
    states = np.array(
        ["anomalous"] * anomalous + ["normal"] * normal + ["open"] * waiting, dtype="<U12"
    )
    return Sample(
        1.0,
        [Stratum(0, 1.0, np.inf, n, 0)],
        np.arange(n),
        np.full(n, 2, np.float32),
        np.zeros(n, np.int64),
        np.full(n, np.nan),
        np.zeros(n, bool),
        states,
    )


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ([], "open"),
        (["skip"], "open"),
        (["unsure", "skip"], "unsure"),
        (["normal", "unsure"], "normal"),
        (["anomalous", "normal"], "disagreement"),
        (["anomalous", "normal", "unsure"], "disagreement"),
        (["anomalous", "normal", "normal"], "normal"),
        (["anomalous", "anomalous", "normal"], "anomalous"),
    ],
)
def test_the_majority_decides(said: list[str], state: str) -> None:
    assert resolve(said) == state


# ---- the audit sample ----


scored = st.lists(
    st.tuples(st.sampled_from([k / 8 for k in range(24)]), st.booleans()), min_size=1, max_size=120
)


@given(scored, st.integers(1, 150), st.integers(0, 3))
def test_strata_share_out_the_images_and_samples_grow(
    rows: list[tuple[float, bool]], images: int, seed: int
) -> None:
    scores, flagged = np.array([s for s, _ in rows]), np.array([flag for _, flag in rows])
    found, larger = draw(scores, flagged, images, seed), draw(scores, flagged, images + 10, seed)
    assert sum(s.images for s in found.strata) == len(rows)
    assert [s.images for s in found.strata] == [
        int((found.stratum == s.number).sum()) for s in found.strata
    ]
    assert [s.drawn for s in found.strata] == [
        int((found.drawn & (found.stratum == s.number)).sum()) for s in found.strata
    ]
    assert ((found.stratum == 0) == flagged).all()
    assert not (found.core & ~found.drawn).any(), "the core is part of the sample"
    assert not (flagged & found.drawn & ~found.core).any(), (
        "flagged images are drawn with the core only"
    )
    for earlier, later in ((found.drawn, larger.drawn), (found.core, larger.core)):
        assert not (earlier & ~later).any(), "a larger sample holds the smaller one"
    passed = [s for s in found.strata if s.number]
    assert all(one.low > other.high for one, other in pairwise(passed) if one.low and other.high)
    if images >= len(rows):
        assert found.drawn.all() and found.core.all()


def test_every_image_is_drawn_as_often_as_its_stratum_says() -> None:
    scores, _ = population(0, 800)
    flagged = scores > 1.5
    draws = [draw(scores, flagged, 160, seed) for seed in range(400)]
    core, drawn = (
        np.mean([d.core for d in draws], axis=0),
        np.mean([d.drawn for d in draws], axis=0),
    )
    assert abs(core - 0.1).max() < 5 * np.sqrt(0.09 / 400), "each image alike, whatever its score"
    for stratum in range(1, 5):
        inside = draws[0].stratum == stratum
        expected = min(1.0, 0.1 + 20 / inside.sum())
        assert abs(drawn[inside] - expected).max() < 5 * np.sqrt(0.25 / 400)
    assert abs(np.mean([d.drawn.sum() for d in draws]) - 160) < 20


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(AnomalyError, match="an audit sample of 5 from 0 judged images"):
        draw([], [], 5)


def test_what_was_judged_out_of_turn_counts_when_its_turn_has_come() -> None:
    scores, bad = population(1)
    sample = reviewed(scores, bad, 2.0, 400, audit_share=0.5)
    later = np.flatnonzero((sample.stratum == 4) & (sample.states == "open"))
    states = sample.states.copy()
    states[later[sample.lot[later].argmax()]] = "anomalous"  # somebody noticed it
    out_of_turn = dataclasses.replace(sample, states=states)
    assert (out_of_turn.usable == sample.usable).all()
    assert recall(out_of_turn) == recall(sample)
    aside = dataclasses.replace(
        sample, states=np.where(sample.states == "open", "skip", sample.states)
    )
    assert aside.usable.sum() == sample.usable.sum(), "put aside is looked at, but no answer"


# ---- precision ----


@given(st.integers(0, 60), st.integers(0, 60))
def test_precision_is_a_count_with_its_exact_interval(anomalous: int, normal: int) -> None:
    found, n = precision(flagged_only(anomalous, normal)), anomalous + normal
    assert (found.n, found.needed) == (n, max(0, 20 - n))
    if n >= 20:
        assert (found.value, found.low, found.high) == (
            anomalous / n,
            *clopper_pearson(anomalous, n),
        )
    else:
        assert (found.value, found.low, found.high) == (None, None, None)


def test_precision_of_a_part_says_so() -> None:
    found = precision(flagged_only(40, 10, waiting=150))
    assert estimate_text(found) == (
        "80 % (95 %: 66 to 90 %; 50 verdicts). 150 more are not judged yet; the highest scores "
        "come first, so of all of them it is likely less."
    )
    assert (
        estimate_text(precision(flagged_only(3, 2)))
        == "unknown (5 verdicts): 15 more verdicts needed. Too few flagged images have been judged."
    )


# ---- recall ----


def test_verdicts_on_flagged_images_alone_give_no_recall() -> None:
    assert recall(flagged_only(40, 10)) == Estimate(
        None, None, None, 50, 0, recall(flagged_only(40, 10)).method, NO_AUDIT
    )
    waiting = recall(flagged_only(40, 10, waiting=1))
    assert (waiting.needed, waiting.note) == (1, "1 of the flagged images is still to be judged.")
    ranked = dataclasses.replace(flagged_only(1, 1), threshold=None)
    assert (recall(ranked).note, precision(ranked).note) == (NO_THRESHOLD, NO_THRESHOLD)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(-1, 4))
def test_when_every_image_is_judged_recall_and_precision_are_exact_at_any_threshold(
    seed: int, threshold: float
) -> None:
    scores, bad = population(seed, 300, 30)
    sample = reviewed(scores, bad, 1.5, 300)
    above = scores > np.float32(threshold)
    found = recall_at(sample, threshold)
    assert (found.value, found.low, found.high) == pytest.approx((bad[above].sum() / 30,) * 3)
    if threshold < 1.5 and above.any():
        found = precision_at(sample, threshold)
        assert (found.value, found.low, found.high) == pytest.approx((bad[above].mean(),) * 3)


@pytest.mark.parametrize(
    ("defects", "shift", "threshold", "share"),
    [(80, 2.5, 2.0, 1.0), (200, 3.0, 2.5, 0.4), (60, 4.0, 2.0, 1.0), (400, 2.0, 2.5, 0.7)],
)
def test_intervals_of_recall_hold_the_truth_as_often_as_they_say(
    defects: int, shift: float, threshold: float, share: float
) -> None:
    scores, bad = population(3, 3000, defects, shift)
    truth = bad[scores > threshold].sum() / defects
    every = [
        recall(reviewed(scores, bad, threshold, 600, seed=seed, audit_share=share))
        for seed in range(300)
    ]
    found = [(one.value, one.low, one.high) for one in every if one.value is not None]
    assert len(found) > 100
    assert (
        np.mean(
            [
                low - 1e-12 <= truth <= high + 1e-12
                for _, low, high in found
                if low is not None and high is not None
            ]
        )
        > 0.95
    )
    assert abs(np.mean([value for value, _, _ in found]) - truth) < 0.02


def test_a_threshold_tried_out_below_the_old_one_holds_the_truth_too() -> None:
    scores, bad = population(3, 3000, 200, 2.5)
    above = scores > 1.0
    held = []
    for seed in range(200):
        sample = reviewed(scores, bad, 2.0, 900, seed=seed)
        for found, truth in (
            (precision_at(sample, 1.0), bad[above].mean()),
            (recall_at(sample, 1.0), bad[above].sum() / 200),
        ):
            assert found.low is not None and found.high is not None
            held.append(found.low <= truth <= found.high)
    assert np.mean(held) > 0.95


def test_too_few_say_how_many_are_needed_and_those_are_enough() -> None:
    scores, bad = population(5, 20_000, 200, 4.0)
    few = recall(reviewed(scores, bad, 2.5, 100))
    assert few.value is None
    assert few.needed > 0
    assert few.note.startswith("Draw ")
    drawn = int(few.note.split()[1].replace(",", ""))
    assert recall(reviewed(scores, bad, 2.5, int(1.3 * (100 + drawn)))).value is not None
    part = recall(reviewed(scores, bad, 2.5, 4000, audit_share=0.02))
    assert (part.value, part.note) == (None, "Go on with the audit sample.")


def test_without_any_defect_there_is_no_recall() -> None:
    scores, bad = population(6, 1000, 0)
    found = recall(reviewed(scores, bad, 2.0, 500))
    assert (found.value, found.note) == (None, "No defect has been found above this threshold yet.")


# ---- which images may set a threshold ----


def test_only_images_drawn_by_lot_keep_the_guarantee() -> None:
    """1 % becomes 2 % where only images below the old threshold set the new one, and next to
    nothing where flagged ones do.
    """
    random = np.random.default_rng(0)
    rates: dict[str, list[float]] = {"core": [], "passed": [], "flagged too": []}
    for seed in range(150):
        scores = random.normal(size=4000)
        threshold = 2.3263  # of which 1 % of good images are above
        sample = reviewed(scores, np.zeros(4000, bool), threshold, 1600, seed=seed)
        rows = {
            "core": calibration_rows(sample),
            "passed": np.flatnonzero(sample.core & (sample.stratum > 0)),
            "flagged too": np.flatnonzero(sample.core | (sample.stratum == 0)),
        }
        for name, chosen in rows.items():
            new = float(calibrate(sample.scores[chosen], 0.01).threshold)
            rates[name].append(float(1 - _normal_cdf(new)))
    assert 0.008 < np.mean(rates["core"]) < 0.0105
    assert np.mean(rates["passed"]) > 0.017
    assert np.mean(rates["flagged too"]) < 0.005


def _normal_cdf(x: float) -> float:
    from scipy.stats import norm

    return float(norm.cdf(x))


def test_images_set_a_threshold_up_to_the_first_not_looked_at() -> None:
    scores, bad = population(7, 2000, 40)
    sample = reviewed(scores, bad, 2.0, 400)
    rows = calibration_rows(sample)
    assert set(rows) == set(np.flatnonzero(sample.core & (sample.states == "normal")))
    assert (sample.stratum[rows] == 0).any(), (
        "good images that were flagged, and that the lot chose"
    )
    middle = np.sort(sample.lot[sample.core])[100]
    states = np.where(sample.core & (sample.lot == middle), "open", sample.states)
    fewer = calibration_rows(dataclasses.replace(sample, states=states))
    assert set(fewer) == {row for row in rows if sample.lot[row] < middle}


# ---- a threshold tried out ----


@given(
    st.lists(st.sampled_from([k / 4 for k in range(16)]), min_size=1, max_size=60),
    st.floats(-1, 5, width=32),
)
def test_a_preview_says_what_a_calibration_with_that_threshold_would(
    scores: list[float], threshold: float
) -> None:
    calibration = Calibration(np.array(scores, np.float32), 1)
    found = preview(flagged_only(0, 0), scores, calibration, threshold)
    assert found.flagged == sum(score > threshold for score in scores)
    if found.k is not None and found.k <= calibration.n:
        at = Calibration.__new__(Calibration)
        object.__setattr__(at, "scores", calibration.scores)
        object.__setattr__(at, "k", found.k)
        assert (found.rate, found.upper_bound) == (at.rate, at.upper_bound)
        assert float(at.threshold) <= threshold, "its threshold flags no fewer"
    else:
        assert (found.rate, found.upper_bound) == (1.0, 1.0)


def test_a_preview_at_the_detectors_own_threshold_is_no_preview() -> None:
    calibration = calibrate(np.linspace(0, 1, 200), 0.02)
    sample = dataclasses.replace(flagged_only(40, 10), threshold=float(calibration.threshold))
    own = preview(sample, [0.5, 0.99, 2.0], calibration, float(calibration.threshold))
    assert (own.own, own.flagged, own.images) == (True, 2, 3)
    assert (own.k, own.n, own.rate) == (4, 200, 4 / 201)
    assert own.upper_bound == pytest.approx(0.038, abs=0.0005)
    assert estimate_text(own.precision) == "80 % (95 %: 66 to 90 %; 50 verdicts)"
    assert estimate_text(own.recall) == (
        "unknown (50 verdicts): Verdicts on flagged images cannot show what was missed: draw an "
        "audit sample."
    )
    moved = preview(sample, [0.5, 0.99, 2.0], calibration, 0.4)
    assert (moved.flagged, moved.k, moved.rate) == (3, 121, 121 / 201)
    assert not moved.own
    assert preview(sample, [0.5], None, 0.4).rate is None


@settings(max_examples=30)
@given(st.floats(0, 4), st.floats(0, 4))
def test_a_higher_threshold_finds_no_more(one: float, other: float) -> None:
    scores, bad = population(8, 1000, 100)
    sample, (low, high) = reviewed(scores, bad, 1.5, 500), sorted((one, other))
    a, b = preview(sample, scores, None, low), preview(sample, scores, None, high)
    assert a.flagged >= b.flagged
    if a.recall.value is not None and b.recall.value is not None:
        assert a.recall.value >= b.recall.value


@given(
    st.lists(st.floats(0, 1, width=32), max_size=40),
    st.floats(0, 1, width=32),
    st.floats(0, 1, width=32),
)
def test_two_limits_share_out_the_images(scores: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    found = band(scores, low, high)
    assert found == Band(
        sum(s <= low for s in scores),
        sum(low < s <= high for s in scores),
        sum(s > high for s in scores),
    )
    with pytest.raises(
        AnomalyError, match=r"thresholds 1.0 and 0.0 found, the lower one first expected"
    ):
        band(scores, 1.0, 0.0)


@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.floats(-1e3, 1e3), max_size=50), max_size=3)
)
def test_histograms_hold_every_score(sets: dict[str, list[float]]) -> None:
    found = histograms(sets, bins=10)
    assert {name: int(counts.sum()) for name, counts in found.counts.items()} == {
        n: len(s) for n, s in sets.items()
    }
    assert len(found.edges) == 11
    assert (np.diff(found.edges) > 0).all()


# ---- people ----


verdicts = st.dictionaries(
    st.integers(0, 40), st.sampled_from(["anomalous", "normal", "unsure", "skip"]), max_size=41
)


@given(verdicts, verdicts)
def test_agreement_is_cohens_kappa(a: dict[int, str], b: dict[int, str]) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    found = agreement("ann", "bob", a, b)
    both = [(a[i], b[i]) for i in a if i in b and {a[i], b[i]} <= {"anomalous", "normal"}]
    assert (found.n, found.same) == (len(both), sum(x == y for x, y in both))
    assert found.needed == max(0, 20 - len(both))
    if found.kappa is not None:
        assert len(both) >= 20
        assert found.kappa == pytest.approx(metrics.cohen_kappa_score(*zip(*both, strict=True)))
    assert agreement("bob", "ann", b, a).kappa == found.kappa


def test_kappa_by_hand() -> None:
    """20 images: both anomalous 8, both normal 7, one against the other 3 and 2."""
    a = ["anomalous"] * 11 + ["normal"] * 9
    b = ["anomalous"] * 8 + ["normal"] * 3 + ["anomalous"] * 2 + ["normal"] * 7
    by_chance = (11 * 10 + 9 * 10) / 400
    found = agreement("ann", "bob", dict(enumerate(a)), dict(enumerate(b)))
    assert found.kappa == pytest.approx((0.75 - by_chance) / (1 - by_chance))
    same = dict.fromkeys(range(30), "normal")
    assert agreement("ann", "bob", same, same).kappa is None, (
        "where all is alike, agreement cannot be told from chance"
    )


def test_a_team_is_counted_by_what_stands() -> None:
    acts = [
        Act("ann", 1, "anomalous", False, False, 2.0),
        Act("ann", 1, "normal", False, True, 4.0),
        Act("ann", 2, "unsure", False, True, None),
        Act("ann", 3, "skip", False, True, 9.0),
        Act("bob", 1, "anomalous", False, True, 1.0),
        Act("bob", 2, "anomalous", True, False, 1.0),
    ]
    found = team(acts, {1: "anomalous", 2: "normal", 3: "normal"})
    ann, bob = found.inspectors
    assert (ann.anomalous, ann.normal, ann.unsure, ann.skipped, ann.undone, ann.judged) == (
        0,
        1,
        1,
        1,
        0,
        2,
    )
    assert (ann.median_seconds, bob.median_seconds, bob.undone) == (4.0, 1.0, 1)
    assert [(i.known.flagged, i.known.n) for i in found.inspectors if i.known] == [
        (0, 2),
        (1, 1),
    ], "unsure is not right"
    assert (found.disagreements, found.unsure) == (1, 1)
