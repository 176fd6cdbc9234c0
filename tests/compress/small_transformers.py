"""Small random transformers, captured, with norms as they grow in training: any sign and size."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import transformers as hf
from timm.models.deit import VisionTransformerDistilled
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from roadworthy.core.capture import capture
from roadworthy.core.fold import attribute
from roadworthy.core.hf import HfText

aten = torch.ops.aten

SIZE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
BART: dict[str, Any] = {
    "vocab_size": 50,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 24,
}

T5: dict[str, Any] = {
    "vocab_size": 50,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 2,
}
OPT: dict[str, Any] = {**SIZE, "ffn_dim": 48, "word_embed_proj_dim": 32}

Builder = Callable[[str], nn.Module]


class Tokens(nn.Module):
    """A language model that takes rows of ids, mask and, where it has a decoder, its ids."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        rows = {"decoder_input_ids": tokens[:, 2]} if tokens.shape[1] == 3 else {}
        given = {"input_ids": tokens[:, 0], "attention_mask": tokens[:, 1], **rows}
        return self.model(**given, use_cache=False).logits


class Hidden(nn.Module):
    """All hidden states of an encoder, stacked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.model(tokens[:, 0], tokens[:, 1], output_hidden_states=True)
        return torch.stack(found.hidden_states, 1)


def _text(kind: str, **options: Any) -> Builder:
    def build(attention: str) -> nn.Module:
        config = _config(kind, attention, {**SIZE, **options})
        return HfText(getattr(hf, f"{kind}ForSequenceClassification")(config))

    return build


def _seq(kind: str, head: str, options: dict[str, Any]) -> Builder:
    def build(attention: str) -> nn.Module:
        return Tokens(getattr(hf, f"{kind}{head}")(_config(kind, attention, options)))

    return build


def _config(kind: str, attention: str, options: dict[str, Any]) -> Any:
    return getattr(hf, f"{kind}Config")(**options, attn_implementation=attention)


def _t5(attention: str) -> nn.Module:
    return Hidden(hf.T5EncoderModel(_config("T5", attention, T5)))


def _bert_hidden(attention: str) -> nn.Module:
    return Hidden(hf.BertModel(_config("Bert", attention, SIZE)))


VIT: dict[str, Any] = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}


def _vit(_: str) -> nn.Module:
    return VisionTransformer(**VIT, num_classes=5)


def _deit(_: str) -> nn.Module:
    return VisionTransformerDistilled(**VIT, num_classes=5)


def _swin(_: str) -> nn.Module:
    # 12 x 12 patches: windows of 4 shift in the first stage, the second (6 x 6) is padded.
    return SwinTransformer(
        img_size=24,
        patch_size=2,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 2),
        window_size=4,
        num_classes=5,
    )


BUILDERS: dict[str, Builder] = {
    "bert": _text("Bert"),
    "bert-hidden": _bert_hidden,
    "roberta": _text("Roberta", pad_token_id=0),
    "distilbert": _text("DistilBert"),
    "electra": _text("Electra", embedding_size=16),
    "albert": _text("Albert", embedding_size=16),
    "mpnet": _text("MPNet", pad_token_id=0),
    "deberta": _text(
        "DebertaV2", relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8
    ),
    "bart": _seq("Bart", "ForConditionalGeneration", BART),
    "t5": _t5,
    "opt": _seq("OPT", "ForCausalLM", OPT),
    "vit": _vit,
    "deit": _deit,
    "swin": _swin,
}
# An export takes seconds. Encoders share the code of their attention, so that each has one of the
# two kinds, an encoder-decoder and a decoder both.
SDPA = ("bert", "roberta", "electra", "bart", "opt", "t5", "vit", "deit", "swin")
EAGER = ("bert-hidden", "distilbert", "albert", "bart", "opt", "mpnet", "deberta")
CASES = [*((name, "sdpa") for name in SDPA), *((name, "eager") for name in EAGER)]
TYPED = ("bert", "albert", "electra")  # read token types
ROWS = dict.fromkeys((*TYPED, "bart"), 3)
IMAGES = {"vit": 16, "deit": 16, "swin": 24}


_BERT = """\
embeddings.LayerNorm > encoder.layer.0.attention.self.key,query,value +
encoder.layer.0.attention.output.LayerNorm > encoder.layer.0.intermediate.dense +
encoder.layer.0.output.LayerNorm > encoder.layer.1.attention.self.key,query,value +
encoder.layer.1.attention.output.LayerNorm > encoder.layer.1.intermediate.dense +
encoder.layer.1.output.LayerNorm: last norm: read by the model's pooler (select)"""
_VIT = """\
blocks.0.norm1 > blocks.0.attn.qkv
blocks.0.norm2 > blocks.0.mlp.fc1
blocks.1.norm1 > blocks.1.attn.qkv
blocks.1.norm2 > blocks.1.mlp.fc1
norm: last norm: read by the model's pooler (select)"""
# Which linears absorb a norm, + where something else reads it too; by the table of the paper
# (BERT, RoBERTa, BART), extended. The names leave the model's own out.
TABLE: dict[str, str] = {
    "bert": _BERT,
    "roberta": _BERT,
    "deberta": _BERT.replace("key,query,value", "key_proj,query_proj,value_proj"),
    "mpnet": _BERT.replace("self.key,query,value", "attn.k,q,v").replace("n.output.", "n."),
    "electra": _BERT.replace(
        "encoder.layer.0.attention.self.key,query,value +", "embeddings_project"
    ),
    "distilbert": """\
embeddings.LayerNorm > transformer.layer.0.attention.k_lin,q_lin,v_lin +
transformer.layer.0.sa_layer_norm > transformer.layer.0.ffn.lin1 +
transformer.layer.0.output_layer_norm > transformer.layer.1.attention.k_lin,q_lin,v_lin +
transformer.layer.1.sa_layer_norm > transformer.layer.1.ffn.lin1 +
transformer.layer.1.output_layer_norm: last norm: read by the model's pooler (select)""",
    "albert": """\
embeddings.LayerNorm > encoder.embedding_hidden_mapping_in
SHARED.attention.LayerNorm > SHARED.ffn +
SHARED.full_layer_layer_norm > SHARED.attention.key,query,value +
SHARED.attention.LayerNorm > SHARED.ffn +
SHARED.full_layer_layer_norm: last norm: read by the model's pooler (select)""".replace(
        "SHARED", "encoder.albert_layer_groups.0.albert_layers.0"
    ),
    # Past the paper: the encoder's last norm moves into what makes keys and values of its output.
    "bart": """\
encoder.layernorm_embedding > encoder.layers.0.self_attn.k_proj,q_proj,v_proj +
encoder.layers.0.self_attn_layer_norm > encoder.layers.0.fc1 +
encoder.layers.0.final_layer_norm > encoder.layers.1.self_attn.k_proj,q_proj,v_proj +
encoder.layers.1.self_attn_layer_norm > encoder.layers.1.fc1 +
encoder.layers.1.final_layer_norm > decoder.layers.0.encoder_attn.k_proj,v_proj \
decoder.layers.1.encoder_attn.k_proj,v_proj
decoder.layernorm_embedding > decoder.layers.0.self_attn.k_proj,q_proj,v_proj +
decoder.layers.0.self_attn_layer_norm > decoder.layers.0.encoder_attn.q_proj +
decoder.layers.0.encoder_attn_layer_norm > decoder.layers.0.fc1 +
decoder.layers.0.final_layer_norm > decoder.layers.1.self_attn.k_proj,q_proj,v_proj +
decoder.layers.1.self_attn_layer_norm > decoder.layers.1.encoder_attn.q_proj +
decoder.layers.1.encoder_attn_layer_norm > decoder.layers.1.fc1 +
decoder.layers.1.final_layer_norm: last norm: read by the model's head""",
    "opt": """\
decoder.layers.0.self_attn_layer_norm > decoder.layers.0.self_attn.k_proj,q_proj,v_proj
decoder.layers.0.final_layer_norm > decoder.layers.0.fc1
decoder.layers.1.self_attn_layer_norm > decoder.layers.1.self_attn.k_proj,q_proj,v_proj
decoder.layers.1.final_layer_norm > decoder.layers.1.fc1
decoder.final_layer_norm: last norm: read by the model's head""",
    "vit": _VIT,
    "deit": _VIT,
    "swin": """\
patch_embed.norm: no linear absorbs it: read by layer_norm, add
layers.0.blocks.0.norm1 > layers.0.blocks.0.attn.qkv
layers.0.blocks.0.norm2 > layers.0.blocks.0.mlp.fc1
layers.0.blocks.1.norm1 > layers.0.blocks.1.attn.qkv
layers.0.blocks.1.norm2 > layers.0.blocks.1.mlp.fc1
layers.1.downsample.norm > layers.1.downsample.reduction
layers.1.blocks.0.norm1 > layers.1.blocks.0.attn.qkv
layers.1.blocks.0.norm2 > layers.1.blocks.0.mlp.fc1
layers.1.blocks.1.norm1 > layers.1.blocks.1.attn.qkv
layers.1.blocks.1.norm2 > layers.1.blocks.1.mlp.fc1
norm: last norm: read by the model's pooler (mean)""",
}


