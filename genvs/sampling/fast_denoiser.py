"""The denoiser made fast for many evaluations: bf16 weights and CUDA graphs on a GPU, channels last on a CPU."""

import copy
import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.models import GeNVS
from genvs.models.labels import label_of_class
from genvs.models.precision import autocast, cast_weights, has_native_bf16
from genvs.sampling.cuda_graphs import CUDAGraphed

PIXELS = 2**16  # that a CPU denoises at a time


def some_at_a_time(evaluate: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`FastDenoiser.__call__` in parts of at most PIXELS: the system clears larger memory anew for every layer."""

    def evaluate_parts(noisy: Tensor, sigma: Tensor, feature_image: Tensor) -> Tensor:
        count = max(1, PIXELS // noisy.shape[2:].numel())
        batch = (noisy, sigma.expand(len(noisy), 1, 1, 1), feature_image)
        return torch.cat([evaluate(*part) for part in zip(*(each.split(count) for each in batch), strict=True)])

    return evaluate_parts


class FastDenoiser:
    """`GeNVS.denoise` for inference: the same arguments, the same result up to rounding, and no gradients.

    bf16: run under autocast, with weights that are cast once, here, instead of in every evaluation; by default where a
    GPU has it. Noise levels, the preconditioning's arithmetic and the result stay float32, and so do encoding and
    rendering on a CPU, which has a faster way to render in float32.

    On a GPU an evaluation is hundreds of kernels. With small batches a CPU takes longer to start them than they take to
    run, so they are `CUDAGraphed`, like `encode`, which autoregression calls for every frame, and `render`. All are for
    pictures of one `modality`.
    It uses the current weights of `net`: make another one after they change.
    """

    def __init__(
        self, net: GeNVS, *, bf16: bool | None = None, class_id: int | None = None, modality: str | None = None
    ) -> None:
        """class_id: of all images, for a class-conditional network. modality: by default the network's first.

        Raises InputError for a class or a modality that the network does not know.
        """
        self.net, self.device = net, next(net.parameters()).device
        self.modality = modality = modality or net.config.modalities[0]
        if modality not in net.config.modalities:
            known = ", ".join(net.config.modalities)
            raise InputError(f"`modality`={modality}: the network was trained on {known}: choose one of them")
        network: nn.Module = net.denoisers[modality]
        on_cpu = self.device.type == "cpu"
        bf16 = has_native_bf16(self.device) if bf16 is None else bf16
        if on_cpu:
            # Faster by a tenth or more, and in bf16 twice as fast. In a copy, because `net` may be trained again, and
            # with channels last on CPUs torch 2.13's backward pass corrupts the heap.
            network = copy.deepcopy(network)
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        weights = cast_weights(network, torch.bfloat16) if bf16 else {}
        self._labels = own_labels = None if class_id is None else label_of_class(class_id, net.config).to(self.device)
        # Without autocast's cache, because a CUDA graph must contain the casts that it uses.
        context = functools.partial(autocast, self.device, torch.bfloat16 if bf16 else None, cache_enabled=False)
        self.autocast = functools.partial(autocast, self.device, None) if on_cpu else context

        # Without `self`, so that the graphs and their memory are freed with the last reference to it.
        def evaluate(noisy: Tensor, sigma: Tensor, feature_image: Tensor) -> Tensor:
            labels = None if own_labels is None else own_labels.expand(len(noisy), -1)
            with context():
                if not weights:  # `functional_call` looks for all weights anew in every call
                    return network(noisy, sigma, feature_image, labels=labels)
                return functional_call(network, weights, (noisy, sigma, feature_image), {"labels": labels})

        def encode(images: Tensor, *cameras: Tensor) -> Tensor:
            return net.encode_as(modality, images, Cameras(*cameras))

        def render(volume: Tensor, *cameras: Tensor) -> Tensor:
            half = len(cameras) // 2
            return net.render(volume, Cameras(*cameras[:half]), Cameras(*cameras[half:]), modality=modality)

        denoise = some_at_a_time(evaluate) if on_cpu else evaluate
        graphed = functools.partial(CUDAGraphed, device=self.device)
        self._denoise, self._encode, self._render = map(graphed, (denoise, encode, render))

    def set_class(self, class_id: int | None) -> None:
        """Draw images of this class from now on. Without a class at construction, or for None, nothing changes."""
        if class_id is not None and self._labels is not None:
            self._labels.copy_(label_of_class(class_id, self.net.config))

    @torch.inference_mode()
    def __call__(self, noisy: Tensor, sigma: Tensor, feature_image: Tensor) -> Tensor:
        """As `GeNVS.denoise`."""
        return self._denoise(noisy, sigma, feature_image)

    def encode(self, images: Tensor, cameras: Cameras) -> Tensor:
        """As `GeNVS.encode_as`."""
        with self.autocast():
            return self._encode(images, *vars(cameras).values())

    def render(self, volume: Tensor, inputs: Cameras, targets: Cameras) -> Tensor:
        """As `GeNVS.render`."""
        with self.autocast():
            return self._render(volume, *vars(inputs).values(), *vars(targets).values())
