"""The lofted shells of a car: the body with its wheel arches, and the cabin on top of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from genvs.data.synthetic.parts import Part, Surface, loft, smooth_profile, vertex_normals
from genvs.data.synthetic.shading import Array

SIDE, TOP = np.linspace(0, 1, 7), np.linspace(0, np.pi / 2, 7)[1:]  # where half a cross-section has points


@dataclass(frozen=True)
class Shape:
    """A car's proportions. Lengths in metres; `*_at` are fractions of the length behind the front end.

    The cabin rises from `cowl_at` to the roof at `screen_at`, and falls from `roof_end_at` to `base_at`. The body is
    `nose` high at the front end, `cowl` at the windscreen's base, `deck` at the cabin's rear base, `tail` at the rear.
    """

    length: float
    width: float
    height: float
    wheel_radius: float
    arch: float  # radius of the wheel arches in wheel radii; 0 if the wheels stand outside the body
    tyre: float  # width, metres
    stand_out: float  # how far the wheels' outer faces stand out from the body's sides, metres
    clearance: float
    front_axle_at: float
    rear_axle_at: float
    nose: float
    cowl: float
    deck: float
    tail: float
    cowl_at: float
    screen_at: float
    roof_end_at: float
    base_at: float
    lean: float  # the cabin's sides lean inwards: metres per metre of height
    bulge: float  # the body's sides curve inwards below and above: fraction of the half width
    bow: float  # the ends are curved in plan: metres that the corners lie behind the middle
    front_rake: float  # the front leans backwards above the bumper: metres
    rear_rake: float
    rounding: float  # radius of the ends seen from the side and from above, metres
    roundness: float  # of the cabin seen from the side: fraction of the length that its corners are rounded over
    squareness: float  # exponent of the upper corners of the cross-sections: 2 round, 6 square
    front_taper: float  # how much narrower the front end is: fraction of the width
    rear_taper: float
    opening: str = ""  # of the body's top: "bed" behind the cabin, "cockpit" under it, or none

    def y(self, at: float) -> float:
        """The y coordinate of a fraction of the length behind the front end."""
        return self.length * (0.5 - at)

    @property
    def arch_radius(self) -> float:
        return self.wheel_radius * self.arch

    @property
    def axles(self) -> tuple[float, float]:
        """y of the front and rear axle."""
        return self.y(self.front_axle_at), self.y(self.rear_axle_at)

    @property
    def recess(self) -> tuple[float, float, float]:
        """The opening: y of its rear and front end, and its floor's height, clear of the wheel arches."""
        front, rear = self.axles
        if self.opening == "bed":
            return -self.length / 2 + 0.09, self.y(self.base_at) - 0.06, max(self.axle_height, self.clearance + 0.1)
        dash = min(self.y(0.6 * self.cowl_at + 0.4 * self.screen_at), front - self.arch_radius - 0.04)
        back = max(self.y(self.base_at) + 0.12, rear + self.arch_radius + 0.04)
        return back, max(dash, back + 0.5), self.clearance + 0.14

    @property
    def axle_height(self) -> float:
        """The height of the tops of the wheel arches, and a little more."""
        return self.wheel_radius + self.arch_radius + 0.03

    def top(self, y: Array | float) -> Array:
        """Height of the body along its middle (under the cabin, of the belt line)."""
        return np.asarray(np.interp(y, self._grid, self._tops))

    def roof(self, y: Array | float) -> Array:
        """Height of the cabin along its middle; below the body's top outside the cabin."""
        return np.asarray(np.interp(y, self._grid, self._roofs))

    @cached_property
    def _grid(self) -> Array:
        return np.linspace(-0.53, 0.53, 319) * self.length

    @cached_property
    def _tops(self) -> Array:
        heights = self.nose, self.cowl, self.deck, self.tail
        return smooth_profile(0.5 - self._grid / self.length, (0.0, self.cowl_at, self.base_at, 1.0), heights, 0.05)

    @cached_property
    def _roofs(self) -> Array:
        middle = 0.6 * self.screen_at + 0.4 * self.roof_end_at
        positions = (self.cowl_at, self.screen_at, middle, self.roof_end_at, self.base_at)
        drop = 0.03 * (self.height - self.cowl) / 0.5
        heights = (self.cowl - 0.02, self.height - 0.8 * drop, self.height, self.height - drop, self.deck - 0.02)
        return smooth_profile(0.5 - self._grid / self.length, positions, heights, self.roundness)

    def half_width(self, y: Array | float) -> Array:
        """Half the body's greatest width at y: narrower towards both ends, evenly so if by much."""
        ahead, tapers = np.asarray(y) / (self.length / 2), (self.front_taper, self.rear_taper)
        front, rear = (taper * np.abs(ahead) ** (3 if taper < 0.15 else 1.4) for taper in tapers)
        return self.width / 2 * (1 - np.where(ahead > 0, front, rear))

    def cabin_half_width(self, y: Array | float, z: Array | float) -> Array:
        """Half the cabin's width at height z."""
        belt = self.half_width(y) * (1 - self.bulge) - 0.015
        return belt - self.lean * (z - self.top(y))


