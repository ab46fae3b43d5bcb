"""The table of modalities, and how their values are coded."""

import numpy as np
import pytest

from genvs.errors import InputError
from genvs.geometry.projections import PROJECTIONS
from genvs.modalities import MODALITIES, coded, depth_coded, depth_decoded, from_levels, modality_names, to_levels


def test_names_and_aliases_are_told_apart_and_put_in_order():
    assert modality_names(["sonar", "eo", " raysar"]) == ("rgb", "sar", "sonar")
    wrong = {
        "lidar": "lidar: .* mean depth.* rgb, depth, sar, sonar",
        "infrared": "infrared: .* name: choose from rgb, depth, sar, sonar",
        "eo,sar,rgb": "eo,rgb: both are rgb",
    }
    for names, message in wrong.items():
        with pytest.raises(InputError, match=f"^`modalities`={message}"):
            modality_names(names.split(","))
    with pytest.raises(InputError, match="empty"):
        modality_names([])


def test_every_modality_has_a_projection_and_feature_channels_of_its_own():
    channels = [set(range(*modality.features)) for modality in MODALITIES.values()]
    assert sum(map(len, channels)) == len(set().union(*channels))
    assert {modality.projection for modality in MODALITIES.values()} == set(PROJECTIONS)
    assert [modality.index for modality in MODALITIES.values()] == list(range(len(MODALITIES)))


def test_values_are_coded_linearly_and_come_back():
    assert to_levels(0) == -1 and to_levels(255) == 1 and from_levels(to_levels(37.0)) == pytest.approx(37)
    assert depth_coded(0.8, 0.8, 1.8) == 255 and depth_coded(1.8, 0.8, 1.8) == 1, "0 is for no return"
    depths = np.linspace(0.8, 1.8, 7)
    assert depth_decoded(depth_coded(depths, 0.8, 1.8), 0.8, 1.8) == pytest.approx(depths)
    darkest, brightest = MODALITIES["sar"].decibels
    assert [coded(value, darkest, brightest) for value in (darkest, brightest, -5.0)] == [0, 255, 127.5]
