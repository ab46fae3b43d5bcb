"""The catalogue of cars: classes with their ranges of proportions, paints, and the finishes of all other parts."""

from __future__ import annotations

import numpy as np

from genvs.data.synthetic.bodies import Shape
from genvs.data.synthetic.parts import Finish

# The share of each class among cars, and the ranges of Shape's fields, which are drawn in this order.
_TABLE = """
class         sedan       wagon       hatchback   suv         van         pickup      sports      truck
share         0.24        0.09        0.17        0.14        0.11        0.1         0.1         0.05
length        4.4-5.1     4.5-5.0     3.5-4.3     4.1-4.9     4.4-5.5     4.9-5.7     4.1-4.7     5.4-6.6
width         1.74-1.92   1.74-1.88   1.64-1.82   1.8-2.0     1.8-2.02    1.82-2.04   1.82-2.0    1.95-2.15
height        1.36-1.5    1.42-1.54   1.42-1.58   1.64-1.88   1.8-2.4     1.66-1.88   1.12-1.28   1.95-2.3
wheel_radius  0.31-0.35   0.31-0.35   0.29-0.34   0.37-0.43   0.33-0.38   0.37-0.43   0.31-0.35   0.4-0.46
clearance     0.17-0.22   0.17-0.22   0.17-0.22   0.27-0.36   0.2-0.28    0.3-0.38    0.12-0.16   0.36-0.44
front_axle_at 0.17-0.2    0.17-0.2    0.17-0.2    0.17-0.2    0.15-0.19   0.16-0.19   0.18-0.22   0.14-0.17
rear_axle_at  0.77-0.8    0.77-0.8    0.81-0.84   0.78-0.82   0.77-0.82   0.76-0.79   0.77-0.81   0.74-0.78
nose          0.7-0.8     0.7-0.8     0.7-0.82    0.95-1.05   0.85-1.0    0.98-1.08   0.6-0.68    1.12-1.25
cowl          0.9-0.98    0.9-0.98    0.92-1.0    1.08-1.18   1.05-1.18   1.1-1.2     0.8-0.88    1.28-1.38
deck          0.94-1.06   0.96-1.04   0.98-1.08   1.1-1.2     1.08-1.18   1.1-1.22    0.86-0.96   1.2-1.3
tail          0.88-1.02   0.9-1.0     0.94-1.04   1.06-1.16   1.06-1.16   1.1-1.22    0.8-0.92    1.2-1.3
cowl_at       0.25-0.31   0.24-0.29   0.21-0.27   0.24-0.29   0.09-0.17   0.24-0.29   0.3-0.38    0.06-0.14
screen_at     0.4-0.45    0.38-0.42   0.37-0.43   0.35-0.42   0.22-0.31   0.34-0.39   0.46-0.52   0.14-0.19
roof_end_at   0.62-0.69   0.88-0.92   0.8-0.88    0.88-0.94   0.955-0.975 0.48-0.58   0.58-0.67   0.3-0.33
base_at       0.78-0.86   0.97-0.985  0.94-0.98   0.965-0.99  0.99-0.998  0.51-0.61   0.82-0.93   0.32-0.35
lean          0.28-0.42   0.2-0.34    0.22-0.36   0.12-0.3    0.05-0.16   0.16-0.3    0.4-0.6     0.05-0.14
front_rake    0.05-0.2    0.05-0.2    0.06-0.22   0.0-0.12    0.02-0.16   0.0-0.08    0.2-0.42    0.0-0.06
rear_rake     0.02-0.12   0.0-0.05    0.0-0.08    0.0-0.04    0.0-0.02    0.0-0.0     0.02-0.12   0.0-0.0
roundness     0.018-0.06  0.015-0.035 0.02-0.055  0.012-0.03  0.01-0.022  0.012-0.022 0.025-0.07  0.008-0.016
squareness    2.3-3.6     2.4-3.6     2.3-3.4     2.8-5.0     3.0-5.5     2.8-5.0     2.1-2.8     3.5-6.0
bulge         0.03-0.08   0.03-0.08   0.03-0.08   0.03-0.08   0.03-0.08   0.03-0.08   0.03-0.08   0.03-0.08
bow           0.06-0.24   0.06-0.24   0.06-0.24   0.06-0.24   0.06-0.24   0.06-0.24   0.06-0.24   0.06-0.24
rounding      0.14-0.45   0.14-0.45   0.14-0.45   0.14-0.45   0.14-0.45   0.14-0.45   0.14-0.45   0.14-0.45
"""
(_, *CLASSES), (_, *SHARES), *_ranges = (line.split() for line in _TABLE.strip().splitlines())
RANGES = {name: np.array([cell.split("-") for cell in cells], dtype=float) for name, *cells in _ranges}

