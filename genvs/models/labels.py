"""The labels that a U-Net can be conditioned on besides its noise level: the image's class and its augmentation.

Both are in one tensor `[..., L]`: the class, one-hot or zeros, then AUGMENT_LABELS numbers that describe the
augmentation. A network without classes or without augmentation leaves out its part.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from genvs.config import GeNVSConfig
from genvs.errors import InputError

MAX_SHIFT = 0.125  # of the image's side


def labels_of_classes(one_hot: Tensor, config: GeNVSConfig) -> Tensor:
    """Labels `[N, L]` of images that are not augmented, from their classes, one-hot `[N, K]`."""
    return F.pad(one_hot, (0, config.denoiser.augment_labels))


def label_of_class(class_id: int, config: GeNVSConfig) -> Tensor:
    """Labels `[1, L]` of images of one class. Raises InputError for a class that the network does not know."""
    known = config.scene.num_classes
    if known == 0:
        raise InputError(f"`class_id`={class_id}: the network was trained without classes: leave it out")
    if not 0 <= class_id < known:
        raise InputError(f"`class_id`={class_id}: the network's classes are 0 to {known - 1}: choose one of them")
    return labels_of_classes(torch.eye(known)[class_id : class_id + 1], config)


def augment_labels(flip_x: Tensor, flip_y: Tensor, quarter_turns: Tensor, shift: Tensor) -> Tensor:
    """Labels `[..., AUGMENT_LABELS]`, all zero for an image that is not augmented.

    flip_x, flip_y: true or false, `[...]`. quarter_turns: 0 to 3, `[...]`. shift: `[..., 2]`, along x and y, in
    [-1, 1], in units of MAX_SHIFT of the side.
    """
    angle = quarter_turns * (torch.pi / 2)
    turned = torch.stack([flip_x.float(), flip_y.float(), 1 - angle.cos().round(), angle.sin().round()], dim=-1)
    return torch.cat([turned, shift], dim=-1)


def augmented(images: Tensor, labels: Tensor) -> Tensor:
    """Square images, flipped left to right and upside down, turned, and shifted by whole pixels, as labels describe.

    images: `[N, C, H, H]`. labels: `[N, AUGMENT_LABELS]`, of `augment_labels`. A shift mirrors the image at its border
    (EDM, arXiv 2206.00364, appendix F.2).
    """
    size = images.shape[-1]
    flip_x, flip_y, one_less_cos, sin, shift_x, shift_y = labels.float()[:, :, None, None].unbind(dim=1)
    place = torch.arange(size, device=images.device)
    # The place from which each pixel comes, by the inverse of every step, in reverse order.
    shift_x, shift_y = ((shift * MAX_SHIFT * size).round().long() for shift in (shift_x, shift_y))
    y, x = _reflected(place[:, None] - shift_y, size), _reflected(place - shift_x, size)
    centre = (size - 1) / 2
    x, y = x - centre, y - centre
    cos = 1 - one_less_cos
    x, y = cos * x + sin * y, cos * y - sin * x
    x, y = x * (1 - 2 * flip_x) + centre, y * (1 - 2 * flip_y) + centre
    source = (y * size + x).round().long().flatten(1)
    return images.flatten(2).gather(2, source[:, None].expand(-1, images.shape[1], -1)).view_as(images)


def _reflected(index: Tensor, size: int) -> Tensor:
    """Indices beyond the first or last pixel as their mirror image in it."""
    last = size - 1
    return last - (last - index.abs()).abs()
