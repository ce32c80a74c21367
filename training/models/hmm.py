"""Hidden Markov model: rows and columns are read patch by patch; what the patches before did not
announce is anomalous.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from training.folds import seeded_subset
from training.models.base import GenerativeModel
from training.pixels import to_unit

STATES = 64
PATCH = 4  # pixels a side; of other maps every cell is a patch
MAX_CELLS = 150_000  # that the fit uses: its cost grows with their number
ITERATIONS = 30  # of expectation and maximisation at most
GAIN = 1e-4  # relative, of the objective, below which they end
# least variance of a state, as a share of that of all patches: or one state could shrink to one
# patch
FLOOR = 0.1
# the same of pixels, besides, of the mean over directions: or flat patches alone would decide by
# grey levels
GREY = 1.0
# of each start, transition and place that is taken for seen before any image is: nothing is
# impossible
COUNT = 0.1


class HMM(GenerativeModel):
    """A hidden state steps along a line of patches; each state emits embeddings from a Gaussian
    with diagonal covariance.

    Rabiner, "A tutorial on hidden Markov models" (Proc. IEEE 1989). The embedding is the patch
    itself, turned to the principal axes of all patches, so that a diagonal covariance is fair and
    densities stay those of the map. Each state emits the place of the patch as well, so that it
    knows what belongs where. Rows and columns have chains of their own and share the states; each
    line is read in both directions, the second by the exact reversal of the first.
    """

    closed_form: ClassVar[bool] = True
    likelihood: ClassVar[bool] = True
    can_sample: ClassVar[bool] = True

    mean: Tensor
    axes: Tensor
    centres: Tensor
    variances: Tensor
    places: Tensor
    starts: Tensor
    transitions: Tensor
    first: Tensor
    steps: Tensor
    row_marginals: Tensor
    column_marginals: Tensor

    def __init__(self, channels: int, height: int, width: int, pixels: bool) -> None:
        super().__init__(pixels)
        self.patch = PATCH if pixels else 1
        self.size = (height, width)
        self.grid = (math.ceil(height / self.patch), math.ceil(width / self.patch))
        wide = channels * self.patch**2
        self.register_buffer("mean", torch.zeros(wide))
        self.register_buffer("axes", torch.eye(wide))  # rows: orthonormal
        self.register_buffer("centres", torch.zeros(STATES, wide))
        self.register_buffer("variances", torch.ones(STATES, wide))
        # P(place | state)
        self.register_buffer("places", torch.full((STATES, *self.grid), 1 / math.prod(self.grid)))
        self.register_buffer("starts", torch.full((2, STATES), 1 / STATES))  # of rows, of columns
        self.register_buffer("transitions", torch.full((2, STATES, STATES), 1 / STATES))  # from, to
        # What follows from these, for the four readings.
        self.register_buffer("first", torch.full((4, STATES), 1 / STATES))
        self.register_buffer(
            "steps", torch.full((max(self.grid) - 1, 4, STATES, STATES), 1 / STATES)
        )
        self.register_buffer("row_marginals", torch.full((self.grid[1], STATES), 1 / STATES))
        self.register_buffer("column_marginals", torch.full((self.grid[0], STATES), 1 / STATES))

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        """Returns the negative log-likelihood of each map in nats per number, mean over the four
        readings, (N,).
        """
        return self(x)[0].sum((1, 2)) / x[0].numel()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the heatmap (N, h, w) in nats, higher = more anomalous, and the reconstruction
        (N, C, h, w).

        A patch's value is -log p(patch | patches before it in the line), mean over the four
        readings; its locations share it. The reconstruction is the mean of the patch given all
        others of its row, and of its column, averaged.
        """
        emission, places = self.log_emission(self.embed(x)), self.log_places()
        surprise, expected = read(
            self.readings(emission), self.readings(places[None]), self.first, self.steps
        )
        nats = torch.stack(self.put_back(surprise[..., None])).mean(0)[..., 0]  # (N, h, w)
        heatmap = F.interpolate(nats[:, None], scale_factor=float(self.patch))[:, 0] / self.patch**2
        left, above, right, below = self.put_back(expected)
        # p(state | all others) = p(state | before) p(state | after) / p(state), each given the
        # places that were seen.
        row = torch.softmax(left + right - self.row_marginals.log() - places, -1)
        column = torch.softmax(above + below - self.column_marginals.log()[:, None] - places, -1)
        return heatmap[:, : self.size[0], : self.size[1]], self.to_map(
            0.5 * (row + column) @ self.centres
        )

    @torch.no_grad()
    def fit_maps(self, maps: Tensor) -> None:
        """Fits states and chains to maps (n, C, h, w) by the Baum-Welch algorithm, in float64 and
        always the same.
        """
        most = max(2, MAX_CELLS // math.prod(self.grid))
        if len(maps) > most:
            maps = maps[seeded_subset(len(maps), most)]
        self.double()
        x = to_unit(maps.to(self.mean.device), self.mean.dtype)
        self.turn(x)
        o = self.embed(x)
        floor = self.initialise(o)
        last = -math.inf
        for _ in range(ITERATIONS):
            objective = self.improve(o, floor)
            if objective - last < GAIN * abs(objective):
                break
            last = objective
        self.set_readings()
        self.float()

    def sample(self, noise: Tensor) -> Tensor:
        """Returns maps (N, C, h, w) from standard normal noise (N, h w (1 + D)): each row is drawn
        for itself.
        """
        h, w = self.grid
        numbers = noise.unflatten(1, (h, w, -1))
        uniform = torch.special.ndtr(numbers[..., :1])  # (N, h, w, 1)
        # Forward over the places alone, then states from the last to the first: exact draws, given
        # where they stand.
        places = self.places.permute(1, 2, 0)
        filtered = [self.starts[0] * places[:, 0]]  # of (h, K)
        for column in range(1, w):
            filtered.append(normed(filtered[-1]) @ self.transitions[0] * places[:, column])
        weights, states = filtered[-1].expand(len(noise), -1, -1), []
        for column in range(w - 1, -1, -1):
            # The comparison leaves out the last state's 1.0: rounding must not lead beyond it.
            # (N, h)
            states.append((normed(weights).cumsum(-1)[..., :-1] < uniform[:, :, column]).sum(-1))
            weights = filtered[column - 1] * self.transitions[0].T[states[-1]]
        state = torch.stack(states[::-1], 2)
        return self.to_map(self.centres[state] + self.variances[state].sqrt() * numbers[..., 1:])

    def sample_size(self) -> int:
        return math.prod(self.grid) * (1 + len(self.mean))

    # --- four readings: rows from left, columns from above, rows from right, columns from below ---
    def readings(self, x: Tensor) -> Tensor:
        """Returns x (N, h, w, K) as four stacks of lines, (4, N, S, S, K), S the longer side; zeros
        fill up the shorter.
        """
        long, (h, w) = max(self.grid), self.grid
        rows = F.pad(torch.stack([x, x.flip(2)]), (0, 0, 0, long - w, 0, long - h))
        columns = F.pad(
            torch.stack([x, x.flip(1)]).transpose(2, 3), (0, 0, 0, long - h, 0, long - w)
        )
        return torch.stack([rows[0], columns[0], rows[1], columns[1]])

    def put_back(self, lines: Tensor) -> list[Tensor]:
        """Returns of each reading (4, N, S, S, K) what belongs to each place, four of (N, h,
        w, K).
        """
        h, w = self.grid
        rows, columns = lines[::2, :, :h, :w], lines[1::2, :, :w, :h].transpose(2, 3)
        return [rows[0], columns[0], rows[1].flip(2), columns[1].flip(1)]

    def set_readings(self) -> None:
        """Sets for each reading what it starts with and its steps, from the two chains."""
        for axis, length in enumerate((self.grid[1], self.grid[0])):
            marginals, back = reverse(self.starts[axis], self.transitions[axis], length)
            (self.row_marginals, self.column_marginals)[axis].copy_(marginals)
            self.first[axis], self.first[axis + 2] = marginals[0], marginals[-1]
            self.steps[:, axis] = self.transitions[axis]
            self.steps[: length - 1, axis + 2] = back

    # --- patches ----------------------------------------------------------------------------------
    def embed(self, x: Tensor) -> Tensor:
        """Returns the embedding of each patch, (N, h, w, D), from maps (N, C, h, w); edges are
        repeated to whole patches.
        """
        return (self.patches(x) - self.mean) @ self.axes.T

    def patches(self, x: Tensor) -> Tensor:
        over = [self.patch * cells - side for cells, side in zip(self.grid, self.size, strict=True)]
        x = F.pad(x, (0, over[1], 0, over[0]), mode="replicate") if any(over) else x
        return F.pixel_unshuffle(x, self.patch).permute(0, 2, 3, 1)

    def to_map(self, embeddings: Tensor) -> Tensor:
        x = F.pixel_shuffle((embeddings @ self.axes + self.mean).permute(0, 3, 1, 2), self.patch)
        x = x[:, :, : self.size[0], : self.size[1]]
        return x.clamp(0.0, 1.0) if self.pixels else x

    def log_emission(self, embeddings: Tensor) -> Tensor:
        """Returns log p(embedding | state), (..., K), from embeddings (..., D)."""
        precision = 1 / self.variances
        constant = (self.centres**2 * precision + self.variances.log() + math.log(2 * math.pi)).sum(
            1
        )
        return embeddings @ (self.centres * precision).T - 0.5 * (
            embeddings**2 @ precision.T + constant
        )

    def log_places(self) -> Tensor:
        """Returns log P(place | state), (h, w, K)."""
        return self.places.log().permute(1, 2, 0)

    # --- the fit: float64 -------------------------------------------------------------------------
    def turn(self, x: Tensor) -> None:
        """Sets mean and principal axes of all patches."""
        rows = self.patches(x).flatten(0, 2)
        self.mean.copy_(rows.mean(0))
        self.axes.copy_(torch.linalg.eigh(torch.cov(rows.T, correction=0)).eigenvectors.T)

    def initialise(self, o: Tensor) -> Tensor:
        """Sets the first states and chains from embeddings (n, h, w, D), and returns the least
        variances (D,).

        Clusters are counted as if they were states.
        """
        rows = o.flatten(0, 2)
        state = F.one_hot(clusters(rows, STATES), STATES).to(o).unflatten(0, o.shape[:3])
        variance = rows.var(0)
        floor = FLOOR * variance + 1e-6 + (GREY * variance.mean() if self.pixels else 0.0)
        starts = torch.stack([state[:, :, 0].sum((0, 1)), state[:, 0].sum((0, 1))])
        pairs = [
            torch.einsum("nhwi,nhwj->ij", s[:, :, :-1], s[:, :, 1:])
            for s in (state, state.transpose(1, 2))
        ]
        self.maximise(o, state, floor, starts, torch.stack(pairs))
        return floor

    def improve(self, o: Tensor, floor: Tensor) -> float:
        """Makes one step of expectation and maximisation; returns the log-likelihood, and log
        prior, before it.

        The likelihood is that of all rows times that of all columns. The prior is Dirichlet
        (``COUNT``); under it, and with variances no smaller than the floor, no step lowers the
        objective (Dempster, Laird & Rubin, 1977).
        """
        joint = self.log_emission(o) + self.log_places()
        objective = sum(
            float(COUNT * part.log().sum()) for part in (self.places, self.starts, self.transitions)
        )
        weight, starts, pairs = torch.zeros_like(joint), [], []
        for axis in range(2):
            lines = (joint if axis == 0 else joint.transpose(1, 2)).flatten(0, 1)
            likelihood, states, steps = expect(lines, self.starts[axis], self.transitions[axis])
            objective += float(likelihood.sum())
            starts.append(states[:, 0].sum(0))
            pairs.append(steps)
            shape = (len(o), o.shape[1 + axis], o.shape[2 - axis], STATES)
            weight += states.reshape(shape) if axis == 0 else states.reshape(shape).transpose(1, 2)
        self.maximise(o, weight, floor, torch.stack(starts), torch.stack(pairs))
        return objective

    def maximise(
        self, o: Tensor, weight: Tensor, floor: Tensor, starts: Tensor, pairs: Tensor
    ) -> None:
        """Sets the parameters from expected counts: of states (n, h, w, K), starts (2, K) and
        transitions (2, K, K).
        """
        w, rows = weight.flatten(0, 2), o.flatten(0, 2)
        total = w.sum(0)[:, None]
        seen = total > 1e-6  # a state that nothing is left for stays where it is
        centres = w.T @ rows / total.clamp(min=1e-6)
        variances = w.T @ rows**2 / total.clamp(min=1e-6) - centres**2
        self.centres.copy_(torch.where(seen, centres, self.centres))
        self.variances.copy_(torch.where(seen, torch.maximum(variances, floor), self.variances))
        places = weight.sum(0).permute(2, 0, 1) + COUNT
        self.places.copy_(places / places.sum((1, 2), keepdim=True))
        self.starts.copy_(normed(starts + COUNT))
        self.transitions.copy_(normed(pairs + COUNT))


def reverse(start: Tensor, transition: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Returns p(s_t), (T, K), of a chain, and the transitions of its exact reversal, (T - 1, K, K),
    the last step first.

    p(s_t | s_t+1) = p(s_t) p(s_t+1 | s_t) / p(s_t+1): from (row) s_t+1 to (column) s_t, another one
    at each step.
    """
    marginals = [start]
    for _ in range(length - 1):
        marginals.append(marginals[-1] @ transition)
    together = torch.stack(marginals)
    return together, normed((together[:-1, :, None] * transition).transpose(1, 2)).flip(0)


def read(emission: Tensor, places: Tensor, first: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Returns -log p(o_t | o_<t), (4, N, L, T), and the states expected there, log p(s_t | o_<t),
    (4, N, L, T, K).

    ``emission`` log p(o_t | s), (4, N, L, T, K); ``places`` log p(place_t | s), (4, 1, L, T, K):
    both results are given the places up to t; ``first`` p(s_1), (4, K); ``steps`` p(s_t+1 | s_t),
    (T - 1, 4, K, K). It is the scaled forward algorithm (Rabiner, section V.A), whose scales are
    those probabilities.
    """
    state = first[:, None, None]  # p(s_t | o_<t)
    surprises, expected = [], []
    for t in range(emission.shape[3]):
        before = torch.log_softmax(state.clamp(min=1e-30).log() + places[..., t, :], -1)
        joint = before + emission[..., t, :]
        surprises.append(-torch.logsumexp(joint, -1))
        expected.append(before.expand(joint.shape))
        if t < len(steps):
            state = torch.softmax(joint, -1) @ steps[t][:, None]
    return torch.stack(surprises, 3), torch.stack(expected, 3)


def expect(joint: Tensor, start: Tensor, transition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns log-likelihoods (M,), p(s_t | o), (M, T, K), and expected counts of transitions (K,
    K).

    ``joint`` is log p(o_t | s), (M, T, K), of M lines. The scaled forward-backward algorithm
    (Rabiner, section V.A).
    """
    most = joint.amax(-1, keepdim=True)
    b = (joint - most).exp()
    alphas: list[Tensor] = []
    scales: list[Tensor] = []
    for t in range(b.shape[1]):
        alpha = (start if t == 0 else alphas[-1] @ transition) * b[:, t]
        scales.append(alpha.sum(-1, keepdim=True))
        alphas.append(alpha / scales[-1])
    beta = torch.ones_like(alphas[-1])
    states, steps = [alphas[-1]], torch.zeros_like(transition)
    for t in range(b.shape[1] - 2, -1, -1):
        arriving = b[:, t + 1] * beta / scales[t + 1]
        steps += alphas[t].T @ arriving * transition
        beta = arriving @ transition.T
        states.append(alphas[t] * beta)
    likelihood = torch.cat(scales, 1).log().sum(1) + most.sum((1, 2))
    return likelihood, torch.stack(states[::-1], 1), steps


def clusters(rows: Tensor, count: int) -> Tensor:
    """Returns the cluster of each row, (n,), by ten rounds of k-means from k-means++ (Arthur &
    Vassilvitskii, SODA 2007).
    """
    random = torch.Generator().manual_seed(0)
    centres = rows[:1]
    nearest = torch.full((len(rows),), math.inf, dtype=rows.dtype, device=rows.device)
    while len(centres) < count:
        nearest = torch.minimum(nearest, ((rows - centres[-1]) ** 2).sum(1))
        far = (nearest.cumsum(0) < torch.rand((), generator=random).to(rows) * nearest.sum()).sum()
        centres = torch.cat([centres, rows[far.clamp(max=len(rows) - 1)][None]])
    for _ in range(10):
        of = (centres.square().sum(1) - 2 * rows @ centres.T).argmin(1)
        chosen = F.one_hot(of, count).to(rows)
        size = chosen.sum(0)[:, None]
        centres = torch.where(size > 0, chosen.T @ rows / size.clamp(min=1), centres)
    return of


def normed(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)
