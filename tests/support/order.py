"""In which order the files of tests are begun: those that take long first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

# Files of tests that take longest, the longest first; tests/test_project.py looks whether they are
# there. A worker that begins one of them last would work alone for minutes.
BEGUN_FIRST = (
    "dashboard/test_dashboard.py",
    "training/test_tiles.py",
    "dashboard/test_browser.py",
    "dashboard/test_browser_pages.py",
    "training/test_pipeline.py",
    "dashboard/test_browser_verdicts.py",
    "training/test_export.py",
    "imaging/test_mask.py",
    "training/test_choose.py",
    "review/test_review.py",
    "dashboard/test_browser_axe.py",
    "training/models/test_models.py",
    "dashboard/test_browser_live.py",
    "training/test_retrain.py",
    "serve/test_serve.py",
    "training/experiments/test_baselines.py",
    "scoring/test_watch.py",
    "training/test_fine_heatmap.py",
    "attacks/test_hostile_requests.py",
    "training/test_own_backbone.py",
    "quality/test_own_heatmap.py",
    "training/test_fit.py",
    "station/test_run.py",
    "scoring/test_kill_score.py",
    "scoring/test_cluster.py",
    "training/experiments/test_ablation.py",
    "dashboard/test_browser_bulk.py",
    "training/test_known_defects.py",
    "training/test_learn_again.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files that take long first, then those with many tests."""
    here = Path(__file__).parents[1]
    place = {here / name: number for number, name in enumerate(BEGUN_FIRST)}
    tests = Counter(item.path for item in items)
    items.sort(key=lambda i: (place.get(i.path, len(place)), -tests[i.path], i.path))
