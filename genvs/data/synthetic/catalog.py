"""The catalogue of cars: classes with their ranges of proportions, paints, and the finishes of all other parts."""

from __future__ import annotations

import numpy as np

from genvs.data.synthetic.bodies import Shape
from genvs.data.synthetic.parts import Finish

Range = tuple[float, float]

# class: its share of all cars, and the ranges of Shape's fields
CLASSES: dict[str, tuple[float, dict[str, Range]]] = {
    "sedan": (0.24, dict(
        length=(4.4, 5.1), width=(1.74, 1.92), height=(1.36, 1.5), wheel_radius=(0.31, 0.35), clearance=(0.17, 0.22),
        front_axle_at=(0.17, 0.2), rear_axle_at=(0.77, 0.8), nose=(0.70, 0.8), cowl=(0.9, 0.98), deck=(0.94, 1.06),
        tail=(0.88, 1.02), cowl_at=(0.25, 0.31), screen_at=(0.4, 0.45), roof_end_at=(0.62, 0.69),
        base_at=(0.78, 0.86), lean=(0.28, 0.42), front_rake=(0.05, 0.2),
        rear_rake=(0.02, 0.12), roundness=(0.018, 0.06), squareness=(2.3, 3.6),
    )),
    "wagon": (0.09, dict(
        length=(4.5, 5.0), width=(1.74, 1.88), height=(1.42, 1.54), wheel_radius=(0.31, 0.35), clearance=(0.17, 0.22),
        front_axle_at=(0.17, 0.2), rear_axle_at=(0.77, 0.8), nose=(0.70, 0.8), cowl=(0.9, 0.98), deck=(0.96, 1.04),
        tail=(0.9, 1.0), cowl_at=(0.24, 0.29), screen_at=(0.38, 0.42), roof_end_at=(0.88, 0.92),
        base_at=(0.97, 0.985), lean=(0.2, 0.34), front_rake=(0.05, 0.2),
        rear_rake=(0.0, 0.05), roundness=(0.015, 0.035), squareness=(2.4, 3.6),
    )),
    "hatchback": (0.17, dict(
        length=(3.5, 4.3), width=(1.64, 1.82), height=(1.42, 1.58), wheel_radius=(0.29, 0.34), clearance=(0.17, 0.22),
        front_axle_at=(0.17, 0.2), rear_axle_at=(0.81, 0.84), nose=(0.70, 0.82), cowl=(0.92, 1.0), deck=(0.98, 1.08),
        tail=(0.94, 1.04), cowl_at=(0.21, 0.27), screen_at=(0.37, 0.43), roof_end_at=(0.8, 0.88),
        base_at=(0.94, 0.98), lean=(0.22, 0.36), front_rake=(0.06, 0.22),
        rear_rake=(0.0, 0.08), roundness=(0.02, 0.055), squareness=(2.3, 3.4),
    )),
    "suv": (0.14, dict(
        length=(4.1, 4.9), width=(1.8, 2.0), height=(1.64, 1.88), wheel_radius=(0.37, 0.43), clearance=(0.27, 0.36),
        front_axle_at=(0.17, 0.2), rear_axle_at=(0.78, 0.82), nose=(0.95, 1.05), cowl=(1.08, 1.18), deck=(1.1, 1.2),
        tail=(1.06, 1.16), cowl_at=(0.24, 0.29), screen_at=(0.35, 0.42), roof_end_at=(0.88, 0.94),
        base_at=(0.965, 0.99), lean=(0.12, 0.3), front_rake=(0.0, 0.12),
        rear_rake=(0.0, 0.04), roundness=(0.012, 0.03), squareness=(2.8, 5.0),
    )),
    "van": (0.11, dict(
        length=(4.4, 5.5), width=(1.8, 2.02), height=(1.8, 2.4), wheel_radius=(0.33, 0.38), clearance=(0.2, 0.28),
        front_axle_at=(0.15, 0.19), rear_axle_at=(0.77, 0.82), nose=(0.85, 1.0), cowl=(1.05, 1.18), deck=(1.08, 1.18),
        tail=(1.06, 1.16), cowl_at=(0.09, 0.17), screen_at=(0.22, 0.31), roof_end_at=(0.955, 0.975),
        base_at=(0.99, 0.998), lean=(0.05, 0.16), front_rake=(0.02, 0.16),
        rear_rake=(0.0, 0.02), roundness=(0.01, 0.022), squareness=(3.0, 5.5),
    )),
    "pickup": (0.1, dict(
        length=(4.9, 5.7), width=(1.82, 2.04), height=(1.66, 1.88), wheel_radius=(0.37, 0.43), clearance=(0.3, 0.38),
        front_axle_at=(0.16, 0.19), rear_axle_at=(0.76, 0.79), nose=(0.98, 1.08), cowl=(1.1, 1.2), deck=(1.1, 1.22),
        tail=(1.1, 1.22), cowl_at=(0.24, 0.29), screen_at=(0.34, 0.39), roof_end_at=(0.48, 0.58),
        base_at=(0.51, 0.61), lean=(0.16, 0.3), front_rake=(0.0, 0.08),
        rear_rake=(0.0, 0.0), roundness=(0.012, 0.022), squareness=(2.8, 5.0),
    )),
    "sports": (0.10, dict(
        length=(4.1, 4.7), width=(1.82, 2.0), height=(1.12, 1.28), wheel_radius=(0.31, 0.35), clearance=(0.12, 0.16),
        front_axle_at=(0.18, 0.22), rear_axle_at=(0.77, 0.81), nose=(0.6, 0.68), cowl=(0.8, 0.88), deck=(0.86, 0.96),
        tail=(0.8, 0.92), cowl_at=(0.3, 0.38), screen_at=(0.46, 0.52), roof_end_at=(0.58, 0.67),
        base_at=(0.82, 0.93), lean=(0.4, 0.6), front_rake=(0.2, 0.42),
        rear_rake=(0.02, 0.12), roundness=(0.025, 0.07), squareness=(2.1, 2.8),
    )),
    "truck": (0.05, dict(
        length=(5.4, 6.6), width=(1.95, 2.15), height=(1.95, 2.3), wheel_radius=(0.4, 0.46), clearance=(0.36, 0.44),
        front_axle_at=(0.14, 0.17), rear_axle_at=(0.74, 0.78), nose=(1.12, 1.25), cowl=(1.28, 1.38), deck=(1.2, 1.3),
        tail=(1.2, 1.3), cowl_at=(0.06, 0.14), screen_at=(0.14, 0.19), roof_end_at=(0.3, 0.33),
        base_at=(0.32, 0.35), lean=(0.05, 0.14), front_rake=(0.0, 0.06),
        rear_rake=(0.0, 0.0), roundness=(0.008, 0.016), squareness=(3.5, 6.0),
    )),
}  # fmt: skip
SHARED: dict[str, Range] = dict(bulge=(0.03, 0.08), bow=(0.06, 0.24), rounding=(0.14, 0.45))

