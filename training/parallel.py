"""The network as training calls it: with CUDA graphs, gradients averaged over ranks, and a precision."""

import itertools
import warnings
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from genvs.data.types import ViewBatch
from genvs.models import GeNVS
from genvs.models.precision import autocast, has_native_bf16
from torch_utils import distributed
from training.adam import Adam
from training.config import TrainConfig
from training.graphed import GraphedGeNVS
from training.loss import GeNVSLoss


def training_net(net: GeNVS, config: TrainConfig, device: torch.device) -> nn.Module:
    """`net` as training calls it: replayed as CUDA graphs on a GPU, with gradients averaged over ranks."""
    module = GraphedGeNVS(net) if config.cuda_graphs and device.type == "cuda" else net
    if distributed.get_world_size() == 1:
        return module
    # cuDNN returns gradients of 1x1 convolutions in another layout; copying them costs little.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    ddp = DistributedDataParallel(module, gradient_as_bucket_view=True)
    if config.grad_compression == "bf16":
        ddp.register_comm_hook(None, bf16_compress_hook)
    return ddp


def order_gradient_buckets(
    net: nn.Module, loss_fn: GeNVSLoss, batches: Iterator[ViewBatch], config: TrainConfig, optimizers: Iterable[Adam]
) -> Iterator[ViewBatch]:
    """Returns `batches`, after a backward pass whose gradients are discarded.

    In the first backward pass DDP learns the order of gradients, and rearranges its buckets. With more than two ranks
    the last bits of a sum depend on the buckets, so the first update of a resumed run would differ without this.
    """
    first = next(batches)
    with training_precision(config, first.sample_index.device):
        loss_fn(net, first).total.backward()
    for parameter in itertools.chain.from_iterable(optimizer.parameters for optimizer in optimizers):
        parameter.grad = None
    return itertools.chain([first], batches)


def training_precision(config: TrainConfig, device: torch.device) -> torch.autocast:
    """The autocast for training: fp16 or bf16 if the options ask for it and the GPU has it."""
    dtype = None
    if config.fp16 and device.type == "cuda":
        dtype = torch.float16
    elif config.bf16 and has_native_bf16(device):
        dtype = torch.bfloat16
    return autocast(device, dtype)