def inputs(name: str, batch: int = 3) -> Tensor:
    """Images, or ids and masks: padding on the right, the first text is whole."""
    draw = torch.Generator().manual_seed(5)
    if name in IMAGES:
        return torch.randn(batch, 3, IMAGES[name], IMAGES[name], generator=draw)
    tokens = torch.randint(3, 50, (batch, ROWS.get(name, 2), 9), generator=draw)
    lengths = torch.tensor([9, 6, 4, 7])[:batch]
    tokens[:, 1] = torch.arange(9) < lengths[:, None]
    if name in TYPED:
        tokens[:, 2] %= 2
    return tokens


@cache
def captured(name: str, attention: str, dtype: torch.dtype = torch.float64) -> fx.GraphModule:
    """The graph of a model; `with_weights` copies it."""
    if dtype is torch.float32:
        torch.manual_seed(0)
        return capture(BUILDERS[name](attention), inputs(name))
    return as_type(captured(name, attention, torch.float32), dtype)


def with_weights(graph: fx.GraphModule, extreme: bool = False) -> fx.GraphModule:
    """A copy of `graph` with lively linears and gammas of both signs; if `extreme` also with huge
    ones, exact zeros and almost zeros."""
    graph = copy.deepcopy(graph)
    draw = torch.Generator().manual_seed(7)
    for weight in _constants(graph, aten.linear.default, (1,)):
        weight.copy_(torch.randn(weight.shape, generator=draw) / weight.shape[1] ** 0.5)
        if extreme and weight.dtype is not torch.float64:
            # Logits of a million would leave float32 no digit that could be compared.
            weight[:, 3:5] /= 1000
    for value in _constants(graph, aten.layer_norm.default, (2, 3)):
        value.copy_(torch.randn(value.shape, generator=draw))
    for gamma in _constants(graph, aten.layer_norm.default, (2,)):
        gamma.copy_(gamma.sign() * (0.1 + gamma.abs()))
        if extreme:
            gamma[3:5] *= 1000
            gamma[5:7] = 0
            gamma[7] *= 1e-9
    for beta in _constants(graph, aten.layer_norm.default, (3,)) if extreme else ():
        beta[6] = 0  # a channel that says nothing at all
    return graph


