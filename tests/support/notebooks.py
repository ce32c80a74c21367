"""Runs notebooks cell by cell, without Jupyter, and can keep what they show:

python -m tests.support.notebooks docs/notebooks/*.ipynb
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def run_notebook(path: Path, folder: Path) -> dict[str, Any]:
    """Returns a notebook with the outputs of its cells, run in order in ``folder``. Raises what a
    cell raises, with a note of which one.
    """
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    with contextlib.chdir(folder):
        for number, cell in enumerate(code, 1):
            try:
                cell["outputs"] = _outputs("".join(cell["source"]), names, number)
            except Exception as error:
                error.add_note(f"{path.name}, cell {cell['id']}")
                raise
            cell["execution_count"] = number
    return notebook


def _outputs(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Runs a cell and returns what it prints, and its last value where that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {number}", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        lines = text.splitlines(keepends=True)
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines})
    if value is not None:
        data: dict[str, Any] = {"text/plain": [repr(value).partition(" at 0x")[0]]}
        if hasattr(value, "_repr_png_"):  # a picture of Pillow
            data["image/png"] = base64.b64encode(value._repr_png_()).decode() + "\n"
        outputs.append(
            {
                "data": data,
                "execution_count": number,
                "metadata": {},
                "output_type": "execute_result",
            }
        )
    return outputs


def main() -> None:
    """Runs the notebooks that are named, each in a folder of its own, and writes their outputs."""
    for name in sys.argv[1:]:
        path = Path(name).absolute()
        with tempfile.TemporaryDirectory() as folder:
            notebook = run_notebook(path, Path(folder))
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        print(f"{path.name}: {os.path.getsize(path) / 1000:,.0f} kB")


if __name__ == "__main__":
    main()
