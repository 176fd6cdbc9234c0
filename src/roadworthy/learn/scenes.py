"""Street-like scenes with everything that can be said of them: the source that needs no download.

A scene is drawn at random from its number: a road between houses, light, weather, a protagonist in
front of the camera and others around it. It is cast, not painted, so that caption, boxes, mask and
depth are exact. Every number measured on it must say that it is synthetic.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from PIL import Image

from roadworthy.errors import BadInput
from roadworthy.learn.raycast import Camera, Solid, Vector, View, cast
from roadworthy.learn.sample import Sample

STUFF = ("sky", "road", "sidewalk", "grass", "building", "tree")
OBJECTS = ("car", "bus", "truck", "person", "bicycle", "traffic light", "traffic sign")
CLASSES = STUFF + OBJECTS
"""What the ids of masks mean."""
LIGHTS = ("day", "dusk", "night", "fog")
FEWEST = 6
"""Visible pixels below which an object has no box and is not spoken of."""
FARTHEST = 80.0
"""Metres beyond which depth is NaN, as KITTI judges: a road ends nowhere."""
_COLOURS: dict[str, Vector] = {
    "red": (0.75, 0.1, 0.1),
    "blue": (0.1, 0.2, 0.7),
    "white": (0.9, 0.9, 0.9),
    "black": (0.06, 0.06, 0.07),
    "yellow": (0.9, 0.75, 0.1),
    "green": (0.1, 0.5, 0.2),
    "grey": (0.45, 0.46, 0.48),
}
_GLASS, _RUBBER, _SKIN = (0.25, 0.33, 0.4), (0.04, 0.04, 0.04), (0.8, 0.6, 0.45)


@dataclass(frozen=True)
class Thing:
    """One object, or a house, or a tree: its class, its colour's name and its solids."""

    name: str
    colour: str
    solids: tuple[Solid, ...]


@dataclass(frozen=True)
class Scene:
    """What is there to be seen; `things` begin with sky, road, sidewalk and grass."""

    protagonist: str
    light: str
    road: float
    """Half its width, metres."""
    camera: Camera
    things: tuple[Thing, ...]


_GROUND = tuple(Thing(name, "", ()) for name in STUFF[:4])
_SKY, _ROAD, _SIDEWALK, _GRASS = range(4)
_WALK = 2.5
Random = np.random.Generator


def render(number: int, size: int = 64) -> Sample:
    """Scene `number` as a square picture of `size` pixels a side, with all of its annotations.

    >>> sample = render(7)
    >>> sample.captions, sample.labels, sample.mask.shape
    (('a traffic sign on a street by day',), ('traffic sign',), (64, 64))

    Raises:
        BadInput: no pixel a side.
    """
    if size < 1:
        raise BadInput(f"scenes of {size} pixels a side given; 1 or more are needed")
    random = np.random.default_rng(number)
    scene = draw(random)
    solids = [solid for thing in scene.things for solid in thing.solids]
    exact, fine = (_seen(scene, solids, size * each) for each in (1, 2))
    colour = _lit(scene, fine, random).reshape(size, 2, size, 2, 3).mean((1, 3))
    colour = np.clip(colour + random.normal(0, 0.008, colour.shape), 0, 1)
    boxes, named = _boxes(scene, exact.thing)
    held = io.BytesIO()
    Image.fromarray(np.round(255 * colour).astype(np.uint8)).save(held, "PNG")
    return Sample(
        held.getvalue(),
        f"scene-{number}",
        "roadworthy scenes (synthetic)",
        "Apache-2.0",
        captions=(_caption(scene, [scene.things[thing] for thing in named]),),
        labels=(scene.protagonist,),
        boxes=boxes,
        box_labels=tuple(scene.things[thing].name for thing in named),
        mask=_mask(scene, exact.thing),
        mask_labels=CLASSES,
        depth=np.where(exact.depth <= FARTHEST, exact.depth, np.nan).astype(np.float32),
    )


def scenes(numbers: range, size: int = 64) -> Iterator[Sample]:
    """The scenes of `numbers`; ranges that do not meet are splits without a common scene."""
    return (render(number, size) for number in numbers)


