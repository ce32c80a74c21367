"""The page of `anomaly gallery`: the generative models side by side, in one HTML file that stands
alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from anomaly.files.atomic import whole_file
from anomaly.files.numbers import percent
from anomaly.files.progress import duration
from anomaly.imaging.captions import repeated
from anomaly.imaging.overlay import grid
from anomaly.imaging.pillow import Pixels
from anomaly.reporting.charts import Scale
from anomaly.reporting.drawings import Axes, Chart
from anomaly.reporting.figures import NONE as MISSING
from anomaly.reporting.galleries import View, data_uri
from anomaly.reporting.page import Term, templates
from anomaly.reporting.report import ROWS
from anomaly.version import __version__

SHOWN_SIDE = 96  # pixels a side of a picture at least: smaller ones are enlarged, pixel by pixel
MOST_DOTS = 600  # of a kind, in a chart
MOST_KINDS = 4  # of dots that are told apart


@dataclass(frozen=True)
class Family:
    """What kind of density a model has; ``equation`` is HTML, ``said`` one sentence or two."""

    density: str
    equation: str
    said: str


TRACTABLE, BOUND = "explicit, tractable", "explicit, approximate: a bound"
CONSTANT, IMPLICIT, NONE = "explicit, approximate: up to a constant", "implicit", "none"

# The tree of Goodfellow, "NIPS 2016 tutorial: Generative adversarial networks", section 2.
TREE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Explicit density", "tractable", (TRACTABLE,)),
    ("Explicit density", "approximate", (BOUND, CONSTANT)),
    ("Implicit density", "samples only", (IMPLICIT,)),
    ("No density", "reconstruction only", (NONE,)),
)

_RECONSTRUCTION = "min E ‖<i>x</i> &minus; <i>D</i>(<i>E</i>(<i>x</i>))‖²"
_AE = "Reconstructs what good images have in common, through a bottleneck. It has no p(x)."
_ELBO = (
    "log <i>p</i>(<i>x</i>) ≥ E<sub><i>q</i>(<i>z</i>|<i>x</i>)</sub> log <i>p</i>(<i>x</i>|"
    "<i>z</i>) &minus; KL(<i>q</i>(<i>z</i>|<i>x</i>) ‖ <i>p</i>(<i>z</i>))"
)
_VAE = "The ELBO: likelihood given the latents, minus the divergence of these from the prior."

FAMILIES: dict[str, Family] = {
    "linear": Family(
        TRACTABLE,
        "<i>p</i>(<i>x</i>) = N(<i>x</i>; μ, <i>U V U</i><sup>T</sup> + <i>s</i> 1)",
        "Principal components as a Gaussian of whole images, fitted in closed form.",
    ),
    "autoencoder": Family(NONE, _RECONSTRUCTION, _AE),
    "dense-autoencoder": Family(NONE, _RECONSTRUCTION, _AE),
    "vae": Family(BOUND, _ELBO, _VAE),
    "dense-vae": Family(BOUND, _ELBO, _VAE),
    "gan": Family(
        IMPLICIT,
        "min<sub><i>G</i></sub> max<sub><i>D</i></sub> E log <i>D</i>(<i>x</i>) + E log(1 &minus; "
        "<i>D</i>(<i>G</i>(<i>z</i>)))",
        "A generator draws images, a discriminator tells them from real ones. No likelihood.",
    ),
    "pixelcnn": Family(
        TRACTABLE,
        "<i>p</i>(<i>x</i>) = ∏<sub><i>i</i></sub> <i>p</i>(<i>x<sub>i</sub></i> | "
        "<i>x</i><sub>1</sub> … <i>x</i><sub><i>i</i>&minus;1</sub>)",
        "Each pixel given those before it, row by row.",
    ),
    "boltzmann": Family(
        CONSTANT,
        "<i>p</i>(<i>v</i>) = ∑<sub><i>h</i></sub> exp(&minus;<i>E</i>(<i>v</i>, <i>h</i>)) / "
        "<i>Z</i>",
        "An energy, low where good images lie; its samples come from a Markov chain.",
    ),
    "hmm": Family(
        TRACTABLE,
        "<i>p</i>(line) = ∑<sub><i>s</i></sub> ∏<sub><i>t</i></sub> <i>p</i>(<i>s<sub>t</sub></i> "
        "| <i>s</i><sub><i>t</i>&minus;1</sub>) <i>p</i>(patch<sub><i>t</i></sub> | "
        "<i>s<sub>t</sub></i>)",
        "Rows and columns as chains of hidden states: exact for a line, not for the whole image.",
    ),
    "flow": Family(
        TRACTABLE,
        "log <i>p</i>(<i>x</i>) = log N(<i>f</i>(<i>x</i>); 0, 1) + log |det ∂<i>f</i>/∂<i>x</i>|",
        "An invertible network maps images to Gaussian noise of the same size, and back.",
    ),
    "diffusion": Family(
        BOUND,
        "min E ‖<i>v</i> &minus; <i>v</i><sub>θ</sub>(cos <i>a</i> · <i>x</i> + sin <i>a</i> · ε, "
        "<i>a</i>)‖², <i>v</i> = cos <i>a</i> · ε &minus; sin <i>a</i> · <i>x</i>",
        "A network learns to tell an image from the noise added to it: a weighted bound on log "
        "p(x).",
    ),
}


@dataclass(frozen=True)
class Sheet:
    """Pictures of one kind on one sheet; ``rows`` says what each row is, from above."""

    picture: View
    rows: str = ""


@dataclass(frozen=True)
class Panel:
    """One view of a model: pictures, charts, and what is said of them."""

    heading: str
    said: str
    sheets: Sequence[Sheet] = ()
    charts: Sequence[Chart] = ()


@dataclass(frozen=True)
class Exhibit:
    """One model: figures for the table (``auroc`` None, and counts of 0, without labelled images),
    facts and panels. ``boxes``: of the flagged images with a mask, how many boxes meet it.
    """

    name: str
    seconds: float
    auroc: float | None
    found: tuple[int, int]
    false_alarms: tuple[int, int]
    boxes: tuple[int, int]
    facts: list[Term]
    panels: list[Panel]
    heatmaps: View
    warnings: Sequence[str] = ()

    @property
    def family(self) -> Family:
        return FAMILIES[self.name]

    @property
    def figures(self) -> list[str]:
        """The cells of its row in the table."""
        auroc = MISSING if self.auroc is None else f"{self.auroc:.3f}"
        counts = (self.found, self.false_alarms, self.boxes)
        return [duration(self.seconds), auroc, *map(_share, counts)]


@dataclass(frozen=True)
class ModelGallery:
    """What the page shows. ``shown``: the images that every model judges, ``captions`` theirs."""

    title: str
    facts: list[Term]
    shown: View
    captions: str
    exhibits: list[Exhibit]
    notes: Sequence[str] = ()


def write_model_gallery(path: Path, gallery: ModelGallery) -> None:
    """Writes the page; it appears whole or not at all. RuntimeMissing without Jinja2."""
    shown = {exhibit.name for exhibit in gallery.exhibits}
    page = templates().get_template("model_gallery.html")
    rendered = page.render(gallery=gallery, tree=_tree(shown), version=__version__, max_rows=ROWS)
    with whole_file(path) as file:
        file.write(rendered.encode())


def _tree(shown: set[str]) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Returns root -> branch -> (model, what its density is), of the models that are shown."""
    tree: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for root, branch, densities in TREE:
        leaves = [
            (name, family.density.partition(": ")[2])
            for name, family in FAMILIES.items()
            if family.density in densities and name in shown
        ]
        tree.setdefault(root, {})[branch] = leaves
    return tree


