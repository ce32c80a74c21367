"""One term for one thing: words and names that were retired may not come back, but where they mean
something else.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SUFFIXES = {".py", ".md", ".js", ".css", ".html", ".mjs", ".cc", ".toml"}
EXEMPT = re.compile(
    r"CHANGELOG\.md|docs/research/.*|docs/project/licences\.md|tests/test_language\.py|requirements/.*"
)

# A retired word, what is said instead, and where it is allowed: a regular expression of "path:
# line".
RETIRED = (
    (r"\bfar[ _]out\b", "outlier", None),
    (r"\bexposed[ _]alike\b", "normalised exposure", None),
    (r"\bHiddenMarkov\b|`markov`|\"markov\"", "HMM, hmm", None),
    (
        r"\busual[ _]heat\b|(?<![-.\w])heats?\b(?!-)|\bHeat\b|\bheat_\w+",
        "heatmap, location scale",
        r"\.css: ",
    ),
    (r"\bhot\b", "high", r"tests/(imaging/)?test_(scorer|mask|overlay)\.py: |one_hot"),
    (r"\bdescend\(", "train_epochs", None),
    (
        r"\b(fit_prior|HiddenMarkov|parts_of|leave_far_out|see_tiles)\b",
        "finish, folds, TileReader",
        None,
    ),
    (
        r"\bsight\b",
        "size_sensitivity",
        r"anomaly\.sight|tests?[./]test_sight|sight\.py|(in|at first) sight\b",
    ),
    (r"\bpeaks\b", "max_pooled", r"anomaly/inputs/near_copies\.py: "),
    (r"\bwish(es)?\b", "target rate", None),
    (
        r"\b[Pp]romis(e|es|ed)\b",
        "guarantee, guaranteed rate",
        r"\.(js|mjs|html): |new Promise|Promise\.all|fs/promises",
    ),
    (r"\bmade-up\b|\bmade_up_\w+", "synthetic", None),
    (
        (
            r"\bby[-_]parts?\b|\bper[ "
            r"_]part\b|\b(PartRule|PartRow|PartsSummary|judge_part|whole_parts)\b"
        ),
        "unit",
        r"per-part\.onnx",
    ),
    (r"\b(join_parts|_Part|part_rows)\b", "chunk", None),
    (r"\b(without_verdict|verdict_text|One image's verdict)\b", "result", None),
    (
        (
            r"\b(now|newly)[_ ]stopped\b|\bSTOPPED\b|\bstopped (images|by "
            r"size)\b|\b(images|defects) stopped\b"
        ),
        "flagged",
        None,
    ),
    (
        r"\blimit_moved\w*|\b(set|sets|above) the limit\b|\blimit - (m|typical)\b",
        "threshold",
        "first point above",
    ),
)
# Constants that say how much of something, but not of what.
ADJECTIVES = re.compile(
    r"^(MOST|FAR|FEW|FEWER|FEWEST|SEEN|EACH|LONG|LONGEST|LARGEST|SHORTEST|DEEPEST|LOOSEST|CLOSE|CLOSER|ALMOST|EQUAL|SAME|SHOWN|"
    r"KEPT|READY|LATE|AGAIN|WIDER|CLEARLY|FASTER|LEAST|STEEPEST|TYPICAL|SMALLEST|WEAKEST|NEWEST|ORDINARY)\b"
)


def lines() -> list[tuple[str, int, str]]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [
        name
        for name in listed.stdout.splitlines()
        if Path(name).suffix in SUFFIXES or name == "Makefile"
    ]
    return [
        (name, number, line)
        for name in names
        if not EXEMPT.fullmatch(name) and (ROOT / name).exists()
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
    ]


@pytest.mark.parametrize(
    ("retired", "instead", "allowed"), RETIRED, ids=[instead for _, instead, _ in RETIRED]
)
def test_a_retired_word_does_not_return(retired: str, instead: str, allowed: str | None) -> None:
    word, context = re.compile(retired), re.compile(allowed or r"(?!)")
    found = [
        f"{n}:{i}: {line.strip()}"
        for n, i, line in lines()
        if word.search(line) and not context.search(f"{n}: {line}")
    ]
    assert not found, f"say {instead}:\n" + "\n".join(found)


def test_a_constant_says_what_it_measures() -> None:
    found = [
        f"{n}:{i}: {line}"
        for n, i, line in lines()
        if n.endswith(".py") and ADJECTIVES.match(line) and " = " in line
    ]
    assert not found, "\n".join(found)
