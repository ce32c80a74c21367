"""What `anomaly gallery` shows of one model besides its scores: what only its kind has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from anomaly.imaging.pillow import Pixels
from anomaly.reporting.drawings import Chart
from anomaly.reporting.model_gallery import Panel, Sheet, scatter, sheet
from training.export import to_picture
from training.models.autoencoder import ConvolutionalAutoencoder, LinearAutoencoder
from training.models.boltzmann import BoltzmannMachine
from training.models.diffusion import NOISED, SAMPLE_STEPS, Diffusion, angles, noised
from training.models.flow import Flow
from training.models.gan import PixelGAN
from training.models.hmm import HMM
from training.models.pixelcnn import PixelCNN
from training.models.vae import VAE
from training.protocols import Model

COLUMNS = 8  # pictures beside each other
FILTERS = 32  # of the Boltzmann machine that are shown: the strongest
COMPLETIONS = 3  # images of which PixelCNN completes the lower half


def pictures(x: Tensor) -> list[Pixels]:
    """Returns maps of pixels (N, C, h, w) in 0..1 as pictures."""
    return list(to_picture(x).numpy())


def panels_of(model: Model, shown: Tensor, judged: Tensor, labels: Sequence[str]) -> list[Panel]:
    """Returns what only this kind of model has to show.

    ``shown``: the images that every model judges, the good ones first, in 0..1; ``judged`` (n, C,
    h, w) with their ``labels``: those of the latent plane, all others.
    """
    found: list[Panel] = []
    decode = decoder_of(model)
    if decode is not None:
        found += latent_plane(model, judged, labels)
        found += [interpolation(model, decode, shown)] if len(shown) > 1 else []
    if isinstance(model, VAE):
        found.append(bound_of_each_image(model, judged, labels))
    if isinstance(model, PixelCNN):
        found.append(completed(model, shown))
    if isinstance(model, BoltzmannMachine):
        found.append(filters(model))
    if isinstance(model, HMM):
        found.append(states_along(model, shown))
    if isinstance(model, Flow):
        found.append(latents_of(model, shown, judged, labels))
    if isinstance(model, Diffusion):
        found += [noised_and_restored(model, shown), drawn_from_noise(model)]
    return found


def decoder_of(model: Model) -> Callable[[Tensor], Tensor] | None:
    """Returns what makes maps of a model's codes, None where nothing does."""
    if isinstance(model, VAE | ConvolutionalAutoencoder):
        return model.decode
    if isinstance(model, PixelGAN):
        return model.sample
    if isinstance(model, LinearAutoencoder):
        channels, height, width = model.shape
        return lambda code: model.as_map(code, (len(code), channels, height, width))
    return None


def latent_plane(model: Model, judged: Tensor, labels: Sequence[str]) -> list[Panel]:
    codes = torch.cat([model.encode(x) for x in judged.split(64)])
    if min(codes.shape) < 2:  # no plane
        return []
    centred = codes - codes.mean(0)
    _, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
    plane = (centred @ axes[:2].T).numpy()
    share = float((sizes[:2] ** 2).sum() / (sizes**2).sum())
    points = {kind: plane[rows].T for kind, rows in rows_of(labels).items()}
    chart = scatter(
        "Latent plane",
        ("first principal axis of the latents", "second"),
        {kind: (x, y) for kind, (x, y) in points.items()},
    )
    said = (
        f"The latents of {len(judged):,} images, {codes.shape[1]} numbers each, on the two axes "
        f"in which they vary most ({100 * share:.0f} % of all)."
    )
    return [Panel("Latent plane", said, charts=[chart])]


def rows_of(labels: Sequence[str]) -> dict[str, list[int]]:
    """Returns the images of each label, good ones first; those of many kinds together."""
    rows: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        rows.setdefault(label, []).append(number)
    order = sorted(rows, key=lambda label: (label != "good", -len(rows[label]), label))
    kept, rest = order[:3], order[3:]
    if len(order) == 4:
        kept, rest = order, []
    found = {label: rows[label] for label in kept}
    return found | ({"others": [n for label in rest for n in rows[label]]} if rest else {})


