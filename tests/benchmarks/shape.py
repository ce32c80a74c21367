"""The figures of the code's shape: python -m tests.benchmarks.shape [FOLDER ...]

Tokens as `tokenize` counts them, without comments, blank lines, indentation, docstring and
decorators; an f-string is one. A function inside another counts in both. ``self`` and ``cls`` are
no parameters.
"""

from __future__ import annotations

import ast
import io
import math
import statistics
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("anomaly", "training", "dashboard", "data")
NOT_COUNTED = {
    tokenize.NL,
    tokenize.COMMENT,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
LISTED = 15  # of the longest functions

Place = tuple[int, int]  # line from 1, column from 0


@dataclass(frozen=True)
class Function:
    """A function or method, and how large it is."""

    place: str
    tokens: int
    parameters: int


def source_files(folders: tuple[str, ...] = FOLDERS) -> list[Path]:
    """Returns the Python files of these folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def line_count(path: Path) -> int:
    """Returns how many lines a file has."""
    return len(path.read_text(encoding="utf-8").splitlines())


def functions_of(path: Path) -> Iterator[Function]:
    """Yields the functions and methods of a file."""
    source = path.read_text(encoding="utf-8")
    lines, places = source.splitlines(), token_places(source)

    def place(line: int, offset: int) -> Place:  # ast counts bytes, tokenize characters
        return line, len(lines[line - 1].encode()[:offset].decode())

    def within(node: ast.stmt) -> int:
        first = place(node.lineno, node.col_offset)
        # with the NEWLINE that ends its last statement
        last = place(node.end_lineno or 0, node.end_col_offset or 0)
        return sum(first <= at <= last for at in places)

    tree = ast.parse(source)
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    methods = {id(node) for one in classes for node in one.body}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            tokens = within(node)
            if ast.get_docstring(node, clean=False) is not None:
                tokens -= within(node.body[0])
            name = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
            yield Function(name, tokens, parameter_count(node.args, id(node) in methods))


def token_places(source: str) -> list[Place]:
    """Returns where each token that counts begins."""
    # before Python 3.12 an f-string is one token already
    start, end = (getattr(tokenize, f"FSTRING_{name}", None) for name in ("START", "END"))
    places, depth = [], 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if depth == 0 and token.type not in NOT_COUNTED:
            places.append(token.start)
        if start is not None:
            depth += (token.type == start) - (token.type == end)
    return places


def parameter_count(arguments: ast.arguments, method: bool) -> int:
    """Returns how many parameters a caller sees."""
    positional = [*arguments.posonlyargs, *arguments.args]
    own = method and positional[:1] and positional[0].arg in ("self", "cls")
    stars = [arguments.vararg, arguments.kwarg]
    return len(positional) + len(arguments.kwonlyargs) + len(stars) - stars.count(None) - bool(own)


def main() -> None:
    """Prints the figures."""
    files = source_files(tuple(sys.argv[1:]) or FOLDERS)
    found = sorted(
        (function for path in files for function in functions_of(path)), key=lambda f: -f.tokens
    )
    tokens = [function.tokens for function in found]
    p90 = sorted(tokens)[math.ceil(0.9 * len(tokens)) - 1]
    print(f"{len(files)} files, {len(found)} functions")
    print(f"tokens: median {statistics.median(tokens):g}, p90 {p90}, max {max(tokens)}")
    print(f"parameters: max {max(function.parameters for function in found)}")
    print(f"lines of a file: max {max(map(line_count, files))}")
    print("\nlongest functions")
    for function in found[:LISTED]:
        print(f"{function.tokens:6}  {function.place}")
    print("\nmost parameters")
    for function in sorted(found, key=lambda f: -f.parameters)[:LISTED]:
        print(f"{function.parameters:6}  {function.place}")
    print("\nlongest files")
    for path in sorted(files, key=line_count, reverse=True)[:LISTED]:
        print(f"{line_count(path):6}  {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
