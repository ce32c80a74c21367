"""What is learnt from known defects: laws of the evidence, and what a run says and does with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from anomaly import Scorer
from anomaly.detector.card import UNKNOWN_TYPE
from anomaly.detector.file import find_detector, read_card
from anomaly.errors import TrainingError
from anomaly.inputs.used_images import DEFECTS as LEARNT
from anomaly.inputs.used_images import read_listing
from anomaly.reporting.known_defects import known_defect_lines, missed_text
from data.synthetic import DEFECTS, make
from tests.support.runs import Said, trained
from training.export import check_parity
from training.folds import folds
from training.known_defects import (
    Defects,
    Good,
    KnownDefects,
    descriptor,
    fit_known,
    held_out,
    judged_by,
)
from training.labelled_maps import describe_maps
from training.restore import restore

Floats = npt.NDArray[np.float64]
D = 12  # numbers of a descriptor in the tests of it alone
TYPES = ("a", "b", "c")


def good(count: int, seed: int) -> Good:
    rng = np.random.default_rng(seed)
    described = rng.normal(size=(count, D))
    scores = 1 + 0.1 * np.abs(described).mean(1)
    return Good(described, scores, folds([str(i) for i in range(count)]))


def defects(types: Sequence[str], seed: int, apart: float = 4.0) -> Defects:
    """Defects of three types: each is high in numbers of its own."""
    rng = np.random.default_rng(seed)
    described = rng.normal(size=(len(types), D))
    for row, kind in zip(described, types, strict=True):
        row[4 * TYPES.index(kind) : 4 * TYPES.index(kind) + 4] += apart
    scores = 1 + 0.1 * np.abs(described).mean(1)
    return Defects(described, scores, types, [str(i) for i in range(len(types))])


# --- laws -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("inside", [None, "coverage"])
def test_a_descriptor_does_not_depend_on_the_batch(inside: str | None) -> None:
    torch.manual_seed(0)
    deviation, heatmap = torch.randn(5, 3, 6, 7), torch.rand(5, 6, 7)
    weight = None if inside is None else (torch.rand(6, 7) > 0.3).float()
    together = descriptor(deviation, heatmap, weight)
    assert together.shape == (5, 12)
    for i in range(5):
        alone = descriptor(deviation[i : i + 1], heatmap[i : i + 1], weight)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-6)
    if weight is not None:  # what lies outside of the mask changes nothing
        other = torch.where(weight > 0, deviation, 9.0)
        torch.testing.assert_close(
            descriptor(other, torch.where(weight > 0, heatmap, 50.0), weight), together
        )


def test_evidence_only_ever_adds_and_types_lie_between_0_and_1() -> None:
    known = fit_known(good(60, 0), defects(["a"] * 6 + ["b"] * 6, 1))
    rng = np.random.default_rng(2)
    for scale in (0.0, 1.0, 1e6):
        evidence, types = judged_by(known, scale * rng.normal(size=(50, D)))
        assert (evidence >= 0).all() and np.isfinite(evidence).all()
        assert types.shape == (50, 2) and ((types >= 0) & (types <= 1)).all()
    # most good images get none at all: half of the way to the highest of them adds nothing
    assert (judged_by(known, good(400, 3).described)[0] == 0).mean() > 0.7


def test_types_with_five_examples_have_names_and_the_order_of_images_changes_none() -> None:
    given = defects(["b"] * 5 + ["a"] * 7 + ["c"] * 4, 0)
    assert given.named == ["a", "b"]
    new = defects(["a", "b"] * 10, 5)
    found = judged_by(fit_known(good(60, 0), given), new.described)[1]
    assert [("a", "b")[i] for i in found.argmax(1)] == list(new.types)
    order = np.random.default_rng(0).permutation(16)
    turned = Defects(
        given.described[order],
        given.scores[order],
        [given.types[i] for i in order],
        [given.groups[i] for i in order],
    )
    again = judged_by(fit_known(good(60, 0), turned), new.described)[1]
    np.testing.assert_allclose(again, found, atol=1e-3)


@pytest.mark.parametrize("types", [["a"] * 6, ["a"] * 4 + ["b"] * 4])
def test_one_type_or_none_with_a_name_is_enough(types: list[str]) -> None:
    given = defects(types, 0)
    known, held = fit_known(good(60, 0), given), held_out(good(60, 0), given)
    assert known.types == (1 if len(set(types)) == 1 else 0)
    assert (held.unknown_below is None) == (known.types == 0)
    assert (held.scores >= given.scores).all()


def test_defects_of_one_group_are_held_out_together() -> None:
    """All of one group: nothing else to learn from, so that none gets evidence."""
    given = defects(["a"] * 6, 0)
    alike = Defects(given.described, given.scores, given.types, ["one"] * 6)
    np.testing.assert_array_equal(held_out(good(60, 0), alike).scores, given.scores)


def test_good_images_that_all_look_alike_are_refused() -> None:
    same = Good(np.zeros((20, D)), np.ones(20), folds([str(i) for i in range(20)]))
    with pytest.raises(TrainingError, match="good images all look alike"):
        fit_known(same, defects(["a"] * 6, 0))


# --- a run ----------------------------------------------------------------------------------------
def test_the_card_says_what_was_learnt_and_what_is_missed(known_run: Path) -> None:
    card = read_card(known_run)
    learnt = card.training.known_defects
    assert learnt is not None and learnt.missed is not None and learnt.of is not None
    assert learnt.types == {"dent": 3, "missing": 9, "stain": 8}
    assert learnt.of == {"dent": 3, "missing": 8, "stain": 8}  # two have the same pixels
    assert card.defect_types == ("missing", "stain")
    lines = known_defect_lines(card.training, "RUN")
    assert lines[0] == "known defects           learnt from 9 missing, 8 stain, 3 dent"
    assert f"stain: {missed_text(learnt.missed['stain'], 8)}" in "\n".join(lines)
    assert missed_text(0, 12) == "0 of 12 missed; at most 22 % (95 %)"
    used = [row for row in read_listing(known_run / "images.csv") if row["set"] == LEARNT]
    assert len(used) == 20


def test_torch_onnx_and_the_restored_graph_agree_and_types_are_named(known_run: Path) -> None:
    scorer, restored = Scorer(known_run), restore(known_run)
    images = [make("disc", 7000 + i, 90, kind)[0] for i, kind in enumerate((None, "stain", "dent"))]
    assert "type_scores" in restored.graph.output_names
    model = find_detector(known_run).read_bytes()
    assert check_parity(restored.graph, model, images, 0.1) <= 1e-2
    flagged = [scorer.score(make("disc", 7100 + i, 64, "missing")[0]) for i in range(12)]
    named = [one.defect_type for one in flagged if one.is_anomaly]
    assert named.count("missing") > len(named) / 2 > 2
    for one in flagged:
        assert one.type_scores is not None and one.type_scores.shape == (2,)
        assert (one.defect_type is None) == (one.result == "not flagged")
        assert one.defect_type in (None, UNKNOWN_TYPE, "missing", "stain")


def test_too_few_of_every_type_give_evidence_without_names(
    parts: Path, known: Path, tmp_path: Path
) -> None:
    """Also with a mask, and where nobody said how the defects were found."""
    few = tmp_path / "few"
    for kind in ("missing", "stain"):
        (few / kind).mkdir(parents=True)
        for path in sorted((known / "test" / kind).iterdir())[1:4]:
            (few / kind / path.name).write_bytes(path.read_bytes())
    mask = np.full((64, 64), 255, np.uint8)
    mask[:, 40:] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = {"space": "filters", "defects": few, "mask": tmp_path / "mask.png"}
    run = trained(tmp_path / "run", parts, expected_picture=False, **options)
    scorer = Scorer(run)
    assert "type_scores" not in scorer.outputs and scorer.card.defect_types == ()
    found = [scorer.score(path) for path in sorted((few / "missing").iterdir())]
    assert {one.defect_type for one in found} == {None}
    said = "\n".join(known_defect_lines(scorer.card.training, str(run)))
    assert "no type has a name: at least 5 examples of one expected" in said
    assert "defects missed          unknown (found by a detector, or nobody said how" in said


def test_what_cannot_be_learnt_from_is_refused_before_anything_is_trained(
    parts: Path, known: Path, tmp_path: Path, said: Said
) -> None:
    both = tmp_path / "both"
    (both / "stain").mkdir(parents=True)
    paths = sorted((known / "test" / "stain").iterdir())
    for path in (*paths, sorted((parts / "train" / "good").iterdir())[3]):
        (both / "stain" / f"x{path.name}").write_bytes(path.read_bytes())
    few = tmp_path / "few"
    (few / "dent").mkdir(parents=True)
    for path in (known / "test" / "dent").iterdir():
        (few / "dent" / path.name).write_bytes(path.read_bytes())
    found = {
        both: "a defect by --defects found, and a good image by",
        few: "3 images of defects found, at least 5 expected",
        tmp_path / "none": "no such",
    }
    for folder, words in found.items():
        status, _, error = said(
            "train", parts, "--out", tmp_path / "run", "--space", "filters", "--defects", folder
        )
        assert status == 1 and words in error.splitlines()[-1], error
        assert not (tmp_path / "run" / "train.jsonl").exists()


# --- never blind ----------------------------------------------------------------------------------
def test_kinds_that_were_never_shown_are_still_found(known_run: Path) -> None:
    """Each kind of made parts in turn is left out of learning: its recall at the threshold falls by
    at most two points on average against the detector without labels.
    """
    graph = restore(known_run).graph

    def seen(first: int, count: int, kind: str | None = None) -> tuple[Floats, Floats]:
        pictures = [make("disc", first + i, 64, kind)[0] for i in range(count)]
        with torch.inference_mode():
            raw = graph.space.raw(graph.prepare(torch.from_numpy(np.stack(pictures))))
        return describe_maps(graph.space, graph.model, graph.to_heatmap, raw)

    fit, new = seen(20_000, 100), seen(30_000, 150)
    shown = {kind: seen(40_000, 8, kind) for kind in DEFECTS["disc"]}
    unseen = {kind: seen(50_000, 20, kind) for kind in DEFECTS["disc"]}
    learning = Good(*fit, folds([str(i) for i in range(100)]))
    losses = []
    for left in shown:
        kinds = [kind for kind in shown if kind != left]
        described, scores = (np.concatenate([shown[k][part] for k in kinds]) for part in (0, 1))
        names = [kind for kind in kinds for _ in range(8)]
        known = fit_known(
            learning, Defects(described, scores, names, [str(i) for i in range(len(names))])
        )
        recalls = [
            (of_kind > np.quantile(of_good, 0.95)).mean()
            for of_good, of_kind in (
                (new[1], unseen[left][1]),
                (evidence_added(known, new), evidence_added(known, unseen[left])),
            )
        ]
        losses.append(recalls[0] - recalls[1])
    assert np.mean(losses) < 0.02, losses


def evidence_added(known: KnownDefects, seen: tuple[Floats, Floats]) -> Floats:
    return seen[1] + judged_by(known, seen[0])[0]
