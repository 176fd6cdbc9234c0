"""Units: a chain that computes the whole, cut where one tensor is alive."""

import pytest
import timm
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from roadworthy.core.capture import capture
from roadworthy.core.extract import Part, extract, whole
from roadworthy.core.hf import HfText
from roadworthy.core.units import partition
from roadworthy.errors import BadModel

EXPECTED = {
    "resnet18": ["conv1", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1",
                 "layer4.0", "layer4.1", "fc"],
    "vit_tiny_patch16_224": ["patch_embed.proj", *(f"blocks.{i}" for i in range(12)), "head"],
    "regnetx_002": ["stem.conv", "s1.b1", "s2.b1", *(f"s3.b{i}" for i in range(1, 5)),
                    *(f"s4.b{i}" for i in range(1, 8)), "head.fc"],
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_units_are_the_blocks_and_chain_to_the_model(name: str) -> None:
    torch.manual_seed(0)
    side = 224 if name.startswith("vit") else 64
    module = timm.create_model(name, pretrained=False).eval()
    x = torch.randn(2, 3, side, side)
    graph = capture(module, x)
    units = partition(graph)
    assert [unit.name for unit in units if unit.layers] == EXPECTED[name]
    y = x
    with torch.no_grad():
        for unit in units:
            y = extract(graph, Part(unit.nodes, unit.entry, unit.exit))(y)
        torch.testing.assert_close(y, module(x), rtol=1e-4, atol=1e-5)
        assert torch.equal(extract(graph, whole(graph))(x), graph(x))


@pytest.mark.parametrize("left", [False, True])
def test_an_attention_mask_is_made_anew_in_every_layer_of_a_text_model(left: bool) -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=24,
    )  # fmt: skip
    torch.manual_seed(0)
    module = HfText(BertForSequenceClassification(config)).eval()
    x = torch.randint(5, 50, (3, 3, 9), generator=torch.Generator().manual_seed(1))
    x[:, 1], x[:, 2] = 1, 0
    x[1, 1, slice(4) if left else slice(5, 9)] = 0
    graph = capture(module, x)
    units = partition(graph)
    layers = [f"model.bert.encoder.layer.{i}" for i in range(2)]
    found = [unit.name for unit in units if unit.layers]
    assert found == [*layers, "model.bert.pooler.dense", "model.classifier"]
    y = x
    with torch.no_grad():
        for unit in units:
            part = extract(graph, Part(unit.nodes, unit.entry, unit.exit))
            y = part(y) if unit.entry.op == "placeholder" else part(y, x)
        assert torch.equal(y, graph(x))


def test_an_inverted_residual_without_skip_is_one_unit() -> None:
    module = timm.create_model("mobilenetv2_100", pretrained=False).eval()
    names = [u.name for u in partition(capture(module, torch.zeros(1, 3, 64, 64)))]
    assert {"blocks.1.0", "blocks.1.1"} <= set(names)


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()), nn.Flatten()
    )


def test_activations_belong_to_the_layer_before_them() -> None:
    units = partition(capture(plain(), torch.zeros(1, 3, 8, 8)))
    assert [(u.exit.name.split("_")[0], len(u.layers)) for u in units[:2]] == [("relu", 1)] * 2


def test_blocks_can_be_chosen_and_wrong_ones_are_named() -> None:
    module = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), nn.Conv2d(4, 4, 1)
    )
    graph = capture(module, torch.zeros(1, 3, 8, 8))
    assert [len(u.layers) for u in partition(graph)] == [1, 1, 1]
    assert [len(u.layers) for u in partition(graph, blocks=["0"])] == [2, 1]
    with pytest.raises(BadModel, match="'7' is no module"):
        partition(graph, blocks=["7"])
