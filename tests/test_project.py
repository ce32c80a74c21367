"""The project holds together: one version, lean imports, what is shipped and tracked, a test file
for each source.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import anomaly
from tests.support.order import BEGUN_FIRST

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
SOURCES = sorted(
    path
    for folder in ("anomaly", "training", "dashboard")
    for path in (ROOT / folder).rglob("*.py")
)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_versions() -> dict[str, str]:
    lines = (ROOT / "requirements/lock.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonical(name): version for name, version in pins}


def tracked_files() -> list[Path]:
    """Returns the files under version control, or skips the test where this is no checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_one_version_everywhere():
    newest = re.search(
        r"^## \[(\d+\.\d+\.\d+)\]",
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert newest is not None
    assert [PROJECT["version"], newest[1], anomaly.__version__] == [anomaly.__version__] * 3


def imported_by(code: str) -> set[str]:
    """Returns the top-level modules that a fresh process has imported after ``code``."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(ran.stdout.splitlines()[-1].split())


def third_party(modules: set[str]) -> set[str]:
    """Returns those of ``modules`` that some installed distribution other than our own brings."""
    brought = importlib.metadata.packages_distributions()
    return {name for name in modules if name in brought and set(brought[name]) != {"anomaly"}}


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import anomaly", set()),
        ("from anomaly import Detector", set()),
        ("from anomaly import Scorer, read_card", {"numpy", "PIL", "onnxruntime"}),
        ("import anomaly.commands.main; anomaly.commands.main.parser()", set()),
    ],
)
def test_importing_is_lean(code, allowed):
    # what the interpreter itself loads, such as the hooks of a development install
    at_start = imported_by("pass")
    assert third_party(imported_by(code) - at_start) <= allowed


def imports_of(path: Path) -> set[str]:
    """Returns the top-level names that a file imports anywhere, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("anomaly", {"torch", "torchvision", "streamlit", "dashboard", "tests"}),
        ("training", {"streamlit", "dashboard", "tests"}),
        ("dashboard", {"torch", "training", "tests"}),
    ],
)
def test_each_package_keeps_to_its_side(folder, forbidden):
    crossing = {
        str(path.relative_to(ROOT)): imports_of(path) & forbidden
        for path in SOURCES
        if path.is_relative_to(ROOT / folder)
    }
    crossing["anomaly/commands/review.py"] = crossing.get("anomaly/commands/review.py", set()) - {
        "dashboard"
    }  # the command that starts it
    assert {path: names for path, names in crossing.items() if names} == {}


def test_every_extra_that_a_message_names_exists():
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    in_calls = re.findall(r"RuntimeMissing\.extra\(\s*[^,]+,\s*\"([\w-]+)\"", text)
    in_texts = re.findall(r"anomaly\[([\w,-]+)\]", text)
    named = {extra for match in (*in_calls, *in_texts) for extra in match.split(",")}
    assert in_calls
    assert named <= set(EXTRAS)


def test_no_extra_brings_both_builds_of_onnx_runtime():
    """They overwrite each other's files, so only `cpu` and `gpu` name them."""
    naming = {
        extra
        for extra, needs in EXTRAS.items()
        if any(need.startswith("onnxruntime") for need in needs)
    }
    assert naming == {"cpu", "gpu"}


def brought_by(need: str) -> set[str]:
    """Returns the names of what a requirement installs, as far as it is installed here."""
    name, extras = re.match(r"([\w.-]+)(?:\[(.*?)\])?", need).groups()
    found = {canonical(name)}
    for line in importlib.metadata.requires(name) or []:
        wanted, _, marker = line.partition(";")
        if not marker or any(
            f'extra == "{extra}"' in marker.replace("'", '"')
            for extra in (extras or "").split(",")
            if extra
        ):
            found |= brought_by(wanted.strip())
    return found


def test_scoring_installs_at_most_eight_packages():
    if "onnxruntime" not in {canonical(found.name) for found in importlib.metadata.distributions()}:
        pytest.skip("ONNX Runtime for the GPU is installed here, which brings CUDA")
    assert len(brought_by("anomaly[cpu]")) <= 8


def test_files_that_are_said_to_take_longest_are_there():
    assert [name for name in BEGUN_FIRST if not (ROOT / "tests" / name).is_file()] == []
    assert len(set(BEGUN_FIRST)) == len(BEGUN_FIRST)


def test_the_lock_pins_every_dependency():
    needs = [need for needs in (PROJECT["dependencies"], *EXTRAS.values()) for need in needs]
    names = {canonical(re.match(r"[\w.-]+", need)[0]) for need in needs} - {"anomaly"}
    assert names - set(locked_versions()) == set()


def test_held_versions_are_locked():
    held = [
        line
        for line in (ROOT / "requirements/held.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    ]
    assert set(held) <= set(
        (ROOT / "requirements/lock.txt").read_text(encoding="utf-8").splitlines()
    )


@pytest.mark.skipif(
    Path(sys.prefix) != ROOT / ".venv", reason="these tests do not run in the Makefile's .venv"
)
def test_what_is_installed_is_locked():
    """But for pip itself and what CUDA builds bring, which torch pins."""
    installed = {
        canonical(found.name): found.version.partition("+")[0]
        for found in importlib.metadata.distributions()
    }
    free = re.compile(r"anomaly|pip|triton|(nvidia|cuda)-.*")
    differing = {
        name: version
        for name, version in installed.items()
        if locked_versions().get(name) != version
    }
    assert {name: version for name, version in differing.items() if not free.fullmatch(name)} == {}


def test_the_wheel_holds_the_three_packages_and_nothing_else(tmp_path):
    pytest.importorskip("hatchling")
    offline = "-m pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir".split()
    subprocess.run(
        [sys.executable, *offline, tmp_path, ROOT], check=True, capture_output=True, text=True
    )
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
        entry_points = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        assert wheel.read(entry_points).decode().split() == [
            "[console_scripts]",
            "anomaly",
            "=",
            "anomaly.__main__:run",
        ]
    assert {name.partition("/")[0] for name in shipped} <= {"anomaly", "training", "dashboard"}
    pages = {path for path in (ROOT / "anomaly/reporting/templates").rglob("*") if path.is_file()}
    assert {path.suffix for path in pages} == {".html", ".css"}
    experiments = {path for path in SOURCES if path.is_relative_to(ROOT / "training/experiments")}
    wanted = {str(path.relative_to(ROOT)) for path in {*SOURCES, *pages} - experiments}
    assert experiments and wanted <= shipped
    assert not {name for name in shipped if name.startswith("training/experiments")}
    assert "anomaly/py.typed" in shipped


def test_no_tracked_file_is_large():
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in tracked_files()}
    assert {str(path): size for path, size in sizes.items() if size > 2**20} == {}


def test_no_image_set_is_tracked():
    """Two of the licences forbid it, and the pictures of the pages are few."""
    suffixes = {
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".tif",
        ".tiff",
        ".webp",
        ".onnx",
        ".safetensors",
        ".npy",
        ".npz",
    }
    images = [path.relative_to(ROOT) for path in tracked_files() if path.suffix.lower() in suffixes]
    assert {str(path) for path in images if path.parts[0] != "docs"} == set()
    assert len(images) <= 20
