"""`anomaly learn`: a new detector from a run, its own images, and what inspectors found since."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

from anomaly.detector.file import read_card
from anomaly.imaging.defect_masks import read_defect_mask
from anomaly.imaging.drawn_regions import Region
from anomaly.inputs.known_defects import read_defects
from anomaly.inputs.used_images import DEFECTS, read_listing
from anomaly.review import Store, default_key
from anomaly.review.findings import Filters
from tests.support.runs import Said, trained
from training.learn_again import MANIFESTS, former_images, newly_marked, news_of


def say_stain(store: Store, finding: int, marked: bool) -> None:
    """Gives the verdict, and says where, if asked."""
    regions = [Region("box", (5, 10, 25, 20))] if marked else []
    key = default_key()
    store.record("anna", finding, "anomalous", key=key, defect_type="stain", regions=regions)


OPTIONS = {"space": "filters", "false_alarm_rate": 0.2, "expected_picture": False}


def sets(run: Path) -> Counter[str]:
    return Counter(row["set"] for row in read_listing(run / "images.csv"))


def test_verdicts_and_more_good_images_make_a_new_detector(
    parts: Path, known: Path, tmp_path: Path, said: Said
) -> None:
    """The images of the first training are learnt from again, with those of the verdicts; known
    defects stay known when more are learnt.
    """
    own, more = tmp_path / "own", tmp_path / "more"
    shutil.copytree(parts / "train" / "good", own)
    moved = sorted(own.iterdir())[-4:]
    more.mkdir()
    for path in moved:
        path.rename(more / path.name)
    run = trained(tmp_path / "run", own, **OPTIONS)
    table, database = tmp_path / "t.csv", tmp_path / "review.db"
    assert said("score", run, known / "test", "--out", table)[0] == 0
    assert said("review", "import", table, "--db", database, "--root", known / "test")[0] == 0
    first, second = sorted(path.name for path in (known / "test" / "stain").iterdir())[:2]
    with Store(str(database), create=False) as store:
        for finding in store.findings(Filters(), "position", 1000, 0):
            if Path(finding.path).parent.name == "stain":
                say_stain(store, finding.id, marked=finding.path.endswith(first))
    judged = len(list((known / "test" / "stain").iterdir()))

    new = tmp_path / "new"
    options = ("--review", database, "--normal", more, "--out", new)
    status, printed, error = said("learn", run, *options)
    assert status == 0, error
    assert "before" in printed and "known defects" in printed
    good = sum(sets(run).values())
    assert sets(new)[DEFECTS] == judged and sum(sets(new).values()) == good + 4 + judged
    facts = read_card(new).training.known_defects
    assert facts is not None and facts.types == {"stain": judged}
    assert facts.missed is None  # a detector found them
    masks = {record.path.name: record.mask for record in read_defects(new / MANIFESTS[1])}
    assert [name for name, mask in masks.items() if mask is not None] == [first]
    marked = read_defect_mask(masks[first] or Path())
    assert marked[10:20, 5:25].all() and marked.sum() == 10 * 20  # pixels of the original

    status, _, error = said("learn", new, "--review", database, "--out", tmp_path / "third")
    assert status == 1 and "nothing new to learn from found" in error
    with Store(str(database), create=False) as store:  # known already, but not where it is
        for finding in store.findings(Filters(), "position", 1000, 0):
            if finding.path.endswith(f"stain/{second}"):
                say_stain(store, finding.id, marked=True)
    news = news_of(None, None, str(database), lambda line: None)
    before = former_images(new, parts)[1]
    assert [path.name for path in newly_marked(before, news)] == [second]
    status, _, error = said(
        "learn", new, "--defects", known / "test" / "missing", "--out", tmp_path / "third"
    )
    assert status == 0, error
    facts = read_card(tmp_path / "third").training.known_defects
    assert facts is not None and set(facts.types) == {"defect", "stain"}


def test_what_is_not_there_any_more_is_said_before_anything_is_written(
    parts: Path, known: Path, tmp_path: Path, said: Said
) -> None:
    own = tmp_path / "own"
    shutil.copytree(parts / "train" / "good", own)
    run = trained(tmp_path / "run", own, **OPTIONS)
    status, _, error = said("learn", run, "--out", tmp_path / "new")
    assert status == 1 and "give --review DB, --defects DIR or --normal DIR" in error
    sorted(own.iterdir())[0].unlink()
    status, _, error = said(
        "learn", run, "--defects", known / "test" / "stain", "--out", tmp_path / "new"
    )
    assert status == 1 and "is not found unchanged" in error
    assert not (tmp_path / "new").exists()