def interpolation(model: Model, decode: Callable[[Tensor], Tensor], shown: Tensor) -> Panel:
    first, last = model.encode(shown[:2])
    steps = torch.linspace(0, 1, COLUMNS)[:, None]
    between = decode((1 - steps) * first + steps * last)
    crossed = (1 - steps[:, :, None, None]) * shown[0] + steps[:, :, None, None] * shown[1]
    return Panel(
        "From one image to another",
        "What is drawn from the latents on the straight line between those of two good images; "
        "below, the two images faded into each other, pixel by pixel.",
        [Sheet(sheet([*pictures(between), *pictures(crossed)], COLUMNS, "interpolation"))],
    )


def bound_of_each_image(model: VAE, judged: Tensor, labels: Sequence[str]) -> Panel:
    found = [model.statistics(x) for x in judged.split(64)]
    kl, nll = (
        torch.cat([scores[name] for scores in found]).numpy() for name in ("kl", "reconstruction")
    )
    dots = {kind: (kl[rows], nll[rows]) for kind, rows in rows_of(labels).items()}
    bounds = {kind: -float(np.median(x + y)) for kind, (x, y) in dots.items()}
    said = "; ".join(f"{kind} {value:.3f}" for kind, value in bounds.items())
    return Panel(
        "ELBO of each image",
        "Each image's two terms, in nats for a number of the image: what its latents cost, and "
        "what is unlikely given them (mean over 16 draws). The ELBO is minus their sum; medians: "
        f"{said}.",
        charts=[
            scatter("ELBO of each image", ("KL(q(z|x) || p(z))", "-E log p(x|z)"), dots),
        ],
    )


def completed(model: PixelCNN, shown: Tensor) -> Panel:
    """Returns images whose lower half is drawn given the upper, pixel by pixel."""
    originals = shown[:COMPLETIONS]
    half = originals.shape[2] // 2
    drawn = complete(model, torch.cat([originals, originals]), half)
    known = originals.clone()
    known[:, :, half:] = 0.5
    rows = torch.cat([originals, known, drawn])
    return Panel(
        "Half an image completed",
        "The lower half is drawn from the model, pixel by pixel, given the upper half.",
        [
            Sheet(
                sheet(pictures(rows), len(originals), "completed images"),
                "From above: the image, what is given, two completions.",
            )
        ],
    )


def complete(model: PixelCNN, images: Tensor, row: int) -> Tensor:
    """Returns images (N, C, h, w) whose rows from ``row`` on are drawn given those above."""
    random = torch.Generator().manual_seed(0)
    return model.complete(
        images, row, torch.randn(len(images), model.sample_size(), generator=random)
    )


def filters(model: BoltzmannMachine) -> Panel:
    weights = model.weight.detach()
    strongest = weights.norm(dim=1).topk(min(FILTERS, len(weights))).indices
    chosen = weights[strongest].unflatten(1, model.shape)
    size = chosen.abs().amax((1, 2, 3), keepdim=True)
    return Panel(
        "Filters",
        f"The weights of the {len(chosen)} hidden units whose weights are largest, each on its own "
        "scale: bright pixels switch the unit on, dark ones off.",
        [Sheet(sheet(pictures(0.5 + 0.5 * chosen / size), COLUMNS, "filters"))],
    )


def states_along(model: HMM, shown: Tensor) -> Panel:
    """Returns the most likely state of each patch, given its row, as picture and as colour."""
    emission = model.log_emission(model.embed(shown))
    joint = emission + model.log_places()
    states = most_likely_paths(joint, model.starts[0], model.transitions[0])
    used = states.unique()
    means = model.to_map(model.centres[states])
    hues = torch.stack(
        [(math.pi * 2 * (states * step % 64) / 64).cos() for step in (11, 23, 37)], 1
    )
    colours = F.interpolate(0.5 + 0.45 * hues, scale_factor=float(model.patch))
    colours = colours[:, :, : shown.shape[2], : shown.shape[3]]
    rows = [*pictures(shown), *pictures(means), *pictures(colours)]
    return Panel(
        "States along an image",
        f"The most likely states of each row (Viterbi), {len(used)} of {len(model.centres)} in "
        "these images.",
        [
            Sheet(
                sheet(rows, len(shown), "states"),
                "From above: the images, the mean patch of each place's state, the states, a "
                "colour each.",
            )
        ],
    )


