"""Networks that others trained, found by name in a package or in a folder of torch.hub, with their
weights from this disk. Nothing is downloaded.

    timm:NAME             the weights in the cache of Hugging Face or of torch.hub, or NAME=FILE
    torchvision:NAME      the weights in the cache of torch.hub, or NAME=FILE
    transformers:NAME     a repository in the cache of Hugging Face, or a folder of one
    hub:REPOSITORY:ENTRY  a folder with a hubconf.py, or OWNER/REPOSITORY in the cache of torch.hub;
                          the weights in that cache, or ENTRY=FILE

FILE holds a state dict in the layout of that package: .safetensors, or .pth as a package publishes
it, of which tensors alone are read.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from anomaly.errors import AnomalyError, RuntimeMissing, TrainingError
from training.checkpoint import MISFITS

# of ImageNet's photographs, in 0..1: where a network does not say by what its input is normalised
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
UNKNOWN_LICENCE = "unknown: yours to check"
MAX_README_CHARACTERS = 2000  # in which a model card names its licence


@dataclass(frozen=True)
class Network:
    """A network with its weights. ``files``: which held them; ``name``: as it is found again.

    ``mean``, ``std``: of its input's colours, for pixels in 0..1. ``options``: of a call of it.
    """

    name: str
    module: nn.Module
    files: tuple[Path, ...]
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    licence: str = UNKNOWN_LICENCE
    options: Mapping[str, bool] = field(default_factory=dict)


def read_network(name: str) -> Network:
    """Returns the network of a name as above; TrainingError where it or its weights are not on this
    disk, RuntimeMissing where its package is not installed.
    """
    named, _, file = name.partition("=")
    source, _, model = named.partition(":")
    if source not in SOURCES or not model:
        raise TrainingError(_not_a_name(name))
    path = Path(file).absolute() if file else None
    if path is not None and (path.suffix.lower() == ".onnx" or not path.is_file()):
        found = "an ONNX file found" if path.is_file() else "no such file"
        raise TrainingError(
            f"--backbone {name}: {found}, a state dict in the layout of {source} expected, such as "
            "weights.safetensors"
        )
    with loading(name):
        return SOURCES[source](model, path)


def _not_a_name(name: str) -> str:
    expected = ", ".join(f"{source}:NAME" for source in SOURCES)
    if name.lower().endswith(".onnx"):
        return (
            f"--backbone {name} found; ONNX files are not taken as backbones, a network with its "
            "weights as safetensors expected: SOURCE:NAME=FILE.safetensors"
        )
    if name.lower().endswith((".safetensors", ".pth", ".pt", ".bin")) and "=" not in name:
        return (
            f"--backbone {name} found, the network that its weights are for expected too: "
            f"SOURCE:NAME={name}, such as timm:wide_resnet50_2={name}"
        )
    return (
        f"--backbone {name} found, one of {expected} expected (each may end in =FILE), or "
        "efficientnet-lite0, -lite1 or -lite2"
    )


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Says in one line that a network cannot be built or its weights do not fit."""
    try:
        yield
    except AnomalyError:
        raise
    except (*MISFITS, AssertionError, EOFError, ImportError, OSError, SafetensorError) as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise TrainingError(
            f"--backbone {name}: cannot be loaded ({what}); the name of a network and weights in "
            "its official layout expected"
        ) from error


def package(name: str) -> Any:
    """Returns a package that is not among those of this project."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RuntimeMissing(
            f"this backbone needs {name}, which is not installed or does not load "
            f"({' '.join(str(error).split())[:100]}): pip install {name}"
        ) from error


def state_of(path: Path) -> Mapping[str, Tensor]:
    """Returns the state dict of a file."""
    if path.suffix.lower() == ".safetensors":
        return load_file(path)
    state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def licence_beside(path: Path) -> str:
    """Returns the licence that the model card (README.md) in the folder of a file names."""
    card = path.parent / "README.md"
    if card.is_file():
        with open(card, encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_README_CHARACTERS)
        if found := re.search(r"^license:\s*([\w.+-]+)\s*$", text, re.MULTILINE):
            return found[1]
    return UNKNOWN_LICENCE


def checkpoints() -> Path:
    """Returns the folder where torch.hub keeps the weights that it has loaded."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def first_of(name: str, places: Sequence[Path], hint: str) -> Path:
    """Returns the first file that is there; TrainingError naming all that were looked for."""
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(map(str, places)) or "nothing: no address of weights is known"
    raise TrainingError(
        f"--backbone {name}: no weights found on this disk (looked for {looked}); nothing is "
        f"downloaded: {hint}, or give the file: {name}=FILE.safetensors"
    )


# ---- sources ----