def draw(random: Random) -> Scene:
    """A scene at random."""
    road = float(random.uniform(3, 4.5))
    camera = Camera(
        x=float(random.uniform(-0.5, 0.5)) * road,
        y=float(random.uniform(1.3, 2.2)),
        yaw=float(random.uniform(-0.15, 0.15)),
        pitch=float(random.uniform(-0.12, 0.03)),
        focal=float(random.uniform(0.7, 1.0)),
    )
    protagonist = str(random.choice(OBJECTS))
    things = [*_GROUND, *_houses(random, road, len(_GROUND))]
    for name in (protagonist, *random.choice([*OBJECTS, "tree", "tree"], random.integers(1, 7))):
        first = protagonist not in {thing.name for thing in things}
        x, z = _place(str(name), random, camera, road, first)
        things.append(_thing(str(name), random, x, z, len(things)))
    return Scene(protagonist, str(random.choice(LIGHTS)), road, camera, tuple(things))


def _place(
    name: str, random: Random, camera: Camera, road: float, first: bool
) -> tuple[float, float]:
    """Where it stands: the protagonist close ahead, vehicles on the road, the rest beside it."""
    if first:
        z = float(random.uniform(4, 9) if name in ("car", "person", "bicycle") else 8)
        return camera.x + z * float(np.tan(-camera.yaw) + random.uniform(-0.2, 0.2)), z
    z = float(random.uniform(8, 45))
    if name in ("car", "bus", "truck"):
        return float(random.choice([-0.5, 0.5])) * road, z
    if name == "bicycle":
        return float(random.uniform(-road, road)), z
    return float(random.choice([-1, 1])) * (road + float(random.uniform(0.4, _WALK))), z


def _houses(random: Random, road: float, first: int) -> list[Thing]:
    found: list[Thing] = []
    for side in (-1, 1):
        z = float(random.uniform(2, 8))
        while z < 70:
            deep, high, back = (float(random.uniform(*span)) for span in ((4, 8), (3, 11), (0, 4)))
            grey = float(random.uniform(0.3, 0.8))
            wall = _tinted((grey, grey, grey), random, 0.7, 1.1)
            x = side * (road + _WALK + 1 + back + 5)
            if random.random() < 0.8:
                house = Solid(
                    "box", (x, high, z + deep), (5, high, deep), wall, first + len(found), _GLASS
                )
                found.append(Thing("building", "", (house,)))
            z += 2 * deep + float(random.uniform(0, 3))
    return found


def _thing(name: str, random: Random, x: float, z: float, number: int) -> Thing:
    colour = str(random.choice(list(_COLOURS)))
    build = _BUILDERS[name]
    parts = build(_COLOURS[colour], random)
    solids = (
        Solid(each.shape, (x + each.centre[0], each.centre[1], z + each.centre[2]), each.half,
              each.colour, number, each.windows)
        for each in parts
    )  # fmt: skip
    said = colour if name in ("car", "bus", "truck") else ""
    return Thing(name, said, tuple(solids))


def _tinted(colour: Vector, random: Random, low: float, high: float) -> Vector:
    red, green, blue = (float(part * random.uniform(low, high)) for part in colour)
    return red, green, blue


def _part(shape: Any, centre: Vector, half: Vector, colour: Vector) -> Solid:
    return Solid(shape, centre, half, colour, 0)


def _wheels(across: float, along: float, radius: float) -> list[Solid]:
    return [
        _part("ellipsoid", (x, radius, z), (0.15, radius, radius), _RUBBER)
        for x in (-across, across)
        for z in (-along, along)
    ]


def _car(colour: Vector, random: Random) -> list[Solid]:
    high = float(random.uniform(0.3, 0.4))
    body = _part("box", (0, 0.35 + high, 0), (0.9, high, 2.1), colour)
    cabin = _part("box", (0, 0.65 + 2 * high, -0.2), (0.75, 0.3, 1.1), _GLASS)
    roof = _part("box", (0, 0.97 + 2 * high, -0.2), (0.75, 0.04, 1.1), colour)
    lamps = [_part("box", (x, 0.45 + high, -2.1), (0.2, 0.1, 0.05), (0.9, 0.1, 0.1))
             for x in (-0.65, 0.65)]  # fmt: skip
    return [body, cabin, roof, *lamps, *_wheels(0.85, 1.3, 0.33)]


def _bus(colour: Vector, random: Random) -> list[Solid]:
    long = float(random.uniform(4, 6))
    low = _part("box", (0, 1.0, long), (1.25, 0.65, long), colour)
    glass = _part("box", (0, 2.1, long), (1.23, 0.5, long - 0.02), _GLASS)
    roof = _part("box", (0, 2.75, long), (1.25, 0.2, long), colour)
    return [low, glass, roof, *_wheels(1.2, 0.8 * long, 0.5)]


