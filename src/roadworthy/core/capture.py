"""From any `nn.Module` to a plain graph of aten operators with a dynamic batch.

`torch.export` does the tracing; what follows makes the graph easier to reason about without
changing a bit of its output beyond BatchNorm folding: in-place operators become functional,
inactive dropout goes, fused attention is opened so that its two products can be quantized.
"""

import io
import logging
import re
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, fx, nn

from roadworthy.core.fold import fold_batch_norm
from roadworthy.errors import BadModel, brief

aten = torch.ops.aten

_FUNCTIONAL: dict[Any, Any] = {
    aten.relu_.default: aten.relu.default,
    aten.add_.Tensor: aten.add.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
    aten.hardtanh_.default: aten.hardtanh.default,
    aten.hardswish_.default: aten.hardswish.default,
    aten.silu_.default: aten.silu.default,
    aten.leaky_relu_.default: aten.leaky_relu.default,
    aten.elu_.default: aten.elu.default,
    aten.sigmoid_.default: aten.sigmoid.default,
    aten.hardsigmoid_.default: aten.hardsigmoid.default,
}
_IDLE = {aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default}


def capture(module: nn.Module, example: Shaped[Tensor, " b *s"]) -> fx.GraphModule:
    """Capture `module` in eval mode as a graph whose first dimension is dynamic.

    Integers are texts, ``[b r t]``: the number of tokens is dynamic as well.

    Args:
        module: any model of one tensor input and one tensor output.
        example: input of at least one sample; only its shape and type matter.

    Raises:
        BadModel: `torch.export` refuses the model (the message names the line), the model has more
            than one output, or holds NaN or infinite weights.

    >>> g = capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.zeros(1, 3, 8, 8))
    >>> g(torch.zeros(5, 3, 8, 8)).shape
    torch.Size([5, 4, 6, 6])
    """
    module = module.eval()
    _check_finite(module)
    sample = torch.cat([example[:1]] * 2)
    _check_answer(module, sample)
    graph = _export(module, sample)
    _drop_assertions(graph)
    _make_functional(graph)
    _open_attention(graph)
    fold_batch_norm(graph)
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    _check_same(graph, module, sample)
    return graph


def dynamic_axes(example: Shaped[Tensor, " b *s"]) -> tuple[int, ...]:
    """The axes of a model's input that may have any length: the batch, and of texts the tokens.

    >>> dynamic_axes(torch.zeros(1, 3, 8, 8)), dynamic_axes(torch.ones(1, 3, 8, dtype=torch.int64))
    ((0,), (0, 2))
    """
    return (0,) if example.is_floating_point() else (0, example.ndim - 1)


def _check_finite(module: nn.Module) -> None:
    for name, value in module.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BadModel(
                f"weight {name!r} holds NaN or infinite values; only finite weights can be "
                "quantized: repair or re-download the checkpoint"
            )


def _check_answer(module: nn.Module, sample: Tensor) -> None:
    """The module must turn `sample` into one tensor of finite numbers."""
    name, shape = type(module).__name__, list(sample.shape)
    kind = str(sample.dtype).removeprefix("torch.")
    try:
        with torch.no_grad():
            answer = module(sample)
    except Exception as error:
        reason = brief(error)
        raise BadModel(
            f"{name} fails on {kind} input of shape {shape}: {type(error).__name__}: {reason}; "
            "give it the input that it was made for (size and crop of the preprocessing)"
        ) from error
    if not isinstance(answer, Tensor):
        count = f" of {len(answer)} outputs" if isinstance(answer, tuple | list | dict) else ""
        raise BadModel(
            f"{name} returns a {type(answer).__name__}{count}; one tensor is allowed: "
            "wrap the model in a module whose forward returns the one to keep"
        )
    if not answer.is_floating_point():
        raise BadModel(f"{name} returns {answer.dtype}; floating-point logits are allowed")
    if not bool(torch.isfinite(answer).all()):
        raise BadModel(f"{name} answers NaN or infinite values; check its weights")


