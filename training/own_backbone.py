"""A backbone of the user's choice: which of a network's modules are read, and how what they put out
becomes maps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomaly.detector.file import MAX_FILE_BYTES
from anomaly.detector.training_facts import BackboneFacts
from anomaly.errors import TrainingError
from training.backbone import BACKBONES, Backbone, weights_file
from training.backbone_sources import Network, loading, read_network

PROBE = 224  # pixels a side, about, of the picture by which a network is looked at
MAX_OTHER_TOKENS = 16  # class and register tokens, before those of the patches
MERGES = 4  # times that a transformer may halve its grid of patches
MAX_SHOWN = 16  # names of stages in an error
EFFICIENTNET_STAGES = {
    "efficientnet-lite0": (112, 192),
    "efficientnet-lite1": (112, 192),
    "efficientnet-lite2": (120, 208),
}


@dataclass(frozen=True)
class OpenedBackbone:
    """A backbone and what a card says of it.

    ``module``: pixels (N, 3, h, w) in 0..1 -> a list of maps (N, C, h', w'), one for each stage.
    ``patch``: height and width of the pixels are multiples of it.
    """

    module: nn.Module
    facts: BackboneFacts
    patch: int

    def nearest(self, size: int) -> int:
        """Returns the size nearest to one that the backbone takes."""
        return max(1, round(size / self.patch)) * self.patch

    def check(self, size: int) -> None:
        """Raises TrainingError where the network does not take pictures of that size."""
        try:
            with torch.inference_mode():
                self.module(torch.full((1, 3, size, size), 0.5))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise TrainingError(
                f"backbone {self.facts.name} does not take images of {size} x {size} "
                f"({' '.join(str(error).split())[:200]}): choose another --size, such as 224"
            ) from error


def open_backbone(name: str, stages: Sequence[str] | None = None) -> OpenedBackbone:
    """Returns the frozen backbone of a name (see training.backbone_sources), or EfficientNet-Lite.

    ``stages``: names of its modules, or numbers of a transformer's blocks from 0 on; None: of a net
    that shrinks its maps the last modules of strides 8 and 16, as PatchCore has them, of a
    transformer the blocks at one and two thirds of its depth, in the middle of the two groups of
    layers that Dinomaly reconstructs.

    Raises TrainingError, in one line, where name, stages or weights are not there or do not fit,
    and RuntimeMissing where a package is not installed.
    """
    if name in BACKBONES:
        return _efficientnet(name, stages)
    network = read_network(name)
    with loading(name):
        module = OwnBackbone(network, stages)
    size = PROBE // module.patch * module.patch or module.patch
    check_weight(name, module, size)
    facts = BackboneFacts(
        name=network.name,
        stages=tuple(module.stages),
        sha256=digest_of(network.files),
        licence=network.licence,
    )
    return OpenedBackbone(module, facts, module.patch)


def _efficientnet(name: str, stages: Sequence[str] | None) -> OpenedBackbone:
    chosen = tuple(stages or map(str, EFFICIENTNET_STAGES[name]))
    try:
        module = Backbone(name, tuple(map(int, chosen)))
    except ValueError as error:
        raise TrainingError(
            f"--stages {','.join(chosen)}: {error}: numbers of channels of {name}"
        ) from error
    digest = digest_of([weights_file(name)])
    facts = BackboneFacts(name=name, stages=chosen, sha256=digest, licence="Apache-2.0")
    return OpenedBackbone(module, facts, 1)


def reopen(facts: BackboneFacts) -> OpenedBackbone:
    """Returns the backbone that a run was made with; TrainingError where its weights are others
    now.
    """
    opened = open_backbone(facts.name, facts.stages)
    if opened.facts.sha256 != facts.sha256:
        raise TrainingError(
            f"backbone {facts.name}: weights with sha256 {opened.facts.sha256[:12]} found, those "
            f"of the training, {facts.sha256[:12]}, expected: put that file back"
        )
    return opened


def digest_of(files: Iterable[Path]) -> str:
    """Returns the sha256 of files, one after the other as one."""
    whole = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                whole.update(block)
    return whole.hexdigest()


# ---- modules -> maps ----


class AllSeen(Exception):
    """The last stage that is read has put out its maps: the rest of the network is not run."""


# what the stages of the network that runs now have put out; of each thread its own
_SEEN: ContextVar[dict[str, Any]] = ContextVar("_SEEN")


class OwnBackbone(nn.Module):
    """A network up to the last module that is read; pixels (N, 3, h, w) in 0..1 -> maps."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, stages: Sequence[str] | None) -> None:
        super().__init__()
        self.network = network.module.eval().requires_grad_(False)
        self.options, self.patch = dict(network.options), patch_of(self.network)
        for name, values in (("mean", network.mean), ("std", network.std)):
            colours = torch.tensor(list(values), dtype=torch.float32)
            self.register_buffer(name, colours[:, None, None], persistent=False)
        outputs = look(self, PROBE // self.patch * self.patch or self.patch)
        self.stages = chosen_stages(outputs, stages)
        modules = dict(self.network.named_modules())
        for stage in self.stages:
            modules[stage].register_forward_hook(partial(_keep, stage, len(self.stages)))

    def run(self, x: Tensor) -> Any:
        """Runs the whole network on pixels in 0..1."""
        return self.network((x - self.mean) / self.std, **self.options)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the stages' maps, each (N, C, h, w); TrainingError where pixels (N, 3, height,
        width) have a size that the network does not take.
        """
        height, width = x.shape[2:]
        if height % self.patch or width % self.patch:
            raise TrainingError(
                f"images of {width} x {height} pixels found, multiples of {self.patch} expected by "
                "the backbone: choose another --size"
            )
        seen: dict[str, Any] = {}
        mark = _SEEN.set(seen)
        try:
            self.run(x)
        except AllSeen:
            pass
        finally:
            _SEEN.reset(mark)
        return [to_map(seen[stage], height, width, self.patch) for stage in self.stages]


def _keep(stage: str, count: int, _: nn.Module, __: Any, output: Any) -> None:
    seen = _SEEN.get()
    seen[stage] = output
    # an exporter does not bear it, and drops what nobody reads by itself
    if len(seen) == count and not torch.compiler.is_exporting():
        raise AllSeen


def to_map(output: Any, height: int, width: int, patch: int) -> Tensor:
    """Returns what a module put out for pixels of ``height`` x ``width`` as maps (N, C, h, w).

    Takes maps, also with the channels last, and tokens (N, T, C), of which those before the patches
    (class, registers) are dropped. Raises TrainingError for anything else.
    """
    while isinstance(output, tuple | list | dict) and output:
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    if isinstance(output, Tensor) and output.dim() == 4:
        first, second, third = (int(n) for n in output.shape[1:])
        is_map = _is_grid(second, third, height, width)
        last = not is_map and _is_grid(first, second, height, width)
        return output.permute(0, 3, 1, 2) if last else output
    if isinstance(output, Tensor) and output.dim() == 3:
        for side in (patch << merge for merge in range(MERGES)):
            rows, columns = height // side, width // side
            others = output.shape[1] - rows * columns
            if rows * columns and 0 <= others <= MAX_OTHER_TOKENS:
                return output[:, others:].transpose(1, 2).unflatten(2, (rows, columns))
    found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise TrainingError(f"a stage that puts out {found} found, maps or tokens of patches expected")


def _is_grid(rows: int, columns: int, height: int, width: int) -> bool:
    """Returns whether a map may have so many places: strides are the same along both sides."""
    return round(height / rows) == round(width / columns)


def patch_of(network: nn.Module) -> int:
    """Returns the side of the patches that a network cuts a picture into, 1 where it cuts none."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            stride = int(module.stride[0])
            return stride if stride > 1 and module.kernel_size[0] == stride else 1
    return 1