def _truck(colour: Vector, random: Random) -> list[Solid]:
    long = float(random.uniform(2, 3.5))
    load = _part("box", (0, 2.0, long), (1.25, 1.3, long), (0.8, 0.8, 0.78))
    cabin = _part("box", (0, 1.4, 2 * long + 1), (1.15, 0.9, 0.9), colour)
    beam = _part("box", (0, 0.6, long), (0.5, 0.12, long), _RUBBER)
    bar = _part("box", (0, 0.75, -0.05), (1.25, 0.12, 0.05), colour)
    return [load, cabin, beam, bar, *_wheels(1.1, 0.7 * long, 0.5)]


def _person(colour: Vector, random: Random) -> list[Solid]:
    tall = float(random.uniform(0.85, 1.1))
    step = float(random.uniform(0.02, 0.2))
    legs = [_part("box", (x, 0.42 * tall, x * step * 4), (0.09, 0.42 * tall, 0.1),
                  (0.15, 0.15, 0.22)) for x in (-0.11, 0.11)]  # fmt: skip
    trunk = _part("ellipsoid", (0, 1.15 * tall, 0), (0.27, 0.4 * tall, 0.17), colour)
    return [*legs, trunk, _part("ellipsoid", (0, 1.66 * tall, 0), (0.12, 0.15, 0.13), _SKIN)]


def _bicycle(colour: Vector, random: Random) -> list[Solid]:
    wheels = [_part("ellipsoid", (x, 0.35, 0), (0.35, 0.35, 0.03), _RUBBER) for x in (-0.55, 0.55)]
    hubs = [_part("ellipsoid", (x, 0.35, -0.02), (0.27, 0.27, 0.025), (0.6, 0.6, 0.6))
            for x in (-0.55, 0.55)]  # fmt: skip
    frame = _part("box", (0, 0.6, 0), (0.5, 0.04, 0.03), colour)
    posts = [_part("box", (x, 0.7, 0), (0.03, 0.32, 0.03), colour) for x in (-0.3, 0.48)]
    bar = _part("box", (0.48, 1.02, 0), (0.04, 0.03, 0.3), _RUBBER)
    saddle = _part("box", (-0.32, 1.0, 0), (0.15, 0.04, 0.07), _RUBBER)
    return [*wheels, *hubs, frame, *posts, bar, saddle]


def _traffic_light(_: Vector, random: Random) -> list[Solid]:
    post = _part("box", (0, 1.3, 0), (0.06, 1.3, 0.06), (0.3, 0.3, 0.3))
    head = _part("box", (0, 3.05, 0), (0.2, 0.5, 0.15), (0.08, 0.09, 0.08))
    on = int(random.integers(3))
    lit = [(1.0, 0.1, 0.1), (1.0, 0.7, 0.1), (0.1, 1.0, 0.3)]
    lamps = [
        _part("ellipsoid", (0, 3.35 - 0.3 * i, -0.15), (0.12, 0.12, 0.06),
              lit[i] if i == on else (0.12, 0.12, 0.1))
        for i in range(3)
    ]  # fmt: skip
    return [post, head, *lamps]


def _traffic_sign(_: Vector, random: Random) -> list[Solid]:
    post = _part("box", (0, 1.1, 0), (0.04, 1.1, 0.04), (0.5, 0.5, 0.5))
    rim, face = [((0.8, 0.1, 0.1), (0.95, 0.95, 0.95)), ((0.95, 0.95, 0.95), (0.1, 0.25, 0.7))][
        int(random.integers(2))
    ]
    shape = "ellipsoid" if random.random() < 0.5 else "box"
    plate = _part(shape, (0, 2.5, -0.05), (0.4, 0.4, 0.03), rim)
    return [post, plate, _part(shape, (0, 2.5, -0.08), (0.3, 0.3, 0.025), face)]


def _tree(_: Vector, random: Random) -> list[Solid]:
    high, wide = float(random.uniform(1, 2)), float(random.uniform(1, 1.8))
    green = _tinted((0.16, 0.36, 0.12), random, 0.7, 1.2)
    trunk = _part("box", (0, high, 0), (0.15, high, 0.15), (0.3, 0.2, 0.12))
    crown = _part("ellipsoid", (0, 2 * high + wide * 0.8, 0), (wide, wide * 1.1, wide), green)
    return [trunk, crown]


