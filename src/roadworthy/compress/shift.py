"""Channel-wise shifts: a norm writes ``LN(x) - z`` (Outlier Suppression+, arXiv 2304.09145).

``z`` leaves the norm's beta; linears take ``W z`` into their bias, everything else reads
``LN' + z``, so the network computes what it did. No gain can move a channel's centre to zero.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, fx

from roadworthy.compress.constants import Constants
from roadworthy.compress.readers import (
    Reads,
    can_absorb,
    gamma_of,
    inner_nodes,
    reads_of,
    value_of,
)
from roadworthy.core.fold import attribute

aten = torch.ops.aten


def shift(graph: fx.GraphModule, shifts: Mapping[str, Float[Tensor, " d"]]) -> None:
    """Shift, in place, the norms of a captured graph that an inner linear reads.

    A norm stays where something between it and its linears lets no summand through: a padding
    with zeros, a mask. Sums are computed in float64 and kept in the constants' type.

    Args:
        graph: from `roadworthy.core.capture.capture`.
        shifts: ``z`` by the name of a norm's gamma; norms that are not named stay.

    >>> from torch import nn
    >>> from roadworthy.core.capture import capture
    >>> net = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    >>> _ = nn.init.constant_(net[0].bias, 9)
    >>> graph = capture(net, torch.zeros(1, 4))
    >>> shift(graph, {gamma_of(next(iter(shiftable(graph)))): torch.full((4,), 9.0)})
    >>> x = torch.randn(3, 4)
    >>> torch.allclose(graph(x), net(x), atol=1e-5)
    True
    """
    constants = Constants(graph)
    for norm, reads in shiftable(graph).items():
        z = shifts.get(gamma_of(norm) or "")
        if z is not None:
            _shift(norm, reads, z.double(), constants)
    graph.graph.lint()
    graph.recompile()


def shiftable(graph: fx.GraphModule) -> dict[fx.Node, Reads]:
    """Norms that can be shifted, with what reads them."""
    inner, found = inner_nodes(graph), dict[fx.Node, Reads]()
    for norm in graph.graph.nodes:
        if not _is_plain(graph, norm):
            continue
        reads, scaled = (_reads(graph, norm, inner, shifted) for shifted in (True, False))
        if reads.linears and reads.linears == scaled.linears:
            found[norm] = reads
    return found


def scalable(graph: fx.GraphModule) -> dict[fx.Node, Reads]:
    """Norms that can be scaled, with what reads them: all that can be shifted, and more."""
    inner = inner_nodes(graph)
    norms = (norm for norm in graph.graph.nodes if _is_plain(graph, norm))
    found = {norm: _reads(graph, norm, inner, False) for norm in norms}
    return {norm: reads for norm, reads in found.items() if reads.linears}


def _reads(graph: fx.GraphModule, norm: fx.Node, inner: set[fx.Node], shifted: bool) -> Reads:
    one = torch.ones(1, dtype=torch.float64)
    return reads_of(norm, lambda u: u in inner and can_absorb(graph, u, one), shifted)


def _is_plain(graph: fx.GraphModule, norm: fx.Node) -> bool:
    """Whether gamma and beta, where there is one, are constants ``[d]`` of the values' type."""
    if gamma_of(norm) is None:
        return False
    given = [attribute(graph, each) for each in norm.args[2:4] if each is not None]
    return all(v is not None and v.ndim == 1 and v.dtype == value_of(norm).dtype for v in given)


def _shift(norm: fx.Node, reads: Reads, z: Tensor, constants: Constants) -> None:
    graph, owner = constants.graph, f"{norm.args[2]} {norm.args[3:4]}"
    for source in dict.fromkeys(source for source, _ in reads.others):
        with graph.graph.inserting_after(source):
            restored = graph.graph.call_function(aten.add.Tensor, (source, source))
        restored.meta = dict(source.meta)
        constants.put(restored, 1, (f"{gamma_of(norm)}_shift", owner), z.to(value_of(norm).dtype))
        for reader in (r for s, r in reads.others if s is source):
            reader.replace_input_with(source, restored)
    for linear in reads.linears:
        weight, bias = (attribute(graph, arg) for arg in (*linear.args[1:3], None)[:2])
        assert weight is not None
        moved = weight.double() @ z + (0 if bias is None else bias.double())
        names = [str(getattr(arg, "target", None)) for arg in linear.args[1:3]]
        constants.put(linear, 2, (f"{names[0]}_bias", *names[1:], owner), moved.to(weight.dtype))
    (beta,) = [attribute(graph, each) for each in (*norm.args[3:4], None)[:1]]
    less = -z if beta is None else beta.double() - z
    constants.put(norm, 3, (f"{gamma_of(norm)}_beta", owner), less.to(value_of(norm).dtype))
