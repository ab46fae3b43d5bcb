"""Files of the viewer's page: what it is given, and the rendered volume as a point cloud or as depths."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import trimesh
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from genvs.data.camera_checks import Placement
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.sampling.viewer import Viewer, surface_points
from inference.inference import LARGEST_DEPTH

if TYPE_CHECKING:
    from inference.page import Page

FILES = {"point cloud, PLY": "points.ply", "depth, npy": "depth.npy", "depth, PNG": "depth.png"}


@contextlib.contextmanager
def as_file(name: str, content: bytes) -> Iterator[Path]:
    """A file that a browser has sent, in a temporary folder, which errors of the block do not name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        path.write_bytes(content)
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(f"{folder}/", "")) from None


class VolumeControls:
    """Downloads of the volume that one page's pictures are rendered from, in the world of the inputs' files."""

    def __init__(self, page: Page) -> None:
        self._page, gui = page, page.client.gui
        with gui.add_folder("Volume"):
            self._kind = gui.add_dropdown("Kind", tuple(FILES))
            download = gui.add_button("Download", hint="Depths of this camera; points of it and of the input views.")
        download.on_click(lambda _: self._download())

    def _download(self) -> None:
        page, name = self._page, FILES[self._kind.value]
        with page.showing_errors():
            camera, viewer, placement = page.camera(), page.viewer, page.scene.placement
            if name.endswith(".ply"):
                drawn = torch.from_numpy(page.draw(camera, page.closed.is_set)).movedim(-1, 0)
                photos = page.views.used()
                photos = photos[:, photos.modality[0] == 0]
                content = point_cloud(viewer, Views.cat([Views(drawn[None, None], camera), photos], dim=1), placement)
            else:
                depths = viewer.depths(camera).numpy() / (placement.scale if placement else 1)
                content = depth_array(depths) if name.endswith(".npy") else depth_image(depths)
            page.client.send_file_download(name, content, save_immediately=True)


def point_cloud(viewer: Viewer, views: Views, placement: Placement | None) -> bytes:
    """A PLY of points: pixels of uint8 photos `[1, V]`, at the depths where the volume absorbs their rays.

    placement: of the volume; the points are in the world without it. Raises InputError if it absorbs no ray.
    """
    points, colors = [], []
    for number in range(views.shape[1]):
        depths = viewer.depths(views.cameras[:, number : number + 1])
        points.append(surface_points(depths, views.cameras[0, number]))
        colors.append(views.images[0, number].movedim(0, -1)[depths.isfinite()])
    placed = torch.cat(points).numpy()
    if not len(placed):
        raise InputError("The volume is empty: nothing in it absorbs half of the light.")
    if placement is not None:
        placed = placed / placement.scale + placement.center
    return trimesh.PointCloud(placed, torch.cat(colors).numpy()).export(file_type="ply")


def depth_array(depths: np.ndarray) -> bytes:
    """Depths `[R, R]` as .npy, float32; nan stays."""
    np.save(file := io.BytesIO(), depths.astype(np.float32))
    return file.getvalue()


def depth_image(depths: np.ndarray) -> bytes:
    """Depths `[R, R]` as a PNG of 16 bits: multiples of the `depth_scale` that its text states, and 0 for nan."""
    scale, note = float(np.nanmax(depths, initial=1e-9)) / LARGEST_DEPTH, PngInfo()
    note.add_text("depth_scale", repr(scale))
    values = np.nan_to_num(depths / scale).round().astype(np.uint16)
    Image.fromarray(values).save(file := io.BytesIO(), format="PNG", pnginfo=note)
    return file.getvalue()
