"""Novel views of one object, from arrays to arrays."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from genvs.data.camera_checks import checked_pose, face_away
from genvs.data.images import eight_bits, to_square
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.models import GeNVS
from genvs.sampling.synthesis import synthesize_views
from genvs.visualize import to_uint8

LONGEST_FOCAL = 10  # in image widths: a field of view of 6 degrees
Images = np.ndarray | Sequence[np.ndarray] | Sequence[Image.Image]


@overload
def sample_views(
    net: GeNVS,
    images: Images,
    c2w: ArrayLike,
    target_c2w: ArrayLike,
    *,
    focal: float | None = ...,
    intrinsics: ArrayLike | None = ...,
    near: float | None = ...,
    far: float | None = ...,
    sampler: str | None = ...,
    steps: int | None = ...,
    seed: int = ...,
    return_features: Literal[False] = ...,
    **options: Any,
) -> np.ndarray: ...


@overload
def sample_views(
    net: GeNVS, images: Images, c2w: ArrayLike, target_c2w: ArrayLike, *, return_features: Literal[True], **options: Any
) -> tuple[np.ndarray, np.ndarray]: ...


def sample_views(
    net: GeNVS,
    images: Images,
    c2w: ArrayLike,
    target_c2w: ArrayLike,
    *,
    focal: float | None = None,
    intrinsics: ArrayLike | None = None,
    near: float | None = None,
    far: float | None = None,
    sampler: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    return_features: bool = False,
    **options: Any,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Draw an object from new viewpoints, given one or more views of it.

    images: the given views, `[V, H, W, 3]`, uint8 or float in [0, 1], or a list of Pillow images. They are resized to
    the network's R x R pixels; transparency becomes the background that the network is trained on.
    c2w, target_c2w: camera-to-world matrices of the given views, `[V, 4, 4]`, and of the views to draw, `[K, 4, 4]`, in
    world units, with OpenCV axes (+x right, +y down, +z forward).
    focal: focal length over the image's width, for square pixels and a centred principal point; by default that of the
    training data. intrinsics: instead, `[3, 3]` or `[V, 3, 3]`, normalised: the first row divided by the image's width,
    the second by its height. Views to draw get the first one. near, far: depth planes, in world units; by default those
    of the training data. sampler, steps: one of `genvs.diffusion.samplers.SAMPLERS`, and its number of steps; by
    default those that the snapshot is for, most often 'unipc' with 12. One step is a quick preview.
    options: others of `genvs.sampling.synthesis.synthesize_views`, such as guidance, noise and batch_size.

    Returns images `[K, R, R, 3]`, uint8, and with return_features also the feature images that they were drawn from,
    `[K, R, R, C]`, float32. Raises InputError (a ValueError) for input of another shape or range.

    >>> import genvs, numpy as np
    >>> from PIL import Image
    >>> net = genvs.load_snapshot("models/demo.pkl", device="cpu")
    >>> pose = np.loadtxt("inference/input/pose/000064.txt").reshape(1, 4, 4)
    >>> views = genvs.sample_views(net, [Image.open("inference/input/rgb/000064.png")], pose, pose)
    >>> views.shape, views.dtype
    ((1, 128, 128, 3), dtype('uint8'))
    """
    given = given_views(net, images, c2w, focal=focal, intrinsics=intrinsics, near=near, far=far)
    poses = _checked("target_c2w", target_c2w, 4)
    targets = replace(given.cameras[:, [0] * len(poses)], c2w=poses[None])
    if face_away(torch.cat([given.cameras.c2w[0], poses]).numpy()):
        warnings.warn("all cameras face away from the scene: for OpenGL's, negate `c2w[:, :, 1:3]`", stacklevel=2)
    options = {"progress": False, "sampler": sampler, "num_steps": steps, "seed": seed, **options}
    drawn = list(synthesize_views(net, given, targets, **options))
    result = np.stack([to_uint8(image) for image, _ in drawn])
    return (result, np.stack([features.movedim(0, -1).numpy() for _, features in drawn])) if return_features else result


def given_views(
    net: GeNVS,
    images: Images,
    c2w: ArrayLike,
    *,
    focal: float | None = None,
    intrinsics: ArrayLike | None = None,
    near: float | None = None,
    far: float | None = None,
) -> Views:
    """The given views of an object as `genvs.Viewer` takes them: `[1, V]`, of the network's R x R pixels.

    The arguments are those of `sample_views`. Raises InputError as it does.
    """
    scene = net.config.scene
    pictures = [_as_uint8(image, scene.background) for image in images]
    if not pictures:
        raise InputError("`images` is empty: give one view or more")
    count = len(pictures)
    if intrinsics is None:
        intrinsics = _centred(scene.focal if focal is None else focal, pictures)
    elif focal is not None:
        raise InputError("`focal` and `intrinsics` exclude each other: leave one of them out")
    matrices = _checked("intrinsics", intrinsics, 3, (1, count)).expand(count, 3, 3)
    planes = scene.near if near is None else near, scene.far if far is None else far
    replace(scene, near=planes[0], far=planes[1])  # refuses all but 0 < near < far
    squares = np.stack([to_square(picture, net.config.resolution) for picture in pictures])
    depths = (torch.full((1, count), plane) for plane in planes)
    return Views(
        torch.from_numpy(squares)[None], Cameras(_checked("c2w", c2w, 4, (count,))[None], matrices[None], *depths)
    )


def _as_uint8(image: np.ndarray | Image.Image, background: tuple[int, ...]) -> np.ndarray:
    """uint8 `[H, W, 3]`, on the background."""
    if isinstance(image, Image.Image):
        rgba = eight_bits(image).convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, (*background, 255)), rgba).convert("RGB"))
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise InputError(f"`images`: one has the shape {list(image.shape)}: give [H, W, 3]")
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating) or not (image.min() >= 0 and image.max() <= 1):
        raise InputError(
            f"`images` of {image.dtype} from {image.min()} to {image.max()}: give uint8, or floats in [0, 1]"
        )
    return (image * 255).round().astype(np.uint8)


def _centred(focal: float, pictures: Sequence[np.ndarray]) -> list[list[list[float]]]:
    """Intrinsics of square pixels, the principal point in the middle of each picture."""
    return [
        [[focal, 0, 0.5], [0, focal * width / height, 0.5], [0, 0, 1]] for height, width, _ in map(np.shape, pictures)
    ]


def _checked(name: str, matrices: ArrayLike, side: int, counts: Sequence[int] = ()) -> Tensor:
    """float32 `[N, side, side]`, with N among `counts` if these are given; one matrix counts as `[1, ...]`."""
    array = np.asarray(matrices, dtype=np.float32)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[1:] != (side, side) or (counts and len(array) not in counts):
        wanted = " or ".join(f"[{count}, {side}, {side}]" for count in counts or "K")
        raise InputError(f"`{name}` has the shape {list(np.shape(matrices))}: give {wanted}")
    if not len(array) or not np.isfinite(array).all():
        raise InputError(f"`{name}` is empty or not finite: give one matrix or more")
    for number, c2w in enumerate(array if side == 4 else ()):
        checked_pose(c2w, f"`{name}`: matrix {number}")
    if name == "intrinsics" and (longest := array[:, 0, 0].max()) > LONGEST_FOCAL:
        message = f"a focal length is {longest:.4g} image widths: if that is in pixels, divide by the image's size"
        warnings.warn(message, stacklevel=4)
    return torch.from_numpy(array)
