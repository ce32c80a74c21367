"""The pages: the site builds without a warning, a dead link or anything fetched, and every command
on a page is one that the program takes.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import json
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from anomaly import read_card
from anomaly.commands.main import parser

PARSER = parser()
ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# research/ holds dated notes: their commands are those of their day
PAGES = sorted(
    path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md"))
    if "research" not in path.parts
)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
LINK = re.compile(r"(?<!`)\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]+)?\)")


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Runs Sphinx as `make docs` does."""
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", DOCS, source, out]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    done = build(DOCS, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    fetched = re.compile(r"""(?:\ssrc=|<link [^>]*href=)["'](?:https?:)?//[^"']*""")
    found = {
        str(page.relative_to(tmp_path)): fetched.findall(page.read_text(encoding="utf-8"))
        for page in pages
    }
    assert {page: links for page, links in found.items() if links} == {}


def test_a_dead_link_and_a_page_out_of_the_navigation_are_errors(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text("# Top\n\n[a](none.md) [b](lost.md#no-such) [c](#none)\n")
    (tmp_path / "lost.md").write_text("# Lost\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode == 1
    for said in ("none.md", "no-such", "'none'", "toctree"):
        assert said in done.stderr


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "data/README.md"])
def test_links_of_the_pages_outside_the_site_lead_somewhere(name: str) -> None:
    page = ROOT / name
    dead = [
        f"{path}{anchor}"
        for path, anchor in LINK.findall(page.read_text(encoding="utf-8"))
        if not leads_somewhere((page.parent / path) if path else page, anchor)
    ]
    assert dead == []


def leads_somewhere(target: Path, anchor: str) -> bool:
    if not target.exists():
        return False
    if not anchor:
        return True
    headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
    return anchor[1:] in {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
    }


# --- commands ---
def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yields the language and text of each block of code: fenced, or indented by four."""
    fences = re.compile(r"^(`{3,})(\{?[\w-]*\}?)[^\n]*\n(.*?)^\1$", re.M | re.S)
    for _, language, body in fences.findall(text):
        yield language, body
    for body in re.findall(r"(?:(?<=\n\n)|\A)((?: {4}\S.*\n|\n(?= {4}))+)", fences.sub("", text)):
        yield "", re.sub(r"^ {4}", "", body, flags=re.M)


def typed(language: str, body: str) -> Iterator[str]:
    """Yields what a reader would type of a block: in `console` blocks the lines after a prompt, the
    rest is output; in others without a language the lines that begin with a command.
    """
    body = body.replace("\\\n", " ")
    for line in body.splitlines():
        if language in ("console", ""):
            prompted = re.match(r"(\$|>) (.*)", line)
            if prompted or (not language and COMMAND.match(line)):
                yield prompted[2] if prompted else line


COMMAND = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:time )?(anomaly|python3?|make|pytest|pip|docker|apt|npm|curl|openssl|cp|"
    r"systemctl) (?=[-\w./'$~{]|\[)"
)


def commands(line: str) -> Iterator[list[str]]:
    """Yields the words of each command on a line, without comments and what stands in columns."""
    line = re.sub(r"\$\(\(.*?\)\)|\$\([^)]*\)", "1", re.split(r"\s#\s| {3,}", line)[0])
    line = re.sub(r"\s\d?>\s*\S+", "", line)  # where output goes
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in ("|", "||", "&", "&&", ";"):
            if words:
                yield words
            words = []
        elif words or not re.fullmatch(r"[A-Z_]+=.*|time|sudo", word):
            words.append(word)


def wrong(words: list[str]) -> str | None:
    """Returns what is wrong with a command, or None."""
    program, *rest = words
    if program == "anomaly":
        return None if "..." in rest else refused(rest)
    if program in ("python", "python3") and rest[:1] == ["-m"]:
        return wrong_module(rest[1], rest[2:])
    if program == "make":
        return next((f"no target {w}" for w in rest if "=" not in w and w not in TARGETS), None)
    if program == "pytest":
        return next((f"no file {w}" for w in rest if "/" in w and not (ROOT / w).exists()), None)
    if program == "pip":
        named = {e for w in rest for g in re.findall(r"\[([\w,-]+)\]", w) for e in g.split(",")}
        return next((f"no extra {e}" for e in sorted(named - EXTRAS.keys())), None)
    return None


def refused(arguments: list[str]) -> str | None:
    """Returns what the real parser says of arguments that it does not take."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            PARSER.parse_args(arguments)
    except SystemExit as end:
        return said.getvalue().splitlines()[-1] if end.code else None
    return None


def wrong_module(name: str, rest: list[str]) -> str | None:
    """Returns which module is not there, or which of its options its source does not name."""
    if name.split(".")[0] not in ("tests", "training", "data"):
        return None
    if importlib.util.find_spec(name) is None:
        return f"no module {name}"
    found = importlib.util.find_spec(name)
    assert found is not None and found.origin is not None
    source = Path(found.origin).read_text(encoding="utf-8")
    options = [word.split("=")[0] for word in rest if word.startswith("--")]
    return next((f"no option {o}" for o in options if o.removeprefix("--") not in source), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_taken(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = {
        line: said
        for language, body in blocks(text)
        for line in typed(language, body)
        for words in commands(line)
        if (said := wrong(words))
    }
    assert found == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_that_a_text_names_exists(page: Path) -> None:
    """In the running text, `anomaly COMMAND --option` has no arguments that could be parsed."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = []
    for code in re.findall(r"`(anomaly [^`]+)`", text):
        helped = help_of(code.split()[1:])
        options = re.findall(r"(?<=\s)--[\w-]+", code)
        found += [f"{code}: {option}" for option in options if option not in helped]
    for code in re.findall(r"`((?:python -m|make|pytest|pip) [^`]+)`", text):
        found += [f"{code}: {said}" for words in commands(code) if (said := wrong(words))]
    assert found == []


def help_of(words: list[str]) -> str:
    """Returns the help of a command; that of all commands where the word is a placeholder."""
    named = [word for word in words if re.fullmatch(r"[a-z]+", word)][:2]
    said = io.StringIO()
    for count in (2, 1, 0):
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.suppress(SystemExit),
        ):
            PARSER.parse_args([*named[:count], "--help"])
    return said.getvalue() + " --help --version"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_of_a_page_is_valid(page: Path) -> None:
    for language, body in blocks(page.read_text(encoding="utf-8")):
        if language == "python":
            compile(body, str(page), "exec")
        if language == "toml":
            tomllib.loads(body)


def strings(path: Path) -> Iterator[str]:
    """Yields the texts of a source, with ... for what is put into them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(getattr(part, "value", "...")) for part in node.values)


def test_messages_of_the_page_for_troubles_are_those_of_the_program() -> None:
    sources = [path for folder in ("anomaly", "training") for path in (ROOT / folder).rglob("*.py")]
    said = "\n".join(text for path in sources for text in strings(path))
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    named = re.findall(r"^### `(.*)`$", page, re.M)
    assert len(named) > 15
    assert [m for m in named if any(part.strip() not in said for part in m.split("..."))] == []


def test_the_schema_is_that_of_the_cards_that_are_written(run: Path, rank_only: Path) -> None:
    written = json.loads((DOCS / "reference/card.schema.json").read_text(encoding="utf-8"))
    made = runpy.run_path(str(DOCS / "card_schema.py"))["schema"]()
    assert written == made, "run  python docs/card_schema.py"
    check = jsonschema.Draft202012Validator(written)
    for detector in (run, rank_only):
        card = json.loads(json.dumps(read_card(detector).to_json()))
        assert [error.message for error in check.iter_errors(card)] == []
        for damaged in ({**card, "format": 2}, {**card, "training": {"seed": "1"}}):
            assert not check.is_valid(damaged)


@pytest.mark.parametrize("name", ["README.md", "docs/embed.md"])
def test_python_on_the_pages_runs(
    name: str, run: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").symlink_to(run)
    (tmp_path / "part.png").write_bytes(next((parts / "test/good").glob("*.png")).read_bytes())
    monkeypatch.chdir(tmp_path)
    ran = [
        exec(compile(body, name, "exec"), {"pixels": np.zeros((1, 64, 64, 3), np.uint8)})
        for language, body in blocks((ROOT / name).read_text(encoding="utf-8"))
        if language == "python"
    ]
    assert ran
