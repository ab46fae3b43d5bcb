"""One object, drawn from one camera after another for people who watch: what a viewer needs, without its page."""

from __future__ import annotations

import copy
import math
import threading
from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from genvs.config import UNOFFICIAL
from genvs.data.types import Views
from genvs.diffusion.samplers import Denoise
from genvs.errors import InputError
from genvs.geometry import Cameras, pixel_centers, unproject
from genvs.geometry.trajectories import placed
from genvs.modalities import depth_decoded, from_levels, to_levels
from genvs.models import GeNVS
from genvs.models.colours import as_stored
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.synthesis import Conditioned, guided, sampler_of, start_noise
from genvs.visualize import feature_colors, to_uint8

PICTURES = ("sample", "feature image")
GEOMETRY = ("expected depth", "opacity")  # pictures of photos' volumes


class Dropped(Exception):
    """A picture that nobody waits for any more was not drawn to its end."""


class Turns:
    """A lock that waiting threads get in the order in which they asked for it."""

    def __init__(self) -> None:
        self._lock, self._queue = threading.Lock(), deque[threading.Event]()

    def __enter__(self) -> None:
        turn = threading.Event()
        with self._lock:
            self._queue.append(turn)
            self._queue[0].set()
        turn.wait()

    def __exit__(self, *_) -> None:
        with self._lock:
            self._queue.popleft()
            if self._queue:
                self._queue[0].set()

    def pass_on(self) -> None:
        """Let all who wait now have a turn first."""
        self.__exit__()
        self.__enter__()


class Viewer:
    """A network and the encoded input views of one object. Draws one camera at a time.

    Several threads may draw: after each evaluation of the denoiser, the next one has its turn. inputs: `[1, V]`, as
    given at first, on the CPU; depth planes are relative to theirs. pictures: what it draws: PICTURES and, of photos by
    this project's own networks, GEOMETRY.
    """

    def __init__(
        self,
        net: GeNVS,
        inputs: Views,
        *,
        bf16: bool | None = None,
        class_id: int | None = None,
        modality: str | None = None,
    ) -> None:
        """inputs: `[1, V]`. bf16: as in `FastDenoiser`. class_id, modality: of what is drawn. Raises InputError for an
        unknown one.
        """
        self.net, self.inputs, self._device = net, inputs, next(net.parameters()).device
        self._denoise = FastDenoiser(net, bf16=bf16, class_id=class_id, modality=modality)
        shows_geometry = self._denoise.modality == "rgb" and net.config.numerics != UNOFFICIAL
        self.pictures = PICTURES + GEOMETRY if shows_geometry else PICTURES
        self._turns = Turns()
        self._geometry = copy.copy(net.renderer)  # with the same weights
        self._geometry.shows_geometry = True
        self._network = self._conditioned_on(inputs)
        with torch.inference_mode():
            # All feature images are coloured like this one.
            self._usual_features = self._network.render(self._network.cameras[:, :1])

    @torch.inference_mode()
    def _conditioned_on(self, inputs: Views) -> Conditioned:
        return Conditioned(self._denoise, inputs.to(self._device), batch_size=8)

    def drawing_from(self, inputs: Views) -> Viewer:
        """A viewer that draws from other inputs `[1, V]`, and takes turns with this one."""
        other = copy.copy(self)
        with self._turns:
            other._network = self._conditioned_on(inputs)
        return other

    def camera(self, c2w: np.ndarray | Tensor, fov: float) -> Cameras:
        """A camera `[1, 1]` to draw: c2w `[4, 4]`, OpenCV axes, and the square image's field of view, radians.

        Raises InputError for one that is too close to the origin.
        """
        focal = 0.5 / math.tan(fov / 2)
        lens = torch.tensor([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
        return placed(self.inputs.cameras, torch.as_tensor(c2w)[None], lens[None])

    @torch.inference_mode()
    def draw(
        self,
        camera: Cameras,
        picture: str = "sample",
        *,
        sampler: str | None = None,
        num_steps: int | None = None,
        guidance: float = 1.0,
        seed: int = 0,
        is_dropped: Callable[[], bool] = lambda: False,
    ) -> np.ndarray:
        """One of `pictures` at a camera `[1, 1]`: uint8 `[R, R, 3]`, at the network's resolution R.

        A sample is the image that `synthesize_views` draws with the same options. The feature image is coloured as at
        the first input's camera. Expected depth is lighter where it is nearer, as in depth pictures (genvs.modalities).
        is_dropped: asked before each evaluation of the denoiser; where it says so, Dropped is raised. Raises InputError
        for options that do not fit.
        """
        if picture not in self.pictures:
            raise InputError(f"`picture`={picture} is not known: choose one of {', '.join(self.pictures)}")
        sample = sampler_of(self.net, sampler, num_steps, seed=seed)
        with self._turns:
            camera = camera.to(self._device)
            if picture in GEOMETRY:
                opacity, depth = self._rendered_geometry(camera)
                # Rendered depth lacks the background's level (FeatureRenderer.known).
                levels = 2 * opacity - 1 if picture == "opacity" else depth + to_levels(0)
                return to_uint8(levels.expand(1, 3, *levels.shape))[0]
            features = self._network.render(camera)
            if picture == "feature image":
                return feature_colors(features, self._usual_features)[0]
            denoised = self._network.denoiser(features)
            if guidance != 1:
                denoised = guided(denoised, self._network.unconditioned(features, seed), guidance)
            side = self.net.config.resolution
            noise = start_noise("fixed", seed, (3, side, side), self._device)(0, 1)
            image = sample(self._in_turns(denoised, is_dropped), noise).clamp(-1, 1)
            return to_uint8(as_stored(image, self._denoise.modality))[0]

    def _in_turns(self, denoise: Denoise, is_dropped: Callable[[], bool]) -> Denoise:
        def evaluate(noisy: Tensor, sigma: Tensor) -> Tensor:
            self._turns.pass_on()
            if is_dropped():
                raise Dropped
            return denoise(noisy, sigma)

        return evaluate

    def _rendered_geometry(self, camera: Cameras) -> Tensor:
        """Opacity, and the level of the depth above the background's, in [0, 2], times opacity: `[2, R, R]`."""
        with torch.cuda.device_of(self._network.volume), self._denoise.autocast():
            low = self._geometry(self._network.volume, self._network.cameras, camera)[0, :, :2]
            return self.net.enlarge(low.float())[0]

    @torch.inference_mode()
    def depths(self, camera: Cameras) -> Tensor:
        """Depths of the rendered volume at a camera `[1, 1]`: `[R, R]`, float64 on the CPU, world units.

        Each is the mean over the light that the volume absorbs along a pixel's ray, and nan where that is less than
        half of it.
        """
        with self._turns:
            opacity, level = self._rendered_geometry(camera.to(self._device)).double().cpu()
        depth = depth_decoded(from_levels(level / opacity + to_levels(0)), *camera.near.double(), *camera.far.double())
        return torch.where(opacity < 0.5, torch.nan, depth)


def surface_points(depths: Tensor, camera: Cameras) -> Tensor:
    """The world points `[N, 3]`, float64, of those pixels of depths `[R, R]` that are not nan, row by row.

    camera: `[]`. Each point projects to its pixel's centre, at its depth.
    """
    rows, columns = depths.isfinite().nonzero(as_tuple=True)
    uv = pixel_centers(*depths.shape, dtype=torch.float64)[rows, columns]
    return unproject(uv, depths[rows, columns].double(), camera.to(torch.float64))
