"""A random thing: its themes and their families, and one of them assembled."""

from typing import Any

import numpy as np

from genvs.data.synthetic.catalog import random_light
from genvs.data.synthetic.parts import Model, assemble
from genvs.data.synthetic.things.buildings import BUILDINGS
from genvs.data.synthetic.things.furniture import FURNITURE
from genvs.data.synthetic.things.kit import Theme
from genvs.data.synthetic.things.landmarks import LANDMARKS
from genvs.data.synthetic.things.plants import PLANTS
from genvs.data.synthetic.things.tools import TOOLS
from genvs.data.synthetic.things.toys import TOYS
from genvs.data.synthetic.things.vehicles import VEHICLES
from genvs.data.synthetic.things.vessels import VESSELS

THEMES: dict[str, Theme] = {
    "furniture": FURNITURE,
    "vessels": VESSELS,
    "tools": TOOLS,
    "toys": TOYS | VEHICLES,
    "buildings": BUILDINGS | LANDMARKS,
    "plants": PLANTS,
}


def build_thing(rng: np.random.Generator, kind: str | None = None) -> tuple[Model, dict[str, Any]]:
    """A random thing, of the given family or a random one, and facts to record: its theme and family."""
    themes = {name: theme for theme, families in THEMES.items() for name in families}
    kind = kind or str(rng.choice(list(themes)))
    return assemble(THEMES[themes[kind]][kind](rng), random_light(rng)), {"class": kind, "theme": themes[kind]}
