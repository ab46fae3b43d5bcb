"""The catalogue of cars: families with their ranges of proportions and their extras; paints, finishes and light."""

import math
from dataclasses import dataclass

import numpy as np

from genvs.data.synthetic.bodies import Shape
from genvs.data.synthetic.parts import Finish
from genvs.data.synthetic.shading import Direction, Light

# Name, share among cars, and the family from which it takes all ranges of Shape's fields that it does not state; after
# +, its extras and their chances.
_TABLE = """
sedan 12 -
  length 4.4-5.1 width 1.74-1.92 height 1.36-1.5 wheel_radius 0.31-0.35 tyre 0.2-0.26 arch 1.12-1.18
  stand_out -0.04-0.01 clearance 0.17-0.22 front_axle_at 0.17-0.2 rear_axle_at 0.77-0.8 nose 0.7-0.8 cowl 0.9-0.98
  deck 0.94-1.06 tail 0.88-1.02 cowl_at 0.25-0.31 screen_at 0.4-0.45 roof_end_at 0.62-0.69 base_at 0.78-0.86
  lean 0.28-0.42 front_rake 0.05-0.2 rear_rake 0.02-0.12 roundness 0.018-0.06 squareness 2.3-3.6 bulge 0.03-0.08
  bow 0.06-0.24 rounding 0.14-0.45 front_taper 0.05-0.09 rear_taper 0.05-0.08
  + see_through 0.25 taxi 0.06 lightbar 0.06 spoiler 0.08 antenna 0.2
classic 9 sedan
  length 4.1-5.2 width 1.64-1.86 height 1.38-1.5 nose 0.76-0.86 cowl 0.88-0.96 deck 0.9-0.96 tail 0.82-0.92
  cowl_at 0.27-0.33 screen_at 0.37-0.41 roof_end_at 0.66-0.72 base_at 0.75-0.8 front_rake -0.06-0.05
  rear_rake -0.05-0.03 roundness 0.008-0.02 squareness 3-5 bow 0.02-0.1 rounding 0.06-0.16 front_taper 0.01-0.05
  rear_taper 0.01-0.06
  + bumpers 0.9 see_through 0.3 taxi 0.05 lightbar 0.05 rails 0.05 antenna 0.3
finned 5 classic
  length 5.1-5.8 width 1.9-2.05 height 1.36-1.46 nose 0.78-0.86 cowl 0.9-0.96 deck 0.84-0.92 tail 0.78-0.86
  front_axle_at 0.17-0.2 rear_axle_at 0.74-0.77 cowl_at 0.29-0.33 screen_at 0.36-0.4 roof_end_at 0.58-0.64
  base_at 0.67-0.72 roundness 0.015-0.035 squareness 2.6-4 rounding 0.1-0.22
  + fins 1 bumpers 1 roofless 0.4 see_through 0.2 ornament 0.4
coupe 7 sedan
  length 4.2-4.8 height 1.25-1.38 nose 0.66-0.74 cowl 0.86-0.93 deck 0.88-0.98 tail 0.82-0.95 cowl_at 0.29-0.35
  screen_at 0.43-0.48 roof_end_at 0.56-0.64 base_at 0.8-0.92 lean 0.34-0.5 roundness 0.025-0.07 squareness 2.2-3
  + spoiler 0.25 see_through 0.25 scoop 0.1
muscle 6 coupe
  length 4.6-5.2 width 1.8-1.96 height 1.28-1.38 nose 0.76-0.84 cowl 0.88-0.94 deck 0.9-0.96 tail 0.84-0.92
  cowl_at 0.34-0.4 screen_at 0.44-0.48 roof_end_at 0.6-0.66 base_at 0.8-0.93 front_rake -0.08-0.03 rear_rake -0.04-0.06
  wheel_radius 0.33-0.36 tyre 0.24-0.3 rounding 0.08-0.2 front_taper 0.02-0.06
  + scoop 0.5 bumpers 0.5 spoiler 0.35 see_through 0.2 roofless 0.12
roadster 4 coupe
  length 3.9-4.7 width 1.58-1.78 height 1.2-1.32 nose 0.68-0.8 cowl 0.84-0.94 deck 0.82-0.9 tail 0.6-0.76
  cowl_at 0.44-0.52 screen_at 0.49-0.56 roof_end_at 0.68-0.72 base_at 0.76-0.82 front_axle_at 0.16-0.2
  rear_axle_at 0.78-0.82 front_taper 0.06-0.3 rear_taper 0.06-0.25 wheel_radius 0.32-0.37 rounding 0.25-0.6 bow 0.15-0.3
  + roofless 0.9 bumpers 0.4 side_pipes 0.3 roll_bar 0.2 spare_rear 0.15
convertible 5 coupe
  height 1.3-1.42 cowl 0.88-0.95 deck 0.9-0.98 roof_end_at 0.6-0.66 base_at 0.72-0.78
  + roofless 1 roll_bar 0.2 bumpers 0.2
supercar 6 coupe
  length 4.1-4.7 width 1.84-2.02 height 1.1-1.22 clearance 0.11-0.15 nose 0.56-0.66 cowl 0.78-0.86 deck 0.84-0.94
  tail 0.78-0.9 cowl_at 0.22-0.3 screen_at 0.4-0.47 roof_end_at 0.54-0.62 base_at 0.84-0.95 lean 0.45-0.62
  front_rake 0.25-0.5 wheel_radius 0.32-0.36 tyre 0.24-0.3 front_axle_at 0.19-0.23 rear_axle_at 0.78-0.82
  squareness 2.1-2.8 roundness 0.03-0.08
  + wing 0.35 spoiler 0.25 scoop 0.15 roofless 0.12
hatchback 9 sedan
  length 3.4-4.3 width 1.6-1.82 height 1.4-1.58 wheel_radius 0.28-0.34 front_axle_at 0.16-0.2 rear_axle_at 0.81-0.85
  cowl 0.92-1 deck 0.96-1.06 tail 0.92-1.02 cowl_at 0.2-0.27 screen_at 0.35-0.43 roof_end_at 0.8-0.88 base_at 0.94-0.98
  front_rake 0.03-0.22 rear_rake 0-0.08
  + see_through 0.3 spoiler 0.1 rails 0.1 roof_box 0.06 antenna 0.2
beetle 3 hatchback
  length 3.6-4 width 1.38-1.5 height 1.48-1.6 arch 0 stand_out 0.07-0.13 wheel_radius 0.31-0.34 tyre 0.15-0.19
  clearance 0.22-0.28 nose 0.6-0.7 cowl 0.98-1.06 deck 0.74-0.84 tail 0.52-0.62 cowl_at 0.29-0.34 screen_at 0.37-0.41
  roof_end_at 0.54-0.6 base_at 0.92-0.97 front_taper 0.16-0.26 rear_taper 0.16-0.26 roundness 0.07-0.12 squareness 2-2.5
  rounding 0.5-0.9 bow 0.2-0.35 rear_rake 0.1-0.3 lean 0.25-0.4
  + wings 1 bumpers 0.9 see_through 0.3 roof_rack 0.15
estate 6 sedan
  length 4.5-5 height 1.42-1.54 deck 0.96-1.04 tail 0.9-1 cowl_at 0.24-0.29 screen_at 0.37-0.42 roof_end_at 0.88-0.92
  base_at 0.97-0.985 lean 0.2-0.34 rear_rake 0-0.05 roundness 0.015-0.035
  + rails 0.5 roof_box 0.2 roof_rack 0.12 see_through 0.3 bumpers 0.25 lightbar 0.05
suv 7 estate
  length 4.1-4.9 width 1.8-2 height 1.64-1.88 wheel_radius 0.37-0.43 clearance 0.27-0.36 nose 0.95-1.05 cowl 1.08-1.18
  deck 1.1-1.2 tail 1.06-1.16 screen_at 0.35-0.42 roof_end_at 0.88-0.94 base_at 0.965-0.99 lean 0.12-0.3
  front_rake 0-0.12 rear_rake 0-0.04 roundness 0.012-0.03 squareness 2.8-5
  + rails 0.5 roof_box 0.15 roof_rack 0.15 bullbar 0.2 spare_rear 0.3 see_through 0.25 ladder 0.1 boards 0.4
offroad 5 suv
  length 3.6-4.5 width 1.6-1.85 height 1.72-1.95 wheel_radius 0.38-0.46 stand_out 0.02-0.14 clearance 0.36-0.46
  nose 1.05-1.14 cowl 1.1-1.2 cowl_at 0.29-0.36 screen_at 0.32-0.39 roof_end_at 0.93-0.96 base_at 0.97-0.985
  lean 0.04-0.12 front_rake -0.02-0.02 rounding 0.04-0.12 bow 0-0.05 bulge 0.01-0.04
  front_taper 0-0.05 rear_taper 0-0.02 roundness 0.006-0.015 squareness 4-7
  + roofless 0.3 bullbar 0.5 spare_rear 0.6 roof_rack 0.35 ladder 0.3 flares 0.7 boards 0.3 roll_bar 0.3 see_through 0.3
pickup 6 suv
  length 4.9-5.7 width 1.82-2.04 clearance 0.3-0.38 front_axle_at 0.16-0.19 rear_axle_at 0.76-0.79 nose 0.98-1.08
  cowl 1.1-1.2 deck 1.1-1.22 tail 1.1-1.22 cowl_at 0.24-0.29 screen_at 0.34-0.39 roof_end_at 0.48-0.58 base_at 0.51-0.61
  + bed 1 load 0.3 roll_bar 0.2 bullbar 0.2 bumpers 0.3 boards 0.4 lightbar 0.06 flares 0.2
van 4 suv
  length 4.4-5.5 width 1.8-2.02 height 1.8-2.4 wheel_radius 0.33-0.38 clearance 0.2-0.28 front_axle_at 0.15-0.19
  nose 0.85-1 cowl 1.05-1.18 deck 1.08-1.18 cowl_at 0.09-0.17 screen_at 0.22-0.31 roof_end_at 0.955-0.975
  base_at 0.99-0.998 lean 0.05-0.16 front_rake 0.02-0.16 rear_rake 0-0.02 roundness 0.01-0.022
  + roof_rack 0.2 ladder 0.2 lightbar 0.15 bumpers 0.2
minibus 3 van
  length 4.2-6.2 height 1.9-2.5 cowl_at 0.02-0.07 screen_at 0.07-0.15 nose 0.9-1.1 front_axle_at 0.18-0.24
  rounding 0.15-0.4 roundness 0.01-0.03 squareness 2.4-4.5
  + bumpers 0.5 roof_rack 0.2 see_through 0.2 spare_front 0.2
truck 4 van
  length 5.4-6.8 width 1.95-2.15 height 1.95-2.35 wheel_radius 0.4-0.46 clearance 0.36-0.44 front_axle_at 0.14-0.17
  rear_axle_at 0.74-0.78 nose 1.12-1.25 cowl 1.28-1.38 deck 1.2-1.3 tail 1.2-1.3 cowl_at 0.06-0.2 screen_at 0.14-0.25
  roof_end_at 0.32-0.35 base_at 0.34-0.37 front_rake 0-0.06 rear_rake 0-0 roundness 0.008-0.016 squareness 3.5-6
  + cargo 1 bumpers 0.3 bullbar 0.1 lightbar 0.1 stacks 0.15
racer 3 supercar
  length 4.3-4.9 width 0.74-0.92 height 0.8-0.95 wheel_radius 0.31-0.36 tyre 0.28-0.38 arch 0 stand_out 0.46-0.58
  clearance 0.08-0.12 front_axle_at 0.16-0.22 rear_axle_at 0.8-0.85 nose 0.3-0.42 cowl 0.58-0.68 deck 0.68-0.78
  tail 0.5-0.66 cowl_at 0.4-0.45 screen_at 0.43-0.48 roof_end_at 0.5-0.53 base_at 0.56-0.6 front_taper 0.5-0.75
  rear_taper 0.3-0.5 rounding 0.3-0.5 bow 0.05-0.15 front_rake 0.05-0.2 bulge 0.1-0.2
  + open_wheels 1 helmet 1 front_wing 0.8 wing 0.85 side_pods 0.7 livery 1
stock 3 muscle
  length 4.4-5 width 1.86-2.02 clearance 0.08-0.14 wheel_radius 0.32-0.36 stand_out 0-0.03 cowl_at 0.26-0.34
  + wing 0.7 livery 1 scoop 0.2 splitter 0.7 side_pipes 0.3 roll_bar 0.3
vintage 6 sedan
  length 3.7-4.8 width 1.24-1.42 height 1.7-1.95 wheel_radius 0.36-0.44 tyre 0.11-0.16 arch 0 stand_out 0.2-0.3
  clearance 0.38-0.48 front_axle_at 0.08-0.13 rear_axle_at 0.8-0.85 nose 1-1.12 cowl 1.1-1.2 deck 1.12-1.22
  tail 1.02-1.16 cowl_at 0.36-0.46 screen_at 0.39-0.49 roof_end_at 0.86-0.93 base_at 0.92-0.98 lean 0.03-0.12
  front_rake -0.02-0.05 front_taper 0.35-0.5 rear_taper 0.02-0.1 roundness 0.008-0.03 squareness 2.6-5
  bow 0-0.06 rounding 0.05-0.3 bulge 0.02-0.06
  + wings 1 radiator 1 bumpers 0.6 spare_rear 0.4 spare_side 0.3 roofless 0.3 see_through 0.35 ornament 0.3
hotrod 2 vintage
  height 1.45-1.65 clearance 0.22-0.28 tyre 0.24-0.34 stand_out 0.24-0.36 nose 0.86-0.96 cowl 0.96-1.04 deck 0.98-1.06
  tail 0.8-1
  + radiator 1 engine 0.7 side_pipes 0.6 roofless 0.4 open_wheels 1
limousine 1 sedan
  length 6-7.2 front_axle_at 0.12-0.15 rear_axle_at 0.82-0.85 cowl_at 0.18-0.22 screen_at 0.28-0.31
  roof_end_at 0.76-0.8 base_at 0.86-0.9
  + see_through 0.1 antenna 0.6
"""


