"""The reference pages that the program knows better than we do: the command line from its parser,
HTTP from the service's OpenAPI description.

A page names what it wants in a comment, ``<!-- generated: command_line -->``, and the text takes
its place while the site is built.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

from sphinx.application import Sphinx

from anomaly.commands.main import parser

WANTED = re.compile(r"<!-- generated: (\w+) -->")


def insert(app: Sphinx, page: str, content: list[str]) -> None:
    """Puts the generated texts into a page that Sphinx has read; KeyError for an unknown one."""
    content[0] = WANTED.sub(lambda found: TEXTS[found[1]](), content[0])


def show(app: Sphinx, page: str, content: list[str]) -> None:
    """Makes a page of a notebook that Sphinx has read: code, what it printed, its pictures."""
    if page.startswith("notebooks/") and content[0].startswith("{"):
        cells = json.loads(content[0])["cells"]
        name = page.rpartition("/")[2]
        download = f"{{download}}`The notebook itself <{name}.ipynb>`"
        content[0] = "\n\n".join([*(part for cell in cells for part in _cell(cell)), download])


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        if "text" in output:
            yield f"```text\n{''.join(output['text'])}```"
        elif "image/png" in output["data"]:
            picture = output["data"]["image/png"].strip()
            yield f"![What the cell shows](data:image/png;base64,{picture})"


def commands(of: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yields every command with its parser, the commands of a command after it."""
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield one.prog, one
                yield from commands(one)


def command_line() -> str:
    """Returns a section for each command: what it does, how it is called, its options."""
    return "\n".join(_command(name, of) for name, of in commands(parser()))


def _command(name: str, of: argparse.ArgumentParser) -> str:
    said = [f"## {name}\n", f"{_plain(of.description or '')}\n"]
    if of.epilog:
        said.append(f"```console\n$ {of.epilog.removeprefix('example:').strip()}\n```\n")
    rows = [_option(action) for action in of._actions if action.help != argparse.SUPPRESS]
    rows = [row for row in rows if row]
    return "\n".join([*said, "| argument | meaning |", "|---|---|", *rows, ""])


# what needs no word beside the command it stands in
UNSAID = {
    "RUN": "run folder or detector file",
    "OLD": "run folder or detector file",
    "NEW": "run folder or detector file",
    "--device": "where it computes; auto: on the GPU where there is one",
    "--json": "print the answer as JSON",
    "--out": "what to write",
    "--port": "port to listen on",
    "--seed": "the same seed gives the same answer",
}


def _option(action: argparse.Action) -> str:
    """Returns a row of the table of options; nothing for -h and for the list of commands."""
    if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
        return ""
    shown = action.metavar or action.dest.upper()
    shown = " ".join(shown) if isinstance(shown, tuple) else shown
    if action.choices:
        shown = ", ".join(map(str, action.choices))
    value = f" {shown}" if action.option_strings and action.nargs != 0 else ""
    names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    needed = " (required)" if action.option_strings and action.required else ""
    text = (action.help or "") % {**vars(action), "prog": ""} or UNSAID.get(names, "")
    return f"| `{names}{value}`{needed} | {_plain(text)} |"


def http() -> str:
    """Returns a section for each route of the service, from its OpenAPI description."""
    from anomaly.serve.app import build_app  # FastAPI is heavy, and an extra

    described = build_app(cast(Any, None)).openapi()  # which asks for the routes alone
    return "\n".join(
        _route(method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    )


def _route(method: str, path: str, operation: dict[str, Any]) -> str:
    said = [f"## {method.upper()} {path}\n", _plain(operation.get("description", "")) + "\n"]
    rows = [
        f"| `{one['name']}` | {one['in']} | {_plain(one.get('description', ''))} |"
        for one in operation.get("parameters", [])
    ]
    if rows:
        said += ["| parameter | in | meaning |", "|---|---|---|", *rows, ""]
    answers = [
        f"| {status} | {_plain(answer['description'])} |"
        for status, answer in operation["responses"].items()
    ]
    return "\n".join([*said, "| status | meaning |", "|---|---|", *answers, ""])


def _plain(text: str) -> str:
    """Returns a text on one line in which Markdown sees no mark-up."""
    return re.sub(r"([|<>*_\[\]$])", r"\\\1", " ".join(text.split()))


TEXTS: dict[str, Callable[[], str]] = {"command_line": command_line, "http": http}
