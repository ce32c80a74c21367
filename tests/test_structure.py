"""The structure holds: packages import downwards only, and files and functions stay small."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.benchmarks.shape import ROOT, functions_of, line_count, source_files

# Each imports only those before it. `anomaly` itself: the public names.
PACKAGES = """
    anomaly.version anomaly.errors anomaly.training_options anomaly.files anomaly.imaging
    anomaly.statistics anomaly.detector anomaly.scorer anomaly.inputs anomaly.scoring
    anomaly.reporting anomaly.review anomaly.serve anomaly.station anomaly.plant anomaly.quality
    anomaly.learning anomaly.estimator anomaly anomaly.commands anomaly.__main__ training dashboard
""".split()
# the commands start both by name, and only when they run
ABOVE = {("anomaly.commands", "training"), ("anomaly.commands", "dashboard")}

MOST_LINES = 400
MOST_TOKENS = 400
MOST_PARAMETERS = 8


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in source_files(("anomaly", "training", "dashboard"))}


def imported(path: Path) -> set[str]:
    """Returns the modules of ours that a file imports anywhere: in functions and for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            for alias in node.names:  # a module of the package, or a name in it
                module = f"{node.module}.{alias.name}"
                found.add(module if module in MODULES else str(node.module))
    return found & set(MODULES)


PACKAGE_NAMES = {name for name, path in MODULES.items() if path.name == "__init__.py"}
GRAPH = {name: imported(path) for name, path in MODULES.items()}


def package_of(module: str) -> str:
    """Returns the package that a module lies in, as PACKAGES names it."""
    parts = module.split(".")
    return max(
        (".".join(parts[:length]) for length in (1, 2)), key=lambda name: (name in PACKAGES, name)
    )


def test_no_circle_of_imports():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_packages_import_downwards_only():
    upwards = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in others
        if PACKAGES.index(package_of(other)) > PACKAGES.index(package_of(module))
        and (package_of(module), package_of(other)) not in ABOVE
    ]
    assert upwards == []


def test_every_package_has_its_place():
    assert {package_of(module) for module in MODULES} == set(PACKAGES)


def test_the_guide_names_paths_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:anomaly|training|dashboard|data|tests)/[\w/.]*\w/?", text))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def mirrored(module: str) -> Path:
    """Returns the folder of a module's tests: that of its package, without ``anomaly``."""
    folder = MODULES[module].parent.relative_to(ROOT)
    return ROOT / "tests" / folder.relative_to("anomaly" if folder.parts[0] == "anomaly" else ".")


def test_every_module_is_reached_by_the_tests_of_its_package():
    """A test file has its name, or one in the mirrored folder imports it, or a module of the
    package that does.
    """
    named = {path.stem.removeprefix("test_") for path in (ROOT / "tests").rglob("test_*.py")}
    reached = {module for module in MODULES if module.rpartition(".")[2] in named}
    for folder in {mirrored(module) for module in MODULES}:
        own = {module for module in MODULES if mirrored(module) == folder}
        todo = set().union(*(imported(test) for test in folder.glob("test_*.py"))) & own
        while todo:
            reached |= todo
            todo = set().union(*(GRAPH[module] for module in todo)) & own - reached
    ran_by_streamlit = {module for module in MODULES if module.startswith("dashboard.")}
    others = ran_by_streamlit | PACKAGE_NAMES | {"anomaly.__main__"}
    assert sorted(set(MODULES) - reached - others) == []


FUNCTIONS = [function for path in source_files() for function in functions_of(path)]


def unnumbered(place: str) -> str:
    """Returns ``file function`` of a place, without the line."""
    file, _, name = place.partition(" ")
    return f"{file.partition(':')[0]} {name}"


def test_no_file_is_long():
    long = {str(path.relative_to(ROOT)) for path in source_files() if line_count(path) > MOST_LINES}
    assert long == set()


def test_no_function_is_long():
    long = {unnumbered(one.place) for one in FUNCTIONS if one.tokens > MOST_TOKENS}
    assert long == set()


def test_no_function_has_many_parameters():
    many = {unnumbered(one.place) for one in FUNCTIONS if one.parameters > MOST_PARAMETERS}
    assert many == set()
