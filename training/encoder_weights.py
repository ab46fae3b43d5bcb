"""The encoder's initial weights: random, ImageNet's, or from a file."""

from __future__ import annotations

from pathlib import Path

import torch

from genvs import files
from genvs.errors import InputError
from genvs.models.backbone import Backbone, load_imagenet_weights
from torch_utils import distributed

IMAGENET_URL = "https://download.pytorch.org/models/resnet34-b627a593.pth"


def initialize_encoder(backbone: Backbone, source: str) -> None:
    """Load torchvision's ImageNet weights into the encoder's backbone.

    source: "none" changes nothing; "imagenet" downloads torchvision's ResNet-34 once, to where torchvision looks for
    it; anything else is the path of such a file. Raises InputError if the file is missing, damaged or does not fit.
    """
    if source == "none":
        return
    path = Path(source)
    if source == "imagenet":
        path = Path(torch.hub.get_dir()) / "checkpoints" / IMAGENET_URL.rpartition("/")[2]
        if not path.exists() and distributed.get_local_rank() == 0:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(IMAGENET_URL, str(path), path.stem[-8:])
            except (OSError, RuntimeError) as error:  # a RuntimeError is a wrong checksum
                raise InputError(
                    f"`encoder_weights`=imagenet: cannot download {IMAGENET_URL} to {path} ({error}): "
                    "fetch it elsewhere and give its path, or train with `encoder_weights`=none"
                ) from None
        distributed.barrier()
    state = files.load(path)
    if not isinstance(state, dict):
        raise InputError(f"`encoder_weights`: {path} is not a state dict: give torchvision's ResNet-34 file")
    load_imagenet_weights(backbone, state)
