"""Preconditioning around a U-Net that also sees the feature image."""

from torch import Tensor, nn

from genvs.config import DenoiserConfig
from genvs.diffusion.preconditioning import PRECONDITIONINGS
from genvs.modalities import PICTURE_CHANNELS
from genvs.models.adm import ADM
from genvs.models.colours import Colours
from genvs.models.layers import cat_channels
from genvs.models.ncsnpp import NCSNpp
from genvs.models.unet import UNet

UNETS: dict[str, type[UNet]] = {"ddpmpp": UNet, "ncsnpp": NCSNpp, "adm": ADM}


class ConditionedDenoiser(nn.Module):
    """D(noisy; sigma, feature_image): the expected image, given a noisy one (EDM, arXiv 2206.00364, eq. 7)."""

    def __init__(
        self, config: DenoiserConfig, resolution: int, feature_channels: int, num_classes: int, colours: Colours
    ) -> None:
        super().__init__()
        self.colours = colours
        self.sigma_data, self.centre_on_colours = config.sigma_data, config.centre_on_colours
        self.preconditioning = PRECONDITIONINGS[config.precond]
        in_channels = PICTURE_CHANNELS + feature_channels
        self.unet = UNETS[config.arch](config, resolution, in_channels, PICTURE_CHANNELS, num_classes)

    def forward(
        self,
        noisy: Tensor,
        sigma: Tensor,
        feature_image: Tensor,
        keys: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """See `GeNVS.denoise`."""
        sigma = sigma.float().reshape(-1, 1, 1, 1).expand(noisy.shape[0], 1, 1, 1)
        c_skip, c_out, c_in, c_noise = self.preconditioning(sigma, self.sigma_data)
        # EDM's coefficients give the best linear denoiser of data with mean zero. With the rendered colours as the
        # mean, the network starts from them and learns the rest.
        mean = self.colours.picture(feature_image.float()) if self.centre_on_colours else 0.0
        offset = noisy - mean
        # c_in scales the noisy image to unit variance; the feature image is not noisy and keeps its own scale.
        x = cat_channels(c_in * offset, feature_image)
        return mean + c_skip * offset + c_out * self.unet(x, c_noise.flatten(), keys, labels).float()