def most_likely_paths(joint: Tensor, start: Tensor, transition: Tensor) -> Tensor:
    """Returns the most likely states (N, h, w) of each row, by log p(patch, place | state) (N, h,
    w, K) (Viterbi; Rabiner, section III.B).
    """
    best, came_from = start.log() + joint[:, :, 0], []
    for step in range(1, joint.shape[2]):
        scores, came = (best[..., None] + transition.log()).max(2)
        best = scores + joint[:, :, step]
        came_from.append(came)
    path = [best.argmax(-1)]
    for came in reversed(came_from):
        path.append(came.gather(2, path[-1][..., None])[..., 0])
    return torch.stack(path[::-1], 2)


def latents_of(model: Flow, shown: Tensor, judged: Tensor, labels: Sequence[str]) -> Panel:
    codes = model.encode_map(shown)[0]
    found = [(model.encode_map(x)[0] ** 2).mean((1, 2, 3)) for x in judged.split(64)]
    likelihood = [model.negative_log_likelihood(x) for x in judged.split(64)]
    square, nll = (torch.cat(values).numpy() for values in (found, likelihood))
    dots = {kind: (square[rows], nll[rows]) for kind, rows in rows_of(labels).items()}
    return Panel(
        "Latent",
        "Where an image is as expected its latent is like noise of mean 0 (grey) and standard "
        "deviation 1; shown from -3 to 3. The chart: mean square of the latent (1 under the model) "
        "and exact negative log-likelihood, in nats for a number of the image.",
        [
            Sheet(
                sheet([*pictures(shown), *pictures(0.5 + codes / 6)], len(shown), "latents"),
                "Above the images, below their latents.",
            )
        ],
        [scatter("Latent and likelihood", ("mean of z squared", "-log p(x)"), dots)],
    )


def noised_and_restored(model: Diffusion, shown: Tensor) -> Panel:
    x, noise, rows = model.centred(shown), model.noises[0], [shown]
    for share in (0.2, 0.4, 0.6, 0.8):
        way = angles(share, 8)
        there = noised(x, way[0], noise)
        rows += [model.restored(there), model.restored(model.denoised(there, way))]
    return Panel(
        "Noised and restored",
        "What is noised a little comes back as it was; what is noised much comes back as something "
        f"normal. The score is taken at {NOISED:g} of the way.",
        [
            Sheet(
                sheet(pictures(torch.cat(rows)), len(shown), "noised and restored images"),
                "From above: the images; then noised 0.2, 0.4, 0.6 and 0.8 of the way, each above "
                "what is restored from it.",
            )
        ],
    )


def drawn_from_noise(model: Diffusion) -> Panel:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(3, *model.shape, generator=random)
    way, steps = angles(1, SAMPLE_STEPS), []
    stops = np.linspace(0, SAMPLE_STEPS, COLUMNS).round().astype(int).tolist()
    for first, last in itertools.pairwise(stops):
        steps.append(x)
        x = model.denoised(x, way[first : last + 1])
    steps.append(x)
    rows = torch.stack(steps, 1).flatten(0, 1)
    return Panel(
        "From noise to an image",
        f"Three samples on their way from pure noise, in {SAMPLE_STEPS} steps of DDIM.",
        [Sheet(sheet(pictures(model.restored(rows)), COLUMNS, "samples on their way"))],
    )


def loss_curves(history: Sequence[dict[str, dict[str, float]]]) -> dict[str, list[float]]:
    """Returns each term of the losses, of images that are learnt from and that are not, by name."""
    if len(history) < 2:
        return {}
    names = {"loss": "trained on", "held_out": "held out"}
    return {
        f"{term}, {said}": [row[kind][term] for row in history]
        for term in history[0]["loss"]
        for kind, said in names.items()
        if term in history[0][kind]
    }


def chunks(curves: dict[str, list[float]]) -> list[dict[str, list[float]]]:
    """Returns curves by term: each has a scale of its own."""
    terms = list(dict.fromkeys(name.partition(",")[0] for name in curves))
    return [
        {name: values for name, values in curves.items() if name.partition(",")[0] == term}
        for term in terms
    ]


def curve_charts(curves: dict[str, list[float]], draw: Callable[..., Chart | None]) -> list[Chart]:
    return [chart for some in chunks(curves) if (chart := draw(some, "Loss by epoch")) is not None]