def _constants(graph: fx.GraphModule, target: Any, positions: tuple[int, ...]) -> list[Tensor]:
    """Tensors that nodes of `target` read there, each once."""
    found: dict[str, Tensor] = {}
    for node in graph.graph.nodes:
        for position in positions if node.target is target else ():
            value = attribute(graph, node.args[position])
            if value is not None:
                found[node.args[position].target] = value
    return list(found.values())


def as_type(graph: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    """A copy in which all of float32 became `dtype`, casts and constants of the graph too."""

    def change(value: Any) -> Any:
        return dtype if value is torch.float32 else value

    graph = copy.deepcopy(graph).to(dtype)
    for node in graph.graph.nodes:
        node.args, node.kwargs = (
            map_aggregate(node.args, change),
            map_aggregate(node.kwargs, change),
        )
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.dtype is torch.float32:
            node.meta["val"] = value.to(dtype)
    graph.recompile()
    return graph


class Watched(fx.Interpreter):
    """Runs a graph and keeps what its linears, and the graph, answer."""

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n.target is aten.linear.default or n.op == "output":
            self.seen[n.name] = value if isinstance(value, Tensor) else value[0]
        return value


def values(graph: fx.GraphModule, x: Tensor) -> dict[str, Tensor]:
    """Every linear's answer and the graph's, by node."""
    watched = Watched(graph)
    watched.seen = {}
    with torch.no_grad():
        watched.run(x)
    return watched.seen
