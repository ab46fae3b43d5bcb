"""The pictures that benchmarks draw: their scales, and what is where."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image, ImageColor

from experiments import curves, plot
from genvs.errors import InputError


def test_a_plot_has_marks_at_round_numbers() -> None:
    assert plot._marks(12.51, 16.73) == plot._log_marks(math.log10(12.51), math.log10(16.73)) == [13, 14, 15, 16]
    assert plot._log_marks(math.log10(0.05), math.log10(3)) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1, 2])


@pytest.mark.parametrize(("linear", "height"), [(True, 9 / 99), (False, 1 / 2)])
def test_the_scale_is_linear_or_logarithmic(linear, height) -> None:
    picture = np.asarray(plot.draw_curves({"": np.array([1.0, 10.0, 100.0])}, "", linear=linear))
    inked = (picture[:, plot.WIDTH // 2] == ImageColor.getrgb(plot.PENS[0][0])).all(-1)
    found = (plot.HEIGHT - plot.MARGIN - np.flatnonzero(inked).mean()) / (plot.HEIGHT - 2 * plot.MARGIN)
    assert found == pytest.approx(height, abs=0.01)


def test_curves_of_a_run(tmp_path) -> None:
    levels = ((), (15.0, 14.0, 13.0), (), (20.0, 18.0, 13.0))  # evaluations at a half and at the end
    scores = [dict(zip(curves.PSNR, values, strict=False)) for values in levels]
    records = [{"nimg": nimg, "Loss/all": 9 / nimg, **score} for nimg, score in zip((1, 4, 5, 8), scores, strict=True)]
    (tmp_path / "stats.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records[:3]))
    picture = tmp_path / "curves.png"
    arguments = [str(tmp_path), "--plot", str(picture)]
    with pytest.raises(InputError, match="train for longer"):
        curves.main.main(arguments, standalone_mode=False)
    assert not picture.exists()
    (tmp_path / "stats.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    curves.main.main(arguments, standalone_mode=False)
    with Image.open(picture) as sheet:
        assert sheet.size == (plot.WIDTH, 2 * plot.HEIGHT)
        drawn = {colour for _, colour in sheet.getcolors(maxcolors=1 << 16)}
        pixels = np.asarray(sheet).reshape(2, plot.HEIGHT, plot.WIDTH, 3)
    pens = [ImageColor.getrgb(colour) for colour, _ in plot.PENS]
    assert drawn.issuperset(pens)
    held = (pixels[:, plot.MARGIN - 2 : -plot.MARGIN + 2] == pens[0]).all(-1).any(1)  # columns of PSNR and loss
    width = plot.WIDTH - 2 * plot.MARGIN
    for columns, first in zip(held, (4 / 8, 1 / 8), strict=True):
        assert (np.flatnonzero(columns)[[0, -1]] - plot.MARGIN) / width == pytest.approx([first, 1], abs=0.01)
