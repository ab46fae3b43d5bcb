"""How much each input view counts for a target view: the methods that a config's `view_weighting` names.

Every method takes input cameras `[B, V]` and target cameras `[B, T]`, and returns weights `[B, T, V]` in float32 or
float64, which are not negative and sum to 1 over the input views. The names and formulas are those of the unofficial
implementation of GeNVS. Poses are OpenCV camera-to-world.

Where errors or distances are inverted, a view with an error of 0, such as the target's own camera, has all the weight.
Several such views share it equally. Gradients are finite there too.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from genvs.config import parse_view_weighting
from genvs.geometry import Cameras

ViewWeighting = Callable[[Cameras, Cameras], Tensor]

NUM_FREQUENCIES, LOWEST_FREQUENCY, NUM_HEADS = 6, 1.5, 3
CAMERA_CHANNELS = 3 * (2 + 2 * NUM_FREQUENCIES)  # of `encode_camera`
SMALLEST = 1e-12  # errors are at least this, because gradients divide by their square


def baseline_mean(inputs: Cameras, targets: Cameras) -> Tensor:
    """All input views count equally."""
    batch, num_inputs = inputs.shape
    return torch.full((batch, targets.shape[1], num_inputs), 1 / num_inputs, device=inputs.device)


def inverse_pose_norm(inputs: Cameras, targets: Cameras, order: int) -> Tensor:
    """Weights by the inverse norm, over all entries, of the difference of the camera-to-world matrices."""
    difference = inputs.c2w[:, None] - targets.c2w[:, :, None]
    return weights_of_errors(torch.linalg.vector_norm(difference, order, dim=(-2, -1)))


def inverse_error(inputs: Cameras, targets: Cameras, alpha: float) -> Tensor:
    """Weights by the inverse of alpha * angle / pi + (1 - alpha) * d / (the largest d of the target's input views).

    angle: between the two cameras' orientations. d: distance of the camera centres.
    """
    # R = R_input R_target^T has trace 1 + 2 cos(angle), and R - R^T is the cross product matrix of axis * 2 sin(angle).
    of_inputs, of_targets = inputs.c2w[:, None, :, :3, :3], targets.c2w[:, :, None, :3, :3]
    twice_cos = (of_inputs * of_targets).sum(dim=(-2, -1)) - 1
    twice_sin = torch.linalg.cross(*torch.broadcast_tensors(of_inputs, of_targets), dim=-2).sum(dim=-1).norm(dim=-1)
    distances = center_distances(inputs, targets)
    relative = distances / distances.amax(dim=-1, keepdim=True).clamp_min(SMALLEST)
    return weights_of_errors(alpha / math.pi * torch.atan2(twice_sin, twice_cos) + (1 - alpha) * relative)


def inverse_relative_pose(inputs: Cameras, targets: Cameras) -> Tensor:
    """Weights by the inverse Frobenius norm of (input's camera-to-world)(target's camera-to-world)^-1.

    This is sqrt(t^2 + 4), where t is the length of that matrix's translation. The matrix is not a relative pose: if all
    cameras look at the origin from the same distance, t is 0 and all views count equally. It is kept, under both of its
    names, for networks that were trained with it.
    """
    of_targets = targets.w2c[:, :, None, :3, 3]
    turned = (inputs.c2w[:, None, :, :3, :3] * of_targets[..., None, :]).sum(dim=-1)
    return weights_of_errors(((turned + inputs.centers[:, None]).norm(dim=-1) ** 2 + 4).sqrt())


class LearnedCrossAttention(nn.Module):
    """Softmax of the dot products of the encoded target and input cameras, each after a learned linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.query_layer = nn.Linear(CAMERA_CHANNELS, CAMERA_CHANNELS, bias=False)
        self.key_layer = nn.Linear(CAMERA_CHANNELS, CAMERA_CHANNELS, bias=False)

    def forward(self, inputs: Cameras, targets: Cameras) -> Tensor:
        # In bf16 a dot product of so many terms would be off by whole units.
        with torch.autocast(inputs.device.type, enabled=False):
            return attention(self.query_layer(encode_cameras(targets)), self.key_layer(encode_cameras(inputs)))


class RelativePoseSelfAttention(nn.Module):
    """Self-attention among the input views, each represented by the target's pose in the view's frame.

    The pose is encoded as the target's centre and +z direction, in OpenGL axes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.multihead_attention = nn.MultiheadAttention(CAMERA_CHANNELS, NUM_HEADS, batch_first=True)
        self.weight_calculation_layer = nn.Linear(CAMERA_CHANNELS, 1)

    def forward(self, inputs: Cameras, targets: Cameras) -> Tensor:
        rotation = inputs.w2c[:, None, :, :3, :3]
        offset = targets.centers[:, :, None] - inputs.centers[:, None]
        # A matrix product could be rounded to TF32, which has 10 bits.
        position = (rotation * offset[..., None, :]).sum(dim=-1)
        backward = -(rotation * targets.c2w[:, :, None, None, :3, 2]).sum(dim=-1)
        opengl = position.new_ones(3)
        opengl[1:] = -1
        views = encode_camera(position * opengl, backward * opengl).flatten(0, 1)
        with torch.autocast(inputs.device.type, enabled=False):
            attended, _ = self.multihead_attention(views, views, views, need_weights=False)
            return softmax_of_views(self.weight_calculation_layer(attended).squeeze(-1)).unflatten(0, targets.shape)


# Each is called with the input cameras, the target cameras and, if its name has one, the number.
_METHODS: dict[str, Callable] = {
    "baseline_mean": baseline_mean,
    # By 1 / d^power and by exp(-b d^2), where d is the distance of the camera centres, in world units.
    "distance": lambda i, t: weights_of_errors(center_distances(i, t)),
    "distance_squared": lambda i, t: weights_of_errors(center_distances(i, t), power=2.0),
    "distance_cubed": lambda i, t: weights_of_errors(center_distances(i, t), power=3.0),
    "distance_gaussian_b": lambda i, t, b: softmax_of_views(-b * center_distances(i, t) ** 2),
    "l1_weighting": lambda i, t: inverse_pose_norm(i, t, order=1),
    "f_norm_weighting": lambda i, t: inverse_pose_norm(i, t, order=2),
    "error_weighting_alpha": inverse_error,
    "rel_cam_poses_l2": inverse_relative_pose,
    "rel_cam_poses_f_norm": inverse_relative_pose,
    # By the softmax of the dot products of the encoded cameras.
    "cross_attention": lambda i, t: attention(encode_cameras(t), encode_cameras(i)),
    "learned_cross_attention": LearnedCrossAttention,
    "relative_pose_self_attention": RelativePoseSelfAttention,
}


def make_view_weighting(name: str) -> ViewWeighting:
    """The method of this name, such as `distance` or `distance_gaussian_b=2`; a new module if it has weights.

    Raises InputError for an unknown name or a number out of range.
    """
    method, number = parse_view_weighting(name)
    function = _METHODS[method]
    if number is not None:
        return lambda inputs, targets: function(inputs, targets, number)
    return function() if isinstance(function, type) else function


def weights_of_errors(errors: Tensor, power: float = 1.0) -> Tensor:
    """1 / errors^power, divided by its sum along the last dimension."""
    largest = errors.amax(dim=-1, keepdim=True).clamp_min(SMALLEST)
    inverse = (errors / largest).clamp_min(1e-6) ** -power
    return inverse / inverse.sum(dim=-1, keepdim=True)


def softmax_of_views(logits: Tensor) -> Tensor:
    """Softmax along the last dimension, with weights of at least e^-60 of the largest.

    A point that only one view sees would be lost if that view had a weight of 0.
    """
    return (logits - logits.amax(dim=-1, keepdim=True)).clamp_min(-60).softmax(dim=-1)


def center_distances(inputs: Cameras, targets: Cameras) -> Tensor:
    """Distances `[B, T, V]` of the camera centres, world units."""
    return (inputs.centers[:, None] - targets.centers[:, :, None]).norm(dim=-1)


def attention(query: Tensor, key: Tensor) -> Tensor:
    """Softmax `[B, T, V]` of the dot products of query `[B, T, C]` and key `[B, V, C]`."""
    return softmax_of_views((query[:, :, None] * key[:, None]).sum(dim=-1))


def encode_cameras(cameras: Cameras) -> Tensor:
    """Cameras by centre and backward direction, which is a camera's +z in OpenGL axes."""
    return encode_camera(cameras.centers, -cameras.c2w[..., :3, 2])


def encode_camera(position: Tensor, direction: Tensor) -> Tensor:
    """`[..., CAMERA_CHANNELS]`: position `[..., 3]`, its sines and cosines at growing frequencies, and direction."""
    frequencies = LOWEST_FREQUENCY * 2.0 ** torch.arange(NUM_FREQUENCIES, device=position.device)
    angles = frequencies[:, None, None] * position[..., None, None, :]
    waves = torch.cat([angles.sin(), angles.cos()], dim=-2)  # [..., frequency, sine or cosine, axis]
    return torch.cat([position, waves.flatten(-3), direction], dim=-1)
