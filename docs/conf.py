"""Sphinx builds the site from the pages of this folder: ``make docs``. Nothing is fetched: fonts,
scripts and formulas come with the site, so it can be read from a disk without a network.
"""

from __future__ import annotations

import sys
from pathlib import Path

from docutils.nodes import SkipNode, math, math_block
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from generated import insert, show  # noqa: E402

from anomaly import __version__  # noqa: E402

project = "anomaly"
copyright = "the authors of anomaly, Apache-2.0"
version = release = __version__
extensions = ["myst_parser"]
root_doc = "index"
source_suffix = {".md": "markdown", ".ipynb": "markdown"}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4  # anchors as GitHub makes them, so that links hold in both places
nitpicky = True
smartquotes = False  # two dashes are an option, not a long dash
html_theme = "furo"
html_title = f"anomaly {__version__}"
html_theme_options = {"top_of_page_buttons": []}
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"


def _math(translator: HTML5Translator, node: math | math_block, inline: bool) -> None:
    """Writes a formula as MathML, which browsers draw by themselves: MathJax is fetched."""
    text = node.astext()
    display = "inline" if inline else "block"
    written = latex2mathml.tex2mathml(text, as_block=not inline)
    translator.body.append(f'<span class="formula-{display}">{written}</span>')


def _inline(translator: HTML5Translator, node: math) -> None:
    _math(translator, node, True)
    raise SkipNode


def _block(translator: HTML5Translator, node: math_block) -> None:
    _math(translator, node, False)
    raise SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("source-read", show)
    app.connect("source-read", insert)