@dataclass(frozen=True)
class Family:
    """A kind of car. ranges: of Shape's fields. extras: their chances by name."""

    share: float
    ranges: dict[str, tuple[float, float]]
    extras: dict[str, float]


def _families(table: str) -> dict[str, Family]:
    families: dict[str, Family] = {}
    for entry in table.replace("\n  ", " ").strip().splitlines():
        (name, share, parent, *cells), extras = (half.split() for half in entry.split(" + "))
        ranges = dict(families[parent].ranges) if parent != "-" else {}
        for field, cell in zip(cells[::2], cells[1::2], strict=True):
            low, _, high = cell[1:].partition("-")
            ranges[field] = float(cell[0] + low), float(high or cell)
        families[name] = Family(float(share), ranges, dict(zip(extras[::2], map(float, extras[1::2]), strict=True)))
    return families


FAMILIES = _families(_TABLE)

# The share of a paint among cars, and its colour: white, silver, greys, black, beige, then the bright ones.
PAINTS = np.array([
    (0.24, 0.89, 0.89, 0.88), (0.16, 0.76, 0.78, 0.80), (0.07, 0.54, 0.56, 0.58), (0.03, 0.14, 0.14, 0.15),
    (0.17, 0.86, 0.83, 0.77), (0.09, 0.84, 0.15, 0.13), (0.05, 0.20, 0.35, 0.80), (0.05, 0.50, 0.72, 0.94),
    (0.06, 0.95, 0.81, 0.20), (0.02, 0.18, 0.47, 0.30), (0.02, 0.56, 0.82, 0.34), (0.03, 0.94, 0.54, 0.17),
    (0.01, 0.50, 0.35, 0.66), (0.02, 0.55, 0.17, 0.18), (0.02, 0.52, 0.39, 0.27), (0.02, 0.56, 0.58, 0.42),
    (0.03, 0.68, 0.88, 0.83), (0.03, 0.93, 0.74, 0.78),
])  # fmt: skip