# The share of a paint among cars, and its colour: white, silver, greys, black, beige, then the bright ones.
PAINTS = np.array([
    (0.14, 0.88, 0.88, 0.87), (0.12, 0.66, 0.68, 0.70), (0.09, 0.40, 0.42, 0.44), (0.09, 0.11, 0.11, 0.12),
    (0.06, 0.80, 0.76, 0.68), (0.13, 0.72, 0.07, 0.07), (0.10, 0.12, 0.26, 0.70), (0.06, 0.35, 0.58, 0.85),
    (0.07, 0.92, 0.74, 0.08), (0.04, 0.08, 0.34, 0.18), (0.03, 0.45, 0.72, 0.22), (0.04, 0.90, 0.40, 0.06),
    (0.02, 0.38, 0.22, 0.55), (0.03, 0.36, 0.20, 0.12),
])  # fmt: skip

TRIM = (0.10, 0.10, 0.10, 0.08, 10.0)
UNDER = (0.17, 0.17, 0.17, 0.0, 1.0)
FLOOR = (0.33, 0.32, 0.31, 0.05, 8.0)
STEEL = (0.55, 0.53, 0.50, 0.2, 12.0)
TYRE = (0.11, 0.11, 0.11, 0.04, 6.0)
LINE = (0.14, 0.14, 0.14, 0.0, 1.0)
HEADLIGHT = (0.92, 0.93, 0.95, 0.5, 30.0)
TAILLIGHT = (0.74, 0.04, 0.03, 0.3, 20.0)
INDICATOR = (0.95, 0.55, 0.08, 0.3, 20.0)
PLATE = (0.90, 0.89, 0.82, 0.05, 10.0)
CHROME = (0.78, 0.79, 0.81, 0.5, 24.0)


def random_paint(rng: np.random.Generator) -> Finish:
    """A common car colour, varied a little."""
    color = PAINTS[rng.choice(len(PAINTS), p=PAINTS[:, 0] / PAINTS[:, 0].sum()), 1:]
    color = np.clip(color * rng.uniform(0.78, 1.12) + rng.normal(0, 0.014, 3), 0.03, 0.95)
    return (*color.tolist(), rng.uniform(0.12, 0.4), rng.uniform(14, 45))


def random_glass(rng: np.random.Generator) -> Finish:
    """Dark glass, neutral or slightly tinted."""
    tint = np.array([0.17, 0.175, 0.185]) * rng.uniform(0.6, 1.5) + rng.uniform(-0.015, 0.025, 3)
    return (*np.clip(tint, 0.06, 1).tolist(), rng.uniform(0.2, 0.45), rng.uniform(20, 50))


def random_shape(kind: str, rng: np.random.Generator) -> Shape:
    """Random proportions of a class."""
    values = {name: float(rng.uniform(*ranges[CLASSES.index(kind)])) for name, ranges in RANGES.items()}
    # The ranges overlap; the order from front to rear, and room for a roof, must hold.
    values["screen_at"] = max(values["screen_at"], values["cowl_at"] + 0.05)
    values["roof_end_at"] = max(values["roof_end_at"], values["screen_at"] + 0.12)
    values["base_at"] = max(values["base_at"], values["roof_end_at"] + 0.02)
    return Shape(**values, open_bed=kind == "pickup" or (kind == "truck" and bool(rng.random() < 0.35)))