_BUILDERS: dict[str, Callable[[Vector, Random], list[Solid]]] = {
    "car": _car,
    "bus": _bus,
    "truck": _truck,
    "person": _person,
    "bicycle": _bicycle,
    "traffic light": _traffic_light,
    "traffic sign": _traffic_sign,
    "tree": _tree,
}


def _seen(scene: Scene, solids: Sequence[Solid], size: int) -> View:
    """The view with its ground told apart."""
    view = cast(solids, scene.camera, size, size, _ROAD, _SKY)
    side = np.abs(view.point[..., 0])
    ground = view.thing == _ROAD
    view.thing[ground & (side > scene.road)] = _SIDEWALK
    view.thing[ground & (side > scene.road + _WALK)] = _GRASS
    return view


_ON_GROUND = np.array([(0, 0, 0), (0.2, 0.2, 0.21), (0.5, 0.49, 0.47), (0.2, 0.36, 0.13)])
_SKIES: dict[str, tuple[Vector, float, float, float]] = {
    # colour of the sky, light from everywhere, light from the sun, metres to see
    "day": ((0.55, 0.72, 0.92), 0.55, 0.6, 400),
    "dusk": ((0.85, 0.55, 0.4), 0.4, 0.35, 200),
    "night": ((0.07, 0.08, 0.16), 0.32, 0.16, 150),
    "fog": ((0.72, 0.74, 0.76), 0.6, 0.15, 25),
}
_SUN = np.array([0.4, 0.75, -0.53])


def _lit(scene: Scene, view: View, random: Random) -> Float[NDArray[np.floating[Any]], "h w 3"]:
    sky, everywhere, sun, reach = _SKIES[scene.light]
    colour = view.colour.copy()
    ground = view.thing < len(_GROUND)
    colour[ground] = _ON_GROUND[view.thing[ground]]
    _mark(view, colour)
    grain = random.uniform(0.92, 1.08, view.depth.shape)[..., None]
    light = everywhere + sun * np.clip(view.normal @ _SUN, 0, 1)[..., None]
    bright = colour * light * grain
    if scene.light == "night":  # what shines needs no light
        bright = np.where(colour.max(-1, keepdims=True) >= 1, colour, bright)
    through = np.exp(-view.depth / reach)[..., None]
    height = np.linspace(1.1, 0.85, len(colour))[:, None, None]
    hazy = bright * through + np.array(sky) * (1 - through)
    return np.where((view.thing == _SKY)[..., None], np.array(sky) * height, hazy)


def _mark(view: View, colour: NDArray[Any]) -> None:
    """A broken white line along the middle of the road."""
    x, z = view.point[..., 0], view.point[..., 2]
    line = (view.thing == _ROAD) & (np.abs(x) < 0.12) & (np.mod(z, 6) < 3)
    colour[line] = 0.85


def _mask(scene: Scene, thing: Int[NDArray[np.int16], "h w"]) -> UInt8[NDArray[np.uint8], "h w"]:
    return np.array([CLASSES.index(each.name) for each in scene.things], np.uint8)[thing]


def _boxes(
    scene: Scene, thing: Int[NDArray[np.int16], "h w"]
) -> tuple[Float[NDArray[np.float64], "n 4"], list[int]]:
    """Boxes around what is seen of every object, and which things these are."""
    rows: list[list[int]] = []
    named: list[int] = []
    for number, each in enumerate(scene.things):
        y, x = np.nonzero(thing == number)
        if each.name in OBJECTS and len(y) >= FEWEST:
            rows.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
            named.append(number)
    return np.array(rows, np.float64).reshape(-1, 4), named


def _caption(scene: Scene, seen: Sequence[Thing]) -> str:
    """What can be seen, in a sentence."""
    kinds = sorted(dict.fromkeys((thing.colour, thing.name) for thing in seen))
    counted = [(sum((t.colour, t.name) == kind for t in seen), *kind) for kind in kinds]
    said = [_some(*each) for each in counted] or ["nothing"]
    listed = " and ".join(filter(None, [", ".join(said[:-1]), said[-1]]))
    return f"{listed} on a street {'in fog' if scene.light == 'fog' else _WHEN[scene.light]}"


_WHEN = {"day": "by day", "dusk": "at dusk", "night": "at night"}
_NUMBERS = ("no", "a", "two", "three", "four", "five", "six", "seven")


def _some(count: int, colour: str, name: str) -> str:
    plural = {"person": "people", "bus": "buses"}.get(name, name + "s")
    return " ".join(filter(None, [_NUMBERS[count], colour, name if count == 1 else plural]))