def _share(counts: tuple[int, int]) -> str:
    count, of = counts
    return f"{count:,} of {of:,} ({percent(count / of)})" if of else MISSING


def sheet(pictures: Sequence[Pixels], columns: int, what: str) -> View:
    """Returns pictures (h, w, 3) on one sheet, small ones enlarged pixel by pixel."""
    times = max(1, -(-SHOWN_SIDE // max(max(picture.shape[:2]) for picture in pictures)))
    laid = grid([repeated(picture, times) for picture in pictures], columns)
    return View(what, data_uri(laid, "webp"), laid.shape[1], laid.shape[0])


def scatter(
    title: str, names: tuple[str, str], dots: Mapping[str, tuple[ArrayLike, ArrayLike]]
) -> Chart:
    """Returns dots of up to four kinds, each (x, y), on two axes with ``names``."""
    kinds = {
        kind: [_thinned(np.asarray(values, np.float32)) for values in points]
        for kind, points in list(dots.items())[:MOST_KINDS]
    }
    axes = Axes(*(Scale.over(*(points[axis] for points in kinds.values())) for axis in (0, 1)))
    marks = [
        axes.point(x, y, f"point p{number}")
        for number, (xs, ys) in enumerate(kinds.values())
        for x, y in zip(xs.tolist(), ys.tolist(), strict=True)
    ]
    return Chart(
        title,
        *names,
        axes.x_ticks(axes.x.ticks()),
        axes.y_ticks(axes.y.ticks()),
        marks,
        keys=[(kind, _counted(len(np.asarray(dots[kind][0])))) for kind in kinds],
    )


def _counted(images: int) -> str:
    return f"{images:,} image{'s' * (images != 1)}"


def _thinned(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return values[:: -(-len(values) // MOST_DOTS)] if len(values) else values
