"""What a back end can compute in integers: where quantizers sit and which grids they use."""

from dataclasses import dataclass

from roadworthy.core.grid import Grid
from roadworthy.errors import BadInput


@dataclass(frozen=True)
class Backend:
    """A declarative spec.

    Attributes:
        name: as given to ``--backend``.
        quantize_image: the image itself is quantized (to 8 bits).
        quantize_results: besides what enters a layer, every result that an integer kernel writes
            is quantized: convolutions before a skip add, adds, global pooling.
        symmetric_weights: weights are signed around zero at 8 bits; narrower ones are decoded to
            floats by every runtime and keep the more accurate asymmetric grid.
        signed_activations: activations use signed codes around zero.
        pair_limit: largest sum of two 8-bit weight codes that the kernel adds without saturation,
            where it has such a limit.
    """

    name: str
    quantize_image: bool = False
    quantize_results: bool = False
    symmetric_weights: bool = False
    signed_activations: bool = False
    pair_limit: int | None = None

    def weight_grid(self, bits: int) -> Grid:
        """Grid of weights of `bits` bits."""
        return Grid(bits, signed=self.symmetric_weights and bits == 8)

    def activation_grid(self, bits: int) -> Grid:
        """Grid of activations of `bits` bits."""
        return Grid(bits, signed=self.signed_activations)


ACADEMIC = Backend("academic")
"""The papers' placement: what enters a layer, nothing else; asymmetric everywhere."""

ONNXRUNTIME_CPU = Backend(
    "onnxruntime-cpu",
    quantize_image=True,
    quantize_results=True,
    symmetric_weights=True,
    pair_limit=127,
)
"""Unsigned activations times signed weights: the fast kernel of x86. Without VNNI it adds pairs of
products in 16 bits, so two weight codes may sum to 128 at most (255 * 128 < 2^15)."""

OPENVINO_CPU = Backend(
    "openvino-cpu",
    quantize_image=True,
    quantize_results=True,
    symmetric_weights=True,
    pair_limit=127,
)

TENSORRT = Backend(
    "tensorrt",
    quantize_image=True,
    quantize_results=True,
    symmetric_weights=True,
    signed_activations=True,
)

BACKENDS = (ACADEMIC, ONNXRUNTIME_CPU, OPENVINO_CPU, TENSORRT)


def backend(name: str | None, act_bits: int) -> Backend:
    """The back end of that name; by default the one with integer kernels for `act_bits`.

    No CPU runtime computes in integers below 8 bits: there the papers' placement costs nothing
    and quantizes less.

    >>> backend(None, 4).name, backend(None, 8).name
    ('academic', 'onnxruntime-cpu')
    """
    if name is None:
        return ONNXRUNTIME_CPU if act_bits == 8 else ACADEMIC
    for known in BACKENDS:
        if known.name == name:
            return known
    allowed = ", ".join(known.name for known in BACKENDS)
    raise BadInput(f"unknown backend {name!r}; allowed: {allowed}")
