"""Prints what CHANGELOG.md says of a version: python .github/release_notes.py [vX.Y.Z]

Exits with 1 where tag, pyproject.toml and the newest dated section are not of one version, or
something still stands under [Unreleased]: then the release is not ready. Without a tag, in a trial,
it prints the newest section as it is.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

SECTION = re.compile(r"^## \[([^\]]+)\](?: - (.+))?$", re.MULTILINE)


def notes(changelog: str, version: str, tag: str) -> str:
    """Returns the section of a version; SystemExit, with one line, where a release is not ready."""
    _, *parts = SECTION.split(changelog)
    sections = list(zip(parts[::3], parts[1::3], map(str.strip, parts[2::3]), strict=True))
    if not tag:
        return next(text for _, _, text in sections if text)
    if tag != f"v{version}":
        raise SystemExit(f"tag {tag} found, v{version} expected, as pyproject.toml has it")
    if sections and sections[0][0] == "Unreleased":
        left, sections = sections[0][2], sections[1:]
        if left:
            raise SystemExit(f"CHANGELOG.md: [Unreleased] has entries: move them to [{version}]")
    name, when, text = sections[0] if sections else ("nothing", None, "")
    if name != version or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", when or "") or not text:
        raise SystemExit(
            f"CHANGELOG.md: [{name}] - {when} is the newest section, [{version}] - YYYY-MM-DD with "
            "a text expected"
        )
    return text


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    log = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    print(notes(log, project["version"], sys.argv[1] if len(sys.argv) > 1 else ""))