@contextmanager
def _quiet() -> Generator[None]:
    """No log lines, no graph dumps: a failing export is told by its error, in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _drop_assertions(graph: fx.GraphModule) -> None:
    """Casts leave checks of their input's type behind, which compute nothing."""
    for node in list(graph.graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph.graph.erase_node(node)


def _export(module: nn.Module, sample: Tensor) -> fx.GraphModule:
    shapes = dict.fromkeys(dynamic_axes(sample), torch.export.Dim.DYNAMIC)
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(module, (sample,), dynamic_shapes=(shapes,))
    except Exception as error:
        raise BadModel(_explain(module, error)) from error
    graph = program.module(check_guards=False)
    assert isinstance(graph, fx.GraphModule)
    return graph


def _explain(module: nn.Module, error: Exception) -> str:
    """One line out of a `torch.export` failure: the user's own source line and the reason."""
    text = str(error)
    own = [
        place
        for place in re.findall(r'File "([^"]+)", line (\d+)', text)
        if "/torch/" not in place[0]
    ]
    trace = error.__traceback__
    while not own and trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if type(module).__module__ == trace.tb_frame.f_globals.get("__name__"):
            own = [(file, str(trace.tb_lineno))]
        trace = trace.tb_next
    where = f" at {own[-1][0]}:{own[-1][1]}" if own else ""
    reason = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return (
        f"torch.export cannot capture {type(module).__name__}{where}: {reason[:200]}; "
        "replace control flow that depends on tensor values by torch.where or torch.cond"
    )


def _make_functional(graph: fx.GraphModule) -> None:
    """Replace in-place operators; later readers of the mutated tensor read the result instead."""
    seen: set[fx.Node] = set()
    for node in list(graph.graph.nodes):
        seen.add(node)
        if node.target in _IDLE:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
        elif node.target in _FUNCTIONAL:
            node.target = _FUNCTIONAL[node.target]
            source = node.args[0]
            source.replace_all_uses_with(node, lambda user: user not in seen)


def _open_attention(graph: fx.GraphModule) -> None:
    """Scaled dot product attention as matmul, softmax, matmul; causal ones stay as they are."""
    for node in list(graph.graph.nodes):
        if node.target is not aten.scaled_dot_product_attention.default:
            continue
        given: list[Any] = list(node.args)
        query, key, value, mask, _, causal = [*given, None, 0.0, False][:6]
        mask = node.kwargs.get("attn_mask", mask) if len(given) < 4 else mask
        if causal or node.kwargs.get("is_causal") or node.kwargs.get("enable_gqa"):
            continue
        head = int(node.all_input_nodes[0].meta["val"].shape[-1])
        scale = node.kwargs.get("scale") or float(head) ** -0.5
        with graph.graph.inserting_before(node):
            result = _attention(graph, node, (query, key, value, mask), scale)
        node.replace_all_uses_with(result)
        graph.graph.erase_node(node)


def _attention(
    graph: fx.GraphModule, old: fx.Node, operands: tuple[Any, ...], scale: float
) -> fx.Node:
    query, key, value, mask = operands

    def call(target: Any, *args: Any) -> fx.Node:
        node = graph.graph.call_function(target, args)
        node.meta["nn_module_stack"] = old.meta.get("nn_module_stack", {})
        values = [a.meta["val"] if isinstance(a, fx.Node) else a for a in args]
        node.meta["val"] = target(*values)
        return node

    scores = call(
        aten.matmul.default,
        call(aten.mul.Tensor, query, scale),
        call(aten.transpose.int, key, -2, -1),
    )
    if mask is not None and mask.meta["val"].dtype is torch.bool:
        # Added, which a runtime does four times as fast as choosing between all scores and a fill.
        mask = call(aten.where.Scalar, mask, 0.0, float("-inf"))
    if mask is not None:
        scores = call(aten.add.Tensor, scores, mask)
    return call(aten.matmul.default, call(aten.softmax.int, scores, -1), value)


def _check_same(graph: fx.GraphModule, module: nn.Module, sample: Tensor) -> None:
    """The captured graph must compute what the module computes, on a batch of another size."""
    probe = torch.randn(3, *sample.shape[1:], generator=torch.Generator().manual_seed(0))
    # Not every integer names a token: those of the sample do.
    probe = probe.to(sample) if sample.is_floating_point() else torch.cat([sample, sample[:1]])
    with torch.no_grad():
        wanted, got = module(probe), graph(probe)
    got = got[0] if isinstance(got, tuple | list) else got
    span = float(wanted.abs().max()) + 1e-6
    error = float((wanted - got).abs().max()) / span
    if not error < 1e-3:
        raise BadModel(
            f"the captured graph of {type(module).__name__} differs from the model by {error:.1e} "
            "of its output range; a model whose behaviour changes from call to call cannot be "
            "captured: call .eval() and remove randomness"
        )


def module_path(node: fx.Node) -> list[tuple[str, str]]:
    """(path, class name) of every module around `node`, outermost first, the root left out."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    return [
        (path, kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}")
        for path, kind in stack.values()
        if path
    ]