def _beyond(y: Array, rear: float, front: float, half_length: float) -> Array:
    """0 between `rear` and `front`, growing to 1 at either end, `half_length` from the origin."""
    start = np.where(y > 0, front, -rear)
    return np.clip((np.abs(y) - start) / (half_length - start), 0, 1)


def _bend_ends(shape: Shape, rest: Array) -> Array:
    """The body's ends, bent: curved in plan, leaning backwards above the bumper, tucked in below it."""
    front, rear = shape.axles
    x, y, z = np.moveaxis(rest, -1, 0)
    beyond = _beyond(y, rear - shape.arch_radius, front + shape.arch_radius, shape.length / 2)
    bumper = shape.clearance + 0.35 * (shape.nose - shape.clearance)
    above = np.clip((z - bumper) / (shape.nose - bumper), 0, 1.2)
    below = np.clip((bumper - z) / (bumper - shape.clearance), 0, 1)
    rake = np.where(y > 0, shape.front_rake, shape.rear_rake)
    back = shape.bow * (2 * x / shape.width) ** 2 * beyond**1.5 + beyond**2 * (rake * above**1.5 + 0.07 * below**2)
    return np.stack([x, y - np.sign(y) * back, z], axis=-1)


def _bend_windscreen(shape: Shape, rest: Array) -> Array:
    """The cabin's ends, curved in plan."""
    x, y, z = np.moveaxis(rest, -1, 0)
    rear, front = shape.y(shape.base_at), shape.y(shape.cowl_at)
    middle = (rear + front) / 2
    inner = 0.6 * (shape.y(shape.roof_end_at) - middle), 0.6 * (shape.y(shape.screen_at) - middle)
    beyond = _beyond(y - middle, *inner, (front - rear) / 2)
    back = 0.7 * shape.bow * (2 * x / shape.width) ** 2 * beyond
    return np.stack([x, y - np.sign(y - middle) * back, z], axis=-1)


def _stations(shape: Shape) -> tuple[Array, Array, NDArray[np.bool_]]:
    """The body's cross-sections, rear to front: y, the bottom's height, and whether the top is open.

    Dense and sharp at the wheel arches, where the bottom follows the arch; sharp at the ends of the opening.
    """
    front, rear = shape.axles
    radius, half = shape.arch_radius, shape.length / 2
    angle = np.linspace(np.pi, 0, 12)
    arches = []
    for axle in (rear, front):
        y, z = axle + radius * np.cos(angle), shape.wheel_radius + radius * np.sin(angle)
        z = np.minimum(z, shape.top(y) - 0.12) if radius else np.full_like(y, shape.clearance)
        arches.append((np.r_[y[0], y, y[-1]], np.r_[shape.clearance, z, shape.clearance]))
    ends = np.array([0.0, 0.01, 0.05, 0.12, 0.25, 0.45, 0.7, 1.0])
    tail = -half + ends * (rear - radius + half)
    middle = np.linspace(rear + radius, front - radius, 9)[1:-1]
    nose = half - ends[::-1] * (half - front - radius)
    flat = [(y, np.full_like(y, shape.clearance)) for y in (tail[:-1], middle, nose[1:])]
    y, bottom = (np.concatenate(row) for row in zip(flat[0], arches[0], flat[1], arches[1], flat[2], strict=True))
    if not shape.opening:
        return y, bottom, np.zeros(len(y), dtype=bool)
    opened = shape.recess[:2]
    place, edge = np.repeat(np.searchsorted(y, opened), 4), np.repeat(opened, 4)
    bottom = np.insert(bottom, place, np.interp(edge, y, bottom))
    y = np.insert(y, place, edge)
    inside = (y > opened[0]) & (y < opened[1])
    starts = place[[0, 4]] + (0, 4)
    inside[starts[0] + 2 : starts[0] + 4] = inside[starts[1] : starts[1] + 2] = True
    return y, bottom, inside


