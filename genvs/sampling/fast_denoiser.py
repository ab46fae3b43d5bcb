"""The denoiser made fast for many evaluations: bf16 weights and CUDA graphs on a GPU, channels last on a CPU."""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor, nn

from genvs.models import GeNVS
from genvs.sampling.cuda_graphs import Recorded


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 is fast there; elsewhere, on CPUs and old GPUs, it would be emulated."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """What a network runs in: bf16 where `bf16`, and its own precision where not, whatever the caller's own context."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16, cache_enabled=False)


class FastDenoiser:
    """`GeNVS.denoise` for inference: the same arguments, the same result up to rounding, and no gradients.

    bf16: run under autocast, with weights that are converted once, here, instead of in every evaluation. Noise levels,
    what EDM's preconditioning adds and multiplies, and the result stay float32.

    On a GPU an evaluation is hundreds of kernels, which, as long as batches are small, take less time to run than a CPU
    takes to start them: they are `Recorded`. So is `encode`, the network's own, which a video calls for every frame.

    Weights are those that `net` has now: make another one after a change. The rest of the network stays at `net`.
    """

    def __init__(self, net: GeNVS, *, bf16: bool, labels: Tensor | None = None) -> None:
        """labels: `[1, L]`, what the network is told of all images (genvs.models.labels), for one that can be."""
        self.net, self.device, self.bf16 = net, next(net.parameters()).device, bf16
        network: nn.Module = net.denoiser
        if bf16:
            network = with_bf16_weights(net.denoiser)
        elif self.device.type == "cpu":
            # Faster by a tenth or more. Of a copy, because the network itself may learn again, and for channels last on
            # CPUs torch 2.13's backward damages its heap.
            network = copy.deepcopy(net.denoiser)
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._labels = None if labels is None else labels.to(self.device, copy=True)
        evaluate = functools.partial(_evaluate, network, self._labels, bf16)
        self._denoise, self._encode = Recorded(evaluate, self.device), Recorded(net.encode, self.device)

    def tell(self, labels: Tensor | None) -> None:
        """Tell the network other `labels` from now on, where it was told some at first; None changes nothing."""
        if labels is not None and self._labels is not None:
            self._labels.copy_(labels)

    @torch.inference_mode()
    def __call__(self, noisy: Tensor, sigma: Tensor, feature_image: Tensor) -> Tensor:
        """noisy: `[N, 3, H, W]`; sigma: a scalar or `[N, 1, 1, 1]`; feature_image: `[N, C, H, W]`.

        Returns the denoised `[N, 3, H, W]`, float32.
        """
        return self._denoise(noisy, sigma, feature_image)

    def encode(self, images: Tensor) -> Tensor:
        """`GeNVS.encode`: volumes of views."""
        with autocast(self.device, self.bf16):
            return self._encode(images)


def _evaluate(
    network: nn.Module, labels: Tensor | None, bf16: bool, noisy: Tensor, sigma: Tensor, feature_image: Tensor
) -> Tensor:
    labels = None if labels is None else labels.expand(len(noisy), -1)
    with autocast(noisy.device, bf16):
        return network(noisy, sigma, feature_image, labels=labels)


def with_bf16_weights(network: nn.Module) -> nn.Module:
    """A copy of `network` whose convolutions and linear layers have the weights that autocast would make of them.

    Under autocast it computes the same. Biases and norms, which fused operations may want in float32, stay as they are.
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.weight = nn.Parameter(module.weight.detach().to(torch.bfloat16), requires_grad=False)
    return network
