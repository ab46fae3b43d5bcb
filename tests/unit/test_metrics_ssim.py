"""SSIM is scikit-image's, in both conventions."""

import numpy as np
import pytest
import torch

from genvs.metrics import ssim

# structural_similarity of scikit-image 0.26.0, data_range=1 and channel_axis=-1, for `pair(height, width, mixed)`: with
# gaussian_weights=True, sigma=1.5, use_sample_covariance=False; and with its defaults.
EXPECTED = [
    ((32, 32, 1), 0.9312987782112848, 0.9484445539522003),
    ((24, 40, 3), 0.7053413451493905, 0.7140723604369961),
    ((128, 128, 6), 0.16405483466307522, 0.20509431481180476),
]


def pair(height: int, width: int, mixed: int) -> tuple[np.ndarray, np.ndarray]:
    """A pattern and one that has tenths of another mixed in: uint8 `[height, width, 3]`."""
    y, x = np.mgrid[:height, :width]
    first = np.stack([(7 * x + 3 * y + 40 * channel) % 256 for channel in range(3)], axis=-1)
    second = (first * (10 - mixed) + (x * y)[..., None] % 256 * mixed) // 10
    return first.astype(np.uint8), second.astype(np.uint8)


def as_tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1).double() / 127.5 - 1


@pytest.mark.parametrize(("sizes", "gaussian", "uniform"), EXPECTED)
def test_ssim_is_that_of_scikit_image(sizes, gaussian, uniform):
    first, second = map(as_tensor, pair(*sizes))
    assert ssim(first, second).item() == pytest.approx(gaussian, abs=1e-9)
    assert ssim(first, second, window="uniform").item() == pytest.approx(uniform, abs=1e-9)
    assert ssim(first.float(), second.float()).item() == pytest.approx(gaussian, abs=1e-6)
    assert ssim(first, first).item() == pytest.approx(1, abs=1e-12)


def test_ssim_is_of_each_image_and_clamps():
    first, second = map(as_tensor, pair(32, 32, 3))
    images = torch.stack([first, second, first]).unflatten(0, (3, 1))
    targets = torch.stack([second, second, 3 * first]).unflatten(0, (3, 1))
    result = ssim(images, targets)
    assert result.shape == (3, 1)
    expected = [ssim(first, second), torch.ones((), dtype=torch.float64), ssim(first, (3 * first).clamp(-1, 1))]
    torch.testing.assert_close(result[:, 0], torch.stack(expected))
    torch.testing.assert_close(ssim(images[:2, 0], second), torch.stack(expected[:2]))
