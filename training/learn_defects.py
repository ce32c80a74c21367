"""What is learnt from known defects (`anomaly train --defects`), beside the model of good
images.
"""

from __future__ import annotations

from dataclasses import replace

from anomaly.reporting.lines import line_of
from training.cross import out_of_fold, sharpening, unchanged, with_evidence
from training.known_defects import fit_known, held_out
from training.labelled_maps import counts_text, look_at_defects
from training.scores import ImageScore
from training.stages import Fitted, LearntDefects


def learn_defects(fitted: Fitted) -> Fitted:
    """Returns the detector with what is learnt from known defects; unchanged where none are given.

    Defects are told from good images that the model which judges them has not learnt from: of the
    images that are learnt from, each by a model without its fold. Images that calibrate are not
    looked at, but in cross-calibration, where they are judged without their fold here too.
    """
    chosen, trained = fitted.chosen, fitted.trained
    split, to_heatmap = chosen.split, trained.to_heatmap
    if split.job.options.defects is None:
        return fitted
    labelled = look_at_defects(split, to_heatmap)
    split.job.tell([line_of("known defects", counts_text(labelled.types))])
    cross = split.sets.cross
    records = split.sets.calibrating if cross else chosen.learnt.records
    sharpen = sharpening(fitted) if cross else unchanged
    unseen = out_of_fold(split, records, to_heatmap, sharpen, describe=True)
    split.space.cpu()
    defects = labelled.judged_by(trained.space, trained.model, to_heatmap)
    known, held = fit_known(unseen.good, defects), held_out(unseen.good, defects)
    learnt = LearntDefects(
        labelled.records, defects.named, tuple(map(float, held.scores)), held.unknown_below
    )
    return replace(
        fitted,
        trained=replace(trained, score=ImageScore(trained.score.name, None, known)),
        defects=learnt,
        unseen=with_evidence(unseen, defects) if cross else None,
    )
