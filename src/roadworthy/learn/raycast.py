"""Exact pictures of boxes and ellipsoids on a plane: colour, and what each pixel shows, how far.

Axes: x to the right, y up, z ahead; metres. A ray's direction has a part of 1 along the optical
axis, so that the number which scales it is the depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

Vector = tuple[float, float, float]
Pixels = NDArray[np.floating[Any]]
NEAR = 0.1
"""Metres: what is nearer is not seen."""


@dataclass(frozen=True)
class Solid:
    """A box along the axes, or an ellipsoid; `thing` is the number of the object it is part of."""

    shape: Literal["box", "ellipsoid"]
    centre: Vector
    half: Vector
    colour: Vector
    thing: int
    windows: Vector | None = None
    """Colour of a grid of windows on the walls of a box."""


@dataclass(frozen=True)
class Camera:
    """A pinhole at ``(x, y, 0)`` that looks ahead, turned by `yaw` and `pitch` (radians)."""

    x: float
    y: float
    yaw: float
    pitch: float
    focal: float
    """In widths of the picture."""

    def axes(self) -> Float[NDArray[np.float64], "3 3"]:
        """Right, up and ahead, a row each."""
        sy, cy, sp, cp = (f(a) for a in (self.yaw, self.pitch) for f in (np.sin, np.cos))
        return np.array([[cy, 0, -sy], [-sy * sp, cp, -cy * sp], [sy * cp, sp, cy * cp]])


@dataclass(frozen=True)
class View:
    """What rays of one picture meet first; depth is infinite where they meet nothing."""

    depth: Float[NDArray[np.float32], "h w"]
    thing: Int[NDArray[np.int16], "h w"]
    colour: Float[NDArray[np.float32], "h w 3"]
    normal: Float[NDArray[np.float32], "h w 3"]
    point: Float[NDArray[np.float32], "h w 3"]


def cast(
    solids: Sequence[Solid], camera: Camera, height: int, width: int, ground: int, sky: int
) -> View:
    """One ray through the centre of every pixel; `ground` and `sky` are the things of the rest."""
    axes = camera.axes()
    origin = np.array([camera.x, camera.y, 0.0])
    u = (np.arange(width) + 0.5 - width / 2) / (camera.focal * width)
    v = (height / 2 - np.arange(height) - 0.5) / (camera.focal * width)
    rays = (axes[2] + u[None, :, None] * axes[0] + v[:, None, None] * axes[1]).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(rays[..., 1] < 0, -camera.y / rays[..., 1], np.inf).astype(np.float32)
        seen = View(
            depth,
            np.where(np.isfinite(depth), ground, sky).astype(np.int16),
            np.zeros_like(rays),
            np.broadcast_to(np.array([0, 1, 0], np.float32), rays.shape).copy(),
            np.zeros_like(rays),
        )
        for solid in solids:
            rows, columns = _window(solid, camera, axes, height, width)
            if rows.stop > rows.start and columns.stop > columns.start:
                _meet(solid, origin, rays[rows, columns], seen, (rows, columns))
    far = np.isfinite(depth)
    seen.point[far] = origin + rays[far] * depth[far][:, None]
    return seen


def _window(
    solid: Solid, camera: Camera, axes: Pixels, height: int, width: int
) -> tuple[slice, slice]:
    """Rows and columns outside of which the solid cannot be: those of its box's corners."""
    signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(8, 3)
    corners = np.array(solid.centre) + signs * solid.half - [camera.x, camera.y, 0]
    x, y, z = axes @ corners.T
    if z.max() < NEAR:
        return slice(0, 0), slice(0, 0)
    if z.min() < NEAR:
        return slice(0, height), slice(0, width)
    across = x / z * camera.focal * width + width / 2
    down = height / 2 - y / z * camera.focal * width
    return _clipped(down, height), _clipped(across, width)


def _clipped(places: Pixels, size: int) -> slice:
    low, high = int(np.floor(places.min())), int(np.ceil(places.max()))
    return slice(min(max(low, 0), size), min(max(high, 0), size))


def _meet(
    solid: Solid, origin: Pixels, rays: Pixels, seen: View, where: tuple[slice, slice]
) -> None:
    """Where the solid is nearer than what `seen` holds it takes its place."""
    here = (origin - solid.centre) / solid.half
    ways = rays / np.array(solid.half, np.float32)
    depth, normal = (_box if solid.shape == "box" else _ellipsoid)(here, ways)
    nearer = (depth > NEAR) & (depth < seen.depth[where])
    if not nearer.any():
        return
    met = here + ways[nearer] * depth[nearer][:, None]
    colour = np.broadcast_to(np.array(solid.colour, np.float32), met.shape).copy()
    if solid.windows is not None:
        colour[_panes(met * solid.half, normal[nearer])] = solid.windows
    unit = normal[nearer] / solid.half
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for held, new in (
        (seen.depth, depth[nearer]),
        (seen.thing, solid.thing),
        (seen.colour, colour),
        (seen.normal, unit),
    ):
        held[where][nearer] = new


def _box(here: Pixels, ways: Pixels) -> tuple[Pixels, Pixels]:
    """Depth and normal for a box from -1 to 1."""
    first, second = (-1 - here) / ways, (1 - here) / ways
    entries = np.minimum(first, second)
    enter, leave = entries.max(-1), np.maximum(first, second).min(-1)
    normal = np.zeros_like(ways)
    axis = entries.argmax(-1)[..., None]
    np.put_along_axis(normal, axis, -np.sign(np.take_along_axis(ways, axis, -1)), -1)
    return np.where(leave >= enter, enter, np.inf).astype(np.float32), normal


def _ellipsoid(here: Pixels, ways: Pixels) -> tuple[Pixels, Pixels]:
    """Depth and normal for a sphere of radius 1."""
    a, b = (ways * ways).sum(-1), ways @ here.astype(np.float32)
    root = np.sqrt(b * b - a * float(here @ here - 1))
    depth = np.nan_to_num((-b - root) / a, nan=np.inf).astype(np.float32)
    finite = np.where(np.isfinite(depth), depth, 0)
    return depth, here.astype(np.float32) + ways * finite[..., None]


def _panes(offset: Pixels, normal: Pixels) -> NDArray[np.bool_]:
    """Windows of 1.4 m on a grid of 3 m, not on roofs; `offset` from the centre in metres."""
    along = np.where(np.abs(normal[:, 0]) > 0.5, offset[:, 2], offset[:, 0])
    grid = [np.mod(each, 3.0) < 1.4 for each in (along, offset[:, 1])]
    return grid[0] & grid[1] & (np.abs(normal[:, 1]) < 0.5)