# The share of a paint among cars, and its colour: white, silver, greys, black, beige, then the bright ones.
PAINTS: tuple[tuple[float, tuple[float, float, float]], ...] = (
    (0.14, (0.88, 0.88, 0.87)), (0.12, (0.66, 0.68, 0.70)), (0.09, (0.40, 0.42, 0.44)), (0.09, (0.11, 0.11, 0.12)),
    (0.06, (0.80, 0.76, 0.68)), (0.13, (0.72, 0.07, 0.07)), (0.10, (0.12, 0.26, 0.70)), (0.06, (0.35, 0.58, 0.85)),
    (0.07, (0.92, 0.74, 0.08)), (0.04, (0.08, 0.34, 0.18)), (0.03, (0.45, 0.72, 0.22)), (0.04, (0.90, 0.40, 0.06)),
    (0.02, (0.38, 0.22, 0.55)), (0.03, (0.36, 0.20, 0.12)),
)  # fmt: skip

TRIM = Finish((0.10, 0.10, 0.10), 0.08, 10.0)
UNDER = Finish((0.17, 0.17, 0.17), 0.0, 1.0)
FLOOR = Finish((0.33, 0.32, 0.31), 0.05, 8.0)
STEEL = Finish((0.55, 0.53, 0.50), 0.2, 12.0)
TYRE = Finish((0.11, 0.11, 0.11), 0.04, 6.0)
LINE = Finish((0.14, 0.14, 0.14), 0.0, 1.0)
HEADLIGHT = Finish((0.92, 0.93, 0.95), 0.5, 30.0)
TAILLIGHT = Finish((0.74, 0.04, 0.03), 0.3, 20.0)
INDICATOR = Finish((0.95, 0.55, 0.08), 0.3, 20.0)
PLATE = Finish((0.90, 0.89, 0.82), 0.05, 10.0)
CHROME = Finish((0.78, 0.79, 0.81), 0.5, 24.0)


def pick(rng: np.random.Generator, shares: list[float]) -> int:
    """An index, with probabilities in proportion to `shares`."""
    cumulative = np.cumsum(shares)
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


def random_paint(rng: np.random.Generator) -> Finish:
    """A common car colour, varied a little."""
    color = np.array(PAINTS[pick(rng, [share for share, _ in PAINTS])][1])
    color = np.clip(color * rng.uniform(0.78, 1.12) + rng.normal(0, 0.014, 3), 0.03, 0.95)
    return Finish(tuple(color.tolist()), rng.uniform(0.12, 0.4), rng.uniform(14, 45))


def random_glass(rng: np.random.Generator) -> Finish:
    """Dark glass, neutral or slightly tinted."""
    tint = np.array([0.17, 0.175, 0.185]) * rng.uniform(0.6, 1.5) + rng.uniform(-0.015, 0.025, 3)
    return Finish(tuple(np.clip(tint, 0.06, 1).tolist()), rng.uniform(0.2, 0.45), rng.uniform(20, 50))


def random_class(rng: np.random.Generator) -> str:
    """A random class, by the shares of all cars."""
    return list(CLASSES)[pick(rng, [share for share, _ in CLASSES.values()])]


def random_shape(kind: str, rng: np.random.Generator) -> Shape:
    """Random proportions of a class."""
    values = {name: float(rng.uniform(*limits)) for name, limits in {**CLASSES[kind][1], **SHARED}.items()}
    # The ranges overlap; the order from front to rear, and room for a roof, must hold.
    values["screen_at"] = max(values["screen_at"], values["cowl_at"] + 0.05)
    values["roof_end_at"] = max(values["roof_end_at"], values["screen_at"] + 0.12)
    values["base_at"] = max(values["base_at"], values["roof_end_at"] + 0.02)
    return Shape(**values, open_bed=kind == "pickup" or (kind == "truck" and bool(rng.random() < 0.35)))