TRIM = (0.13, 0.13, 0.13, 0.05, 10.0)
UNDER = (0.30, 0.30, 0.30, 0.0, 1.0)
FLOOR = (0.60, 0.59, 0.57, 0.0, 1.0)
STEEL = (0.55, 0.53, 0.50, 0.1, 12.0)
TYRE = (0.14, 0.14, 0.14, 0.0, 6.0)
LINE = (0.14, 0.14, 0.14, 0.0, 1.0)
HEADLIGHT = (0.92, 0.93, 0.95, 0.3, 30.0)
TAILLIGHT = (0.74, 0.04, 0.03, 0.2, 20.0)
INDICATOR = (0.95, 0.55, 0.08, 0.2, 20.0)
PLATE = (0.90, 0.89, 0.82, 0.0, 10.0)
CHROME = (0.74, 0.75, 0.77, 0.5, 24.0)


def random_paint(rng: np.random.Generator) -> Finish:
    """A common car colour, varied a little, from matte to glossy."""
    color = PAINTS[rng.choice(len(PAINTS), p=PAINTS[:, 0] / PAINTS[:, 0].sum()), 1:]
    color = np.clip(color * rng.uniform(0.88, 1.12) + rng.normal(0, 0.02, 3), 0.03, 0.94)
    return (*color.tolist(), rng.choice([0.0, rng.uniform(0.02, 0.5)]), rng.uniform(8, 45))


