"""The pictures and charts of one model in `anomaly gallery`: learning curves, and what only its
kind has.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from anomaly.imaging.captions import repeated
from anomaly.imaging.pillow import Pixels
from anomaly.reporting.drawings import Chart, loss_charts
from anomaly.reporting.model_gallery import (
    MOST_KINDS,
    Panel,
    Sheet,
    scatter,
    sheet,
)
from anomaly.statistics.resampling import NORMAL
from training.describe import curves_of
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
SAMPLES = 16
FILTERS = 32  # of the Boltzmann machine that are shown: the strongest
COMPLETIONS = 3  # images of which PixelCNN completes the lower half
OTHERS = "others"  # labels that are shown together; a label of that name is one of them


def pictures(x: Tensor) -> list[Pixels]:
    """Returns maps of pixels (N, C, h, w) in 0..1 as pictures."""
    return list(to_picture(x).numpy())


def curves(history: list[dict[str, Any]], loss_name: str) -> Panel:
    charts = curve_charts(history, loss_name)
    said = (
        "By epoch, of training and held-out images; where the loss is a sum, also its terms, of "
        "held-out images."
        if charts
        else "One epoch, or fitted in closed form: there is no curve."
    )
    return Panel("Learning curves", said, charts=charts)


def seen(
    x: Tensor, expected: Tensor, heatmaps: Tensor, laid: Sequence[npt.NDArray[np.uint8]]
) -> Panel:
    """Returns images (k, C, h, w) above what the model expected, (k, C, h, w), above the heatmaps
    (k, h, w), plain and as they are laid over the images.
    """
    low, high = heatmaps.min(), heatmaps.max()
    plain = ((heatmaps - low) / (high - low).clamp(min=1e-12))[:, None]
    rows = [*pictures(x), *pictures(expected), *pictures(F.interpolate(plain, x.shape[2:]))]
    return Panel(
        "Images, reconstructions, heatmaps",
        "What the model expected to see, and where the image looks anomalous.",
        [
            Sheet(
                sheet([*(repeated(picture, 4) for picture in rows), *laid], len(laid), "seen"),
                "From above: the images; the expected images; the heatmaps from black to white, on "
                "one scale from the lowest to the highest value in these images; the same laid "
                "over the images, in the colours of the threshold.",
            )
        ],
    )


def drawn(model: Model) -> Panel:
    random = torch.Generator().manual_seed(0)
    samples = model.sample(torch.randn(SAMPLES, model.sample_size(), generator=random))
    said = f"{SAMPLES} images drawn from the model; none of them is real, and none was chosen."
    return Panel("Samples", said, [Sheet(sheet(pictures(samples), SAMPLES // 2, "samples"))])


def panels_of(model: Model, shown: Tensor, judged: Tensor, labels: Sequence[str]) -> list[Panel]:
    """Returns the panels that only this kind of model has.

    ``shown`` (k, C, h, w) in 0..1: the images that every model is shown, the good ones first;
    ``judged`` (n, C, h, w) in 0..1 with their ``labels`` (n): the dots of the charts.
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
        f"The latents of {len(judged):,} images, {codes.shape[1]} numbers each, on their first two "
        f"principal axes, which hold {100 * share:.0f} % of the variance."
    )
    return [Panel("Latent plane", said, charts=[chart])]


def rows_of(labels: Sequence[str]) -> dict[str, list[int]]:
    """Returns the numbers of the images by label, good ones first; of more than four labels the
    rarest are joined as "others".
    """
    rows: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        rows.setdefault(label, []).append(number)
    order = sorted(
        rows, key=lambda label: (label != NORMAL, label == OTHERS, -len(rows[label]), label)
    )
    kept = len(order) if len(order) <= MOST_KINDS else MOST_KINDS - 1
    found = {label: rows[label] for label in order[:kept]}
    rest = [number for label in order[kept:] for number in rows[label]]
    return found | ({OTHERS: rest} if rest else {})


def interpolation(model: Model, decode: Callable[[Tensor], Tensor], shown: Tensor) -> Panel:
    first, last = model.encode(shown[:2])
    steps = torch.linspace(0, 1, COLUMNS)[:, None]
    between = decode((1 - steps) * first + steps * last)
    crossed = (1 - steps[:, :, None, None]) * shown[0] + steps[:, :, None, None] * shown[1]
    return Panel(
        "From one image to another",
        "Above, images decoded from latents on the straight line between those of the first two "
        "images shown; below, these two images blended pixel by pixel.",
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
        "The two terms for each image, in nats per number of the image: the KL divergence of its "
        "latents from the prior, and the negative log-likelihood given them (mean over 16 draws). "
        f"The ELBO is minus their sum; medians: {said}.",
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
        f"The weights of the {len(chosen)} hidden units with the largest weights, each on its own "
        "scale: where the filter is bright, a bright pixel turns the unit on; where dark, off.",
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
        "Where an image is normal, its latent looks like noise of mean 0 (grey) and standard "
        "deviation 1; values from -3 to 3 are shown. The chart: mean square of the latent (1 under "
        "the model) and exact negative log-likelihood, in nats per number of the image.",
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
        "With little noise an image is restored as it was, with much noise as something normal. "
        f"The score is taken at {NOISED:g} of the way to pure noise.",
        [
            Sheet(
                sheet(pictures(torch.cat(rows)), len(shown), "noised and restored images"),
                "From above: the images; then noised 0.2, 0.4, 0.6 and 0.8 of the way, each above "
                "the image restored from it.",
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
        [Sheet(sheet(pictures(model.restored(rows)), COLUMNS, "steps of sampling"))],
    )


def curve_charts(history: Sequence[dict[str, Any]], loss_name: str) -> list[Chart]:
    """Returns a chart of the losses of each player, which has a scale of its own, and one of the
    terms of the held-out losses; none after a single epoch.
    """
    losses, terms = curves_of(history, loss_name)
    players = [
        {name: values for name, values in losses.items() if name.startswith(f"{player}: ")}
        for player in history[0]["loss"]
    ]
    return loss_charts(players, terms)
