"""Which views of a scene a sample has."""

from __future__ import annotations

import numpy as np
import pytest

from genvs.data.view_sampling import choose_views


def test_no_view_is_chosen_twice_and_all_are_chosen_alike():
    counts = np.zeros(5)
    for index in range(2000):
        inputs, targets = choose_views(5, 2, 1, np.random.default_rng((7, index)))
        assert len(set(inputs) | set(targets)) == 3
        counts[targets] += 1
    assert np.abs(counts / 400 - 1).max() < 0.2


def test_asking_for_more_views_only_extends_the_choice():
    one, _ = choose_views(9, 1, 1, np.random.default_rng(3))
    three, _ = choose_views(9, 3, 1, np.random.default_rng(3))
    assert three[0] == one[0]
    with pytest.raises(ValueError, match="3 views"):
        choose_views(3, 3, 1, np.random.default_rng(3))