def from_timm(model: str, file: Path | None) -> Network:
    """Returns a network of timm (Wightman, PyTorch Image Models)."""
    timm, name = package("timm"), f"timm:{model}"
    config = timm.get_pretrained_cfg(model)
    if config is None or not timm.is_model(model.partition(".")[0]):
        raise TrainingError(f"--backbone {name}: timm {timm.__version__} has no model of that name")
    config = config.to_dict()
    licence, path = UNKNOWN_LICENCE, file
    if path is None:
        repository, address = config.get("hf_hub_id") or "", config.get("url") or ""
        places = [
            *cached(repository, "model.safetensors"),
            *cached(repository, "pytorch_model.bin"),
        ]
        places += [checkpoints() / address.rsplit("/", 1)[-1]] if address else []
        hint = f"run `hf download {repository}` once where there is a network"
        path = first_of(name, places, hint)
        licence = config.get("license") or UNKNOWN_LICENCE
    create = partial(
        timm.create_model, model, pretrained=True, pretrained_cfg_overlay={"file": str(path)}
    )
    try:
        module = create(dynamic_img_size=True)  # transformers take every multiple of their patch
    except TypeError:  # of a network that takes every size, or one
        module = create()
    licence = licence_beside(path) if licence == UNKNOWN_LICENCE else licence
    named = name if file is None else f"{name}={file}"
    return Network(named, module, (path,), config["mean"], config["std"], licence)


def cached(repository: str, file: str) -> list[Path]:
    """Returns where a file of a repository lies in the cache of Hugging Face, or would lie."""
    if not repository:
        return []
    hub = package("huggingface_hub")
    found = hub.try_to_load_from_cache(repository, file)
    if isinstance(found, str):
        return [Path(found)]
    folder = f"models--{repository.replace('/', '--')}"
    return [Path(hub.constants.HF_HUB_CACHE) / folder / "snapshots" / "main" / file]


def from_torchvision(model: str, file: Path | None) -> Network:
    """Returns a network of torchvision."""
    models, name = package("torchvision.models"), f"torchvision:{model}"
    if model not in models.list_models():
        raise TrainingError(f"--backbone {name}: torchvision has no model of that name")
    known = list(models.get_model_weights(model))
    places = [checkpoints() / str(weights.url).rsplit("/", 1)[-1] for weights in known]
    call = f"torchvision.models.get_model({model!r}, weights='DEFAULT')"
    hint = f"run {call} once where there is a network"
    path = file or first_of(name, places, hint)
    own = next(
        (w for w, place in zip(known, places, strict=True) if place.name == path.name), known[0]
    )
    module = models.get_model(model, weights=None)
    module.load_state_dict(state_of(path))
    seen = own.transforms()
    named = name if file is None else f"{name}={file}"
    return Network(named, module, (path,), seen.mean, seen.std, licence_beside(path))


def from_transformers(model: str, file: Path | None) -> Network:
    """Returns a network of transformers (Hugging Face), from a folder or the cache."""
    transformers, name = package("transformers"), f"transformers:{model}"
    if file is not None:
        raise TrainingError(
            f"--backbone {name}={file} found; a folder with config.json and model.safetensors "
            "expected: transformers:FOLDER"
        )
    folder = Path(model).absolute()
    if not folder.is_dir():
        hint = f"run `hf download {model}` once where there is a network"
        folder = first_of(name, cached(model, "config.json"), hint).parent
    else:
        name = f"transformers:{folder}"
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    first_of(name, files or [folder / "model.safetensors"], "put them there")
    module, said = transformers.AutoModel.from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    lost = [key for key in said["missing_keys"] if "pooler" not in key]
    if lost:
        raise TrainingError(f"--backbone {name}: its weights lack {lost[0]}: download it again")
    seen = folder / "preprocessor_config.json"
    configured = json.loads(seen.read_text(encoding="utf-8")) if seen.is_file() else {}
    mean = configured.get("image_mean") or IMAGENET_MEAN
    std = configured.get("image_std") or IMAGENET_STD
    # some fit their positions to the size of their input only where they are asked to
    asked = "interpolate_pos_encoding" in inspect.signature(module.forward).parameters
    options = {"interpolate_pos_encoding": True} if asked else {}
    return Network(name, module, tuple(files), mean, std, licence_beside(files[0]), options)


def from_hub(model: str, file: Path | None) -> Network:
    """Returns a network by an entry of a hubconf.py, which is run."""
    repository, _, entry = model.rpartition(":")
    name, folder = f"hub:{model}", Path(repository).absolute()
    if not (repository and folder.is_dir()):
        places = sorted(Path(torch.hub.get_dir()).glob(f"{repository.replace('/', '_')}_*"))
        if not repository or not places:
            raise TrainingError(
                f"--backbone {name}: no folder {repository or 'REPOSITORY'} found, nor one named "
                f"{repository.replace('/', '_')}_* in {torch.hub.get_dir()}; hub:FOLDER:ENTRY "
                "expected, or clone the repository there: nothing is downloaded"
            )
        folder = places[0]
    else:
        name = f"hub:{folder}:{entry}"
    own = sorted(checkpoints().glob(f"{entry}*"))
    # of several nobody knows which is meant
    places = own if len(own) == 1 else [checkpoints() / f"{entry}*.pth"]
    path = file or first_of(name, places, "put one file there")
    module = torch.hub.load(str(folder), entry, source="local", pretrained=False)
    module.load_state_dict(state_of(path))
    named = name if file is None else f"{name}={file}"
    return Network(named, module, (path,), licence=licence_beside(path))


SOURCES: dict[str, Callable[[str, Path | None], Network]] = {
    "timm": from_timm,
    "torchvision": from_torchvision,
    "transformers": from_transformers,
    "hub": from_hub,
}
