"""Preconditioning: a network F makes a denoiser D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) (EDM, table 1)."""

from collections.abc import Callable

from torch import Tensor

from genvs.diffusion.noise import vp_time

VP_NOISE_LEVELS = 1000  # of the discrete VP models

Coefficients = tuple[Tensor | float, Tensor, Tensor | float, Tensor]  # c_skip, c_out, c_in, c_noise, of sigma's shape


def edm(sigma: Tensor, sigma_data: float) -> Coefficients:
    """Input and output of F have unit variance at every noise level (arXiv 2206.00364, appendix B.6)."""
    total = (sigma**2 + sigma_data**2).sqrt()
    return (sigma_data / total) ** 2, sigma * sigma_data / total, 1 / total, sigma.log() / 4


def vp(sigma: Tensor, sigma_data: float) -> Coefficients:
    """Variance preserving (Song et al., arXiv 2011.13456): F predicts the noise and sees the time, 0 to 999."""
    return 1.0, -sigma, 1 / (sigma**2 + 1).sqrt(), (VP_NOISE_LEVELS - 1) * vp_time(sigma)


def ve(sigma: Tensor, sigma_data: float) -> Coefficients:
    """Variance exploding (Song et al., arXiv 2011.13456): F sees the noisy image as it is."""
    return 1.0, sigma, 1.0, (sigma / 2).log()


PRECONDITIONINGS: dict[str, Callable[[Tensor, float], Coefficients]] = {"edm": edm, "vp": vp, "ve": ve}
