"""The network as training calls it: with CUDA graphs, gradients summed over ranks, and a precision."""

import torch
from torch import Tensor, nn
from torch.autograd import Variable

from genvs.models import GeNVS
from genvs.models.precision import autocast, has_native_bf16
from genvs.sampling.cuda_graphs import copy_all
from torch_utils import distributed
from training.config import TrainConfig
from training.graphed import GraphedGeNVS, in_one_tensor, parts_of


def training_net(net: GeNVS, config: TrainConfig, device: torch.device) -> nn.Module:
    """`net` as training calls it: replayed as CUDA graphs on a GPU."""
    return GraphedGeNVS(net) if config.cuda_graphs and device.type == "cuda" else net


def sum_over_ranks(net: GeNVS, config: TrainConfig) -> None:
    """From now on the last backward pass of each update leaves in `net` the sum of all ranks' gradients.

    The gradients of each of the network's two parts are sent as soon as all are there, the U-Net's while the encoder's
    are computed. They cross in one tensor, which makes the order of sums the same in every update: the one in which
    `GraphedGeNVS` leaves them, or a copy.
    """
    if distributed.get_world_size() > 1:
        for part in parts_of(net):
            GradientSum([weight for weight in part.parameters() if weight.requires_grad], config)


class GradientSum:
    """Sums the gradients of `weights` over ranks, when each has had its gradient in each round of an update."""

    def __init__(self, weights: list[nn.Parameter], config: TrainConfig) -> None:
        self._weights, self._arrived = weights, 0
        self._expected = len(weights) * config.rounds(distributed.get_world_size())
        self._dtype = torch.bfloat16 if config.grad_compression == "bf16" else torch.float32
        for weight in weights:
            weight.register_post_accumulate_grad_hook(self._count)

    def _count(self, _: Tensor) -> None:
        self._arrived += 1
        if self._arrived == self._expected:
            self._arrived = 0
            self._send()

    def _send(self) -> None:
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        sent = gradients
        if self._dtype != torch.float32 or len({gradient.untyped_storage().data_ptr() for gradient in gradients}) > 1:
            sent = in_one_tensor(gradients, self._dtype)
            copy_all(sent, gradients)
        whole = sent[0].new_empty(0).set_(sent[0].untyped_storage())
        work = torch.distributed.all_reduce(whole, async_op=True)

        def receive() -> None:
            work.wait()
            if sent is not gradients:
                copy_all(gradients, sent)

        Variable._execution_engine.queue_callback(receive)  # at the end of this backward pass, as in FSDP


def training_precision(config: TrainConfig, device: torch.device) -> torch.autocast:
    """The autocast for training: fp16 or bf16 if the options ask for it and the GPU has it."""
    dtype = None
    if config.fp16 and device.type == "cuda":
        dtype = torch.float16
    elif config.bf16 and has_native_bf16(device):
        dtype = torch.bfloat16
    return autocast(device, dtype)
