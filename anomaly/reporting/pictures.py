"""What stands above pictures of a model: samples, and images beside what was expected."""

from __future__ import annotations

from collections.abc import Sequence

from anomaly.detector.card import Card
from anomaly.scorer import Result
from anomaly.version import __version__

FITTED = "latents from a Gaussian fitted to those of the good images, not from the prior"
STANDARD = "latents from the standard normal prior, where the decoder may never have been"
DRAWN = {
    "vae": FITTED,
    "dense-vae": FITTED,
    "gan": "latents from the standard normal prior",
    "diffusion": "from pure noise, in 50 steps",
    "pixelcnn": "one location after the other, each given those before it",
    "boltzmann": "200 steps of Gibbs sampling on from the last state of training, shown as means",
}
POOR = ("mode collapse", "poor samples")  # how warnings of training begin that samples show


def model_text(card: Card) -> str:
    """Returns which model it is, and when it was trained."""
    made = (card.training.created or "")[:10]
    trained = f", trained {made}" if made else ""
    return f"{card.name}: {card.model} of {card.space}, version {card.version}{trained}"


def sample_lines(card: Card, count: int, seed: int, prior: str | None = None) -> list[str]:
    """Returns the caption of samples: model, how they were drawn, and what is wrong with them."""
    how = STANDARD if prior == "standard" else DRAWN.get(card.model, "")
    what = f"{count} images drawn from the model (seed {seed}), none of them is real"
    poor = [line for line in card.training.warnings or () if line.startswith(POOR)]
    return [model_text(card), f"{what}: {how}" if how else what, *poor]


def picture_facts(card: Card, lines: Sequence[str]) -> dict[str, str]:
    """Returns what the file of a picture says of itself: its caption, detector and program."""
    software = f"anomaly {__version__}"
    return {"Description": "\n".join(lines), "Source": card.identity, "Software": software}


def row_text(name: str, result: Result) -> str:
    """Returns what stands above one image of several: its name, score and result."""
    said = [] if result.score is None else [f"score {result.score:.4g}"]
    if result.result is not None:
        said.append(result.result)
    return f"{name}   {', '.join(said)}"


def reconstruction_lines(card: Card) -> list[str]:
    """Returns the caption of images beside what the model expected."""
    return [
        model_text(card),
        "each row: the image, what the model expected to see, and the image with its heatmap",
    ]