def random_glass(rng: np.random.Generator) -> Finish:
    """Flat dark gray glass, neutral or slightly tinted; on few cars light or blue."""
    tint = np.array([0.22, 0.22, 0.225]) * rng.uniform(0.5, 1.6) + rng.uniform(-0.01, 0.02, 3)
    if rng.random() < 0.1:
        tint = np.array([0.5, 0.56, 0.62]) * rng.uniform(0.7, 1.2)
    return (*np.clip(tint, 0.05, 1).tolist(), rng.choice([0.0, rng.uniform(0.05, 0.4)]), rng.uniform(20, 50))


def random_shape(kind: str, opening: str, rng: np.random.Generator) -> Shape:
    """Random proportions of a family."""
    values = {name: float(rng.uniform(*limits)) for name, limits in FAMILIES[kind].ranges.items()}
    # The ranges overlap; the order from front to rear, and room for a roof, must hold.
    values["screen_at"] = max(values["screen_at"], values["cowl_at"] + 0.03)
    values["roof_end_at"] = max(values["roof_end_at"], values["screen_at"] + 0.05)
    values["base_at"] = max(values["base_at"], values["roof_end_at"] + 0.02)
    return Shape(**values, opening=opening)


def random_light(rng: np.random.Generator) -> Light:
    """The light of a scene.

    Most have ShapeNet-SRN's: a soft sky, from above and a little ahead, in which upward faces are fully lit and burn
    out on light paint, sides get about half, and sills and undersides are dark, with hardly a highlight. Others have a
    lamp or two, hard or soft; few, one on the camera. Upward faces get `exposure`.
    """
    soft, kind = rng.random() < 0.65, rng.random()
    above = (rng.normal(0, 0.12), rng.uniform(-0.15, 0.4), 1.0) if soft else (*rng.uniform(-0.5, 0.5, 2).tolist(), 1.0)
    ambient = rng.uniform(0.1, 0.25) if soft else rng.uniform(0.15, 0.5)
    sky, hardness = (1.0, rng.uniform(0.9, 1.7)) if soft else (rng.uniform(0.2, 1), rng.uniform(0.7, 1.8))
    camera = rng.uniform(0.2, 0.7) if kind < 0.08 else 0.0
    lamps: list[tuple[Direction, float, float]] = []
    for strength in (0.25, 0.1) if soft else (0.9, 0.35):
        angle, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.5)
        towards = float(np.cos(angle)), float(np.sin(angle)), height
        lamps.append((towards, strength * rng.random(), rng.uniform(0, 0.4 if soft else 1)))
    exposure, shade = rng.uniform(0.94, 1.1) if soft else rng.uniform(0.85, 1.2), rng.uniform(0.1, 0.45)
    flat = [z / math.hypot(x, y, z) for x, y, z in (above, *(lamp[0] for lamp in lamps))]
    upward = ambient + camera / 2 + sky * ((1 + flat[0]) / 2) ** hardness
    upward += sum(lamp[1] * cosine for lamp, cosine in zip(lamps, flat[1:], strict=True))
    scale = exposure / upward
    scaled = tuple((towards, strength * scale, gloss) for towards, strength, gloss in lamps)
    return Light(ambient * scale, sky * scale, above, hardness, camera * scale, scaled, shade)