# ---- which modules ----


def look(backbone: OwnBackbone, side: int) -> dict[str, int]:
    """Returns the stride of the maps of each module that puts out any, in the order in which they
    finish.
    """
    strides: dict[str, int] = {}

    def note(name: str, _: nn.Module, __: Any, output: Any) -> None:
        try:
            rows = to_map(output, side, side, backbone.patch).shape[2]
        except TrainingError:
            return
        if rows > 1:
            strides[name] = round(side / rows)

    with hooks(backbone.network, note), torch.inference_mode():
        backbone.run(torch.full((1, 3, side, side), 0.5))
    return strides


@contextmanager
def hooks(network: nn.Module, note: Any) -> Iterator[None]:
    """Calls ``note`` with the name and output of each module of a network that has finished."""
    placed = [
        module.register_forward_hook(partial(note, name))
        for name, module in network.named_modules()
        if name
    ]
    try:
        yield
    finally:
        for hook in placed:
            hook.remove()


def chosen_stages(strides: dict[str, int], stages: Sequence[str] | None) -> list[str]:
    """Returns names of modules, in the order in which they finish."""
    own = shrinking_stages(strides)
    blocks = [] if own else blocks_of(strides)
    if stages is None:
        own = own or sorted(
            {blocks[len(blocks) // 3], blocks[2 * len(blocks) // 3]} if blocks else ()
        )
        if not own:
            raise TrainingError("no stages found by themselves: name modules, --stages A,B")
        return [name for name in strides if name in own]
    numbers = {str(number): name for number, name in enumerate(blocks)}
    named = [stage if stage in strides else numbers.get(stage, "") for stage in stages]
    if "" in named:
        raise TrainingError(
            f"--stages: {stages[named.index('')]!r} found, which puts out no maps; names such as "
            f"{', '.join(shown(strides, blocks))} expected"
            + (f", or numbers of blocks, 0 to {len(blocks) - 1}" if blocks else "")
        )
    return [name for name in strides if name in named]


def shrinking_stages(strides: dict[str, int]) -> list[str]:
    """Returns the last modules of strides 8 and 16, of those that lie in the fewest others; none
    where a network has not both.
    """
    found = []
    for stride in (8, 16):
        names = [name for name, own in strides.items() if own == stride]
        depth = min((name.count(".") for name in names), default=0)
        found += [name for name in names if name.count(".") == depth][-1:]
    return found if len(found) == 2 else []


def blocks_of(strides: dict[str, int]) -> list[str]:
    """Returns the longest list of modules that are numbered and put out maps of one stride."""
    lists: dict[tuple[str, int], list[str]] = {}
    for name, stride in strides.items():
        above, _, number = name.rpartition(".")
        if number.isdigit():
            lists.setdefault((above, stride), []).append(name)
    return max(lists.values(), key=len, default=[])


def shown(strides: dict[str, int], blocks: Sequence[str]) -> list[str]:
    """Returns some names of stages for an error: blocks, or what lies in the fewest modules."""
    depth = sorted(strides, key=lambda name: name.count("."))
    return list(blocks or depth)[:MAX_SHOWN]


def check_weight(name: str, backbone: OwnBackbone, side: int) -> None:
    """Raises TrainingError where the weights up to the last stage are more than a detector's file
    may hold.
    """
    reached: set[str] = {""}

    def note(inner: str, _: nn.Module, __: Any, ___: Any) -> None:
        reached.add(inner)

    with hooks(backbone.network, note), torch.inference_mode():
        backbone(torch.full((1, 3, side, side), 0.5))
    held = sum(
        parameter.numel() * 4
        for key, parameter in backbone.network.named_parameters()
        if key.rpartition(".")[0] in reached
    )
    if held >= MAX_FILE_BYTES:
        raise TrainingError(
            f"--backbone {name}: {held / 1e9:.1f} GB of weights up to {backbone.stages[-1]} found, "
            f"at most {MAX_FILE_BYTES / 1e9:.1f} GB expected in a detector: choose earlier stages "
            "or a smaller network"
        )
