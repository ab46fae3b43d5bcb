"""What a U-Net can be told of an image besides its noise: its class, and how it was augmented.

Both stand in one tensor `[..., L]`: the class, one-hot (or zeros), then AUGMENT_LABELS numbers that say what
`augmented` does; a network that cannot be told the one or the other leaves these out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genvs.config import GeNVSConfig
from genvs.errors import InputError


def class_labels(one_hot: Tensor, config: GeNVSConfig) -> Tensor:
    """`[N, L]` for images of these classes, `[N, K]`, and not augmented."""
    return F.pad(one_hot, (0, config.denoiser.augment_labels))


def label_of_class(class_id: int, config: GeNVSConfig) -> Tensor:
    """`[1, L]`, for all images of one class. Raises InputError for a class that the network does not know."""
    known = config.scene.num_classes
    if known == 0:
        raise InputError(f"class_id={class_id}: the network was trained without classes (--cond): leave it out")
    if not 0 <= class_id < known:
        raise InputError(f"class_id={class_id}: the network knows those from 0 to {known - 1}: choose one of them")
    return class_labels(torch.eye(known)[class_id : class_id + 1], config)


def augment_labels(flip_x: Tensor, flip_y: Tensor, quarter_turns: Tensor, shift: Tensor) -> Tensor:
    """`[..., AUGMENT_LABELS]`, all zero where nothing is done.

    flip_x, flip_y: true or false, `[...]`. quarter_turns: 0 to 3, `[...]`. shift: `[..., 2]`, x and y, over the side.
    """
    angle = quarter_turns * (torch.pi / 2)
    turned = torch.stack([flip_x.float(), flip_y.float(), 1 - angle.cos().round(), angle.sin().round()], dim=-1)
    return torch.cat([turned, shift], dim=-1)


def augmented(images: Tensor, labels: Tensor, fill: float) -> Tensor:
    """Square images `[N, C, H, H]`, each mirrored left to right and upside down, turned, and moved, as labels say.

    labels: `[N, AUGMENT_LABELS]`, of `augment_labels`. fill: what moves in from outside.
    Each pixel goes to one place, so that gradients do not depend on an order of additions.
    """
    size = images.shape[-1]
    flip_x, flip_y, one_less_cos, sin, shift_x, shift_y = labels.float()[:, :, None, None].unbind(dim=1)
    place = torch.arange(size, device=images.device)
    # Where each pixel comes from, by the inverse of every step, the last one first.
    y, x = place[:, None] - (shift_y * size).round().long(), place - (shift_x * size).round().long()
    outside = (x < 0) | (x >= size) | (y < 0) | (y >= size)
    centre = (size - 1) / 2
    x, y = x % size - centre, y % size - centre
    cos = 1 - one_less_cos
    x, y = cos * x + sin * y, cos * y - sin * x
    x, y = x * (1 - 2 * flip_x) + centre, y * (1 - 2 * flip_y) + centre
    source = (y * size + x).round().long().flatten(1)
    moved = images.flatten(2).gather(2, source[:, None].expand(-1, images.shape[1], -1)).view_as(images)
    return moved.masked_fill(outside[:, None], fill)