def _shell(
    y: Array, x: Array, z: Array, bend: Callable[[Array], Array], surfaces: Sequence[Surface], under_columns: int = 0
) -> Part:
    """A loft through cross-sections `[S]` given by their right halves, bottom to top: y `[S]`, x and z `[S, K]`.

    A half that starts at x = 0 shares that point with its mirror image, as it always does its last one. Beyond a sharp
    edge, the first and last ring collapse to a line at their middle height, which closes the shell.
    under_columns: how many faces of a ring, from the middle of the bottom to either side, have the second surface.
    """
    mirrored = slice(-2, 0 if x[0, 0] == 0 else None, -1)
    x = np.concatenate([x, -x[:, mirrored]], axis=1)
    z = np.concatenate([z, z[:, mirrored]], axis=1)
    rows = np.stack([x, np.broadcast_to(y[:, None], x.shape), z], axis=-1)
    first, last = rows[:1].copy(), rows[-1:].copy()
    for end in (first, last):
        end[..., 2] = (end[..., 2].min() + end[..., 2].max()) / 2
    rest = np.concatenate([first, rows[:1], rows, rows[-1:], last])
    bent = bend(rest)
    faces, _, column = loft(bent)
    under = (column < under_columns) | (column >= rest.shape[1] - under_columns)
    return Part(bent.reshape(-1, 3), faces, surfaces, under.astype(np.int64), rest.reshape(-1, 3))


def body(shape: Shape, outside: Surface, underside: Surface) -> Part:
    """The body; the insides of its arches and its floor are `underside`."""
    y, bottom, opened = _stations(shape)
    depth = np.clip((np.abs(y) - shape.length / 2 + shape.rounding) / shape.rounding, 0, 1)
    shrink = 1 - np.sqrt(1 - depth**2 * 0.9999)  # how far the ends' rounding pulls in: 0 away from them, 1 at the end
    top, width = shape.top(y), shape.half_width(y) - 0.12 * shrink
    middle = 0.5 * (top + shape.clearance)
    top = top - 0.4 * shrink * (top - middle)
    bottom = bottom + 0.3 * shrink * (middle - bottom)
    crown = 0.16 * (shape.cowl - shape.clearance)
    shoulder = top - crown
    z = bottom[:, None] + (shoulder - bottom)[:, None] * SIDE
    height = np.clip((z - shape.clearance) / (shoulder - shape.clearance)[:, None], 0, 1)
    curve = np.clip(0.45 - height, 0, 1) / 0.45, np.clip(height - 0.45, 0, 1) / 0.55
    x = width[:, None] * (1 - shape.bulge * (curve[0] ** 2 + curve[1] ** 2))
    power = 2 / shape.squareness
    over_x, over_z = np.cos(TOP) ** power * x[:, -1:], shoulder[:, None] + crown * np.sin(TOP) ** power
    rail = x[opened, -1:]  # along the rail, down its inside, over the floor; sharp at the edges
    over_x[opened] = np.concatenate([rail - 0.02] + [rail - 0.09] * 4 + [0 * rail], axis=1)
    over_z[opened] = np.where(np.arange(6) < 3, top[opened, None], shape.recess[2])
    floor_x = x[:, :1] * np.array([0.0, 0.6, 1.0])
    floor_z = np.repeat(bottom[:, None], 3, axis=1)
    half_x, half_z = np.concatenate([floor_x, x, over_x], axis=1), np.concatenate([floor_z, z, over_z], axis=1)
    return _shell(y, half_x, half_z, partial(_bend_ends, shape), [outside, underside], under_columns=2)


def cabin(shape: Shape, surface: Surface, roof: bool = True) -> Part:
    """The cabin, from inside the body up to the roof; without a roof only its front, the windscreen and its frame."""
    ends = shape.y(shape.base_at) - 0.02, shape.y(shape.cowl_at) + 0.02
    y = ends[0] + (ends[1] - ends[0]) * (1 - np.cos(np.linspace(0, np.pi, 33))) / 2
    top, belt = shape.roof(y), shape.top(y)
    crown = np.clip(0.35 * (top - belt), 0.02, 0.11)
    z = belt[:, None] - 0.2 + (top - crown - belt + 0.2)[:, None] * np.linspace(0, 1, 4)
    x = shape.cabin_half_width(y[:, None], z)
    power = 2 / max(shape.squareness, 3.0)
    over_x, over_z = np.cos(TOP) ** power * x[:, -1:], (top - crown)[:, None] + crown[:, None] * np.sin(TOP) ** power
    half_x, half_z = np.concatenate([x[:, :1], x, over_x], axis=1), np.concatenate([z[:, :1], z, over_z], axis=1)
    shell = _shell(y, half_x, half_z, partial(_bend_windscreen, shape), [surface])
    if roof:
        return shell
    behind = shell.rest[shell.faces, 1].min(1) < shape.y(shape.screen_at) - 0.02  # type: ignore[index]
    return shell._replace(faces=shell.faces[~behind], surface_of_face=0)


def lining(shell: Part, surface: Surface, thickness: float = 0.03) -> Part:
    """The inside of a shell, seen where the shell has holes or ends. surface: with the shell's holes."""
    normals = vertex_normals(shell)
    inward = thickness * normals / (np.sqrt((normals**2).sum(1, keepdims=True)) + 1e-12)
    return shell._replace(vertices=shell.vertices - inward, faces=shell.faces[:, ::-1], surfaces=[surface])
