"""The controls of the viewer's page for its input views: which are drawn from, and images that are added."""

from __future__ import annotations

import asyncio
import functools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import torch
import viser
from torch import Tensor

from genvs.data.framing import Framing, Lens, square_photo
from genvs.data.images import read_image
from genvs.data.scene_input import read_scene
from genvs.data.srn import read_pose
from genvs.data.storage import Storage
from genvs.data.transforms import read_frames
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.geometry import Cameras, to_opencv
from genvs.geometry.trajectories import placed, spherical_c2w
from inference.page_files import as_file

if TYPE_CHECKING:
    from inference.page import Page

USED, UNUSED = (40, 40, 40), (190, 190, 190)  # colours of cameras
ACCEPTED = ".png,.jpg,.jpeg,.webp,.txt,.json,.zip"
HINT = (
    "Images (PNG, JPEG, WebP); their poses (a transforms.json, or NAME.txt for NAME.png); or a .zip of a scene. "
    "An image without a pose is placed at this camera."
)
# viser's button takes one file at a time, and nothing that is dropped; it is disabled while it sends a file.
DROP_AREA = f"""<div style="margin: 0 1em 0.5em; padding: 0.8em; border: 1px dashed; border-radius: 4px;
    text-align: center; font-size: 0.85em; opacity: 0.7" ondragover="event.preventDefault()" ondrop="
    event.preventDefault();
    (async files => {{
        const input = document.querySelector('input[accept=&quot;{ACCEPTED}&quot;]');
        for (const file of files) {{
            const one = new DataTransfer();
            one.items.add(file);
            input.files = one.files;
            input.dispatchEvent(new Event('change', {{bubbles: true}}));
            do await new Promise(wake => setTimeout(wake, 100)); while (input.nextElementSibling.disabled);
        }}
    }})([...event.dataTransfer.files])">Drop images here</div>"""


@dataclass
class InputView:
    """picture: uint8 `[3, R, R]`. camera: `[]`. is_used: whether pictures are drawn from it.

    photo: of an image that was added, whose camera can be moved, uint8 `[H, W, 3]`.
    """

    picture: Tensor
    camera: Cameras
    is_used: bool = True
    photo: np.ndarray | None = None


class ViewControls:
    """The input views of one page, by their names."""

    def __init__(self, page: Page, framing: Framing) -> None:
        self._page, self._framing, self._lock = page, framing, threading.RLock()
        inputs = page.scene.inputs
        self._views = {
            name: InputView(picture, inputs.cameras[0, number])
            for number, (name, picture) in enumerate(zip(page.scene.names, inputs.images[0], strict=True))
        }
        # In files that were added, by the images' names without suffix: c2w `[4, 4]` in the world of the inputs' files,
        # and the lens if it is stated.
        self._poses: dict[str, tuple[Tensor, Lens | None]] = {}
        gui = page.client.gui
        with gui.add_folder("Input views"):
            self._chosen = gui.add_dropdown("View", tuple(self._views))
            self._is_used = gui.add_checkbox("Draw from it", True)
            place = gui.add_button("Place here", hint="Move an added image to this camera. Its frustum can be dragged.")
            gui.add_html(DROP_AREA)
            add = gui.add_upload_button("Add images", mime_type=ACCEPTED, hint=HINT)
        self._chosen.on_update(lambda _: self._do(self._show_whether_used))
        self._is_used.on_update(lambda _: self._do(self._use))
        place.on_click(lambda _: self._do(lambda: self._place_here(self._chosen.value)))
        add.on_upload(lambda event: self._do(lambda: self._load(event.target.value.name, event.target.value.content)))
        for name in self._views:
            self._show(name)

    def used(self) -> Views:
        """The views that pictures are drawn from, `[1, V]`."""
        views = [view for view in self._views.values() if view.is_used]
        cameras = Cameras.stack([view.camera for view in views])
        return Views(torch.stack([view.picture for view in views]), cameras)[None]

    def _do(self, action: Callable[[], object]) -> None:
        with self._page.showing_errors(), self._lock:
            action()

    def _changed(self) -> None:
        """Draw from the views as they are now."""
        self._page.viewer = self._page.viewer.drawing_from(self.used())
        self._page.redraw()

    def _show_whether_used(self) -> None:
        self._is_used.value = self._views[self._chosen.value].is_used

    def _use(self) -> None:
        """Draw from the chosen view, or not, as the checkbox says."""
        view, is_used = self._views[self._chosen.value], self._is_used.value
        if view.is_used == is_used:
            return
        if not is_used and self.used().shape[1] == 1:
            self._is_used.value = True
            raise InputError("Pictures are drawn from one view at least: add another one first.")
        view.is_used = is_used
        self._show(self._chosen.value)
        self._changed()

    def _show(self, name: str) -> None:
        """Show the view's camera with its picture. A click moves the browser's camera there."""
        view = self._views[name]
        c2w, lens = view.camera.c2w, view.camera.intrinsics
        picture, number = view.picture.movedim(0, -1).numpy(), list(self._views).index(name)
        color = USED if view.is_used else UNUSED
        frustum = self._page.show_camera(f"/inputs/{number}", c2w, lens, color, picture)
        frustum.on_click(lambda _: self._do(functools.partial(self._go_to, name)))
        if view.photo is not None:
            frustum.on_drag(functools.partial(self._drag, name))
        self._page.redraw()

    def _go_to(self, name: str) -> None:
        self._chosen.value = name
        camera = self._views[name].camera
        self._page.go_to(camera.c2w, camera.intrinsics)

    def _load(self, name: str, content: bytes) -> None:
        """Take a file that was added: an image, poses, or a scene in a .zip."""
        if "rgb" not in self._page.viewer.net.config.modalities:
            raise InputError("This network does not draw from photos.")
        suffix = Path(name).suffix.lower()
        if suffix == ".zip":
            return self._load_scene(name, content)
        if suffix == ".txt":
            self._poses[Path(name).stem] = torch.from_numpy(read_pose(content, name)), None
        elif suffix == ".json":
            with as_file(name, content) as path:
                for image, frame in read_frames(Storage(path.parent), path.name).items():
                    pose = to_opencv(torch.from_numpy(frame.c2w), "opengl")
                    self._poses[PurePosixPath(image).stem] = pose, frame.lens
        else:
            photo = read_image(content, name, self._framing.background)
            self._place(name, photo, *self._here(photo))
        for other, view in list(self._views.items()):
            if view.photo is not None and Path(other).stem in self._poses:
                c2w, lens = self._poses.pop(Path(other).stem)
                self._place(other, view.photo, self._page.in_scene(c2w), lens or self._here(view.photo)[1])
        self._changed()

    def _load_scene(self, name: str, content: bytes) -> None:
        with as_file(name, content) as path:
            config = self._page.viewer.net.config
            scene = read_scene(path, config, framing=self._framing, targets=[])
        given = scene.inputs.cameras[0]
        cameras = placed(self._page.inputs, self._page.in_scene(given.c2w), given.intrinsics)[0]
        cameras = replace(cameras, modality=given.modality)
        for number, view in enumerate(scene.names):
            self._add(f"{name}/{view}", InputView(scene.inputs.images[0, number], cameras[number]))
        self._changed()

    def _here(self, photo: np.ndarray) -> tuple[Tensor, Lens]:
        """The browser's camera, c2w `[4, 4]`, and its field of view as that of the photo's longer side."""
        camera = self._page.camera()[0, 0]
        return camera.c2w, Lens({"fl_x": max(photo.shape) * camera.intrinsics[0, 0].item()}, "the camera")

    def _place_here(self, name: str) -> None:
        photo = self._views[name].photo
        if photo is None:
            raise InputError(f"{name} has its own camera: images that were added without one can be placed.")
        self._place(name, photo, *self._here(photo))
        self._changed()

    def _place(self, name: str, photo: np.ndarray, c2w: Tensor, lens: Lens) -> None:
        picture, intrinsics = square_photo(photo, lens, self._page.viewer.net.config.resolution, self._framing)
        camera = placed(self._page.inputs, c2w[None], torch.from_numpy(intrinsics)[None])[0, 0]
        self._add(name, InputView(torch.from_numpy(picture), camera, photo=photo))

    def _add(self, name: str, view: InputView) -> None:
        """Add a view, or replace the one of this name, and choose it."""
        self._views[name] = view
        self._chosen.options = tuple(self._views)
        self._chosen.value = name
        self._is_used.value = True
        self._show(name)

    async def _drag(self, name: str, event: viser.SceneNodeDragEvent) -> None:
        """Move an image's camera along its sphere around the origin, at which it then looks.

        viser awaits this before the drag's next event. What is not async runs in threads, the last event maybe first.
        """
        x, y, z = event.end_position
        azimuth, elevation = torch.tensor([math.atan2(y, x), math.atan2(z, math.hypot(x, y))])
        view = self._views[name]
        c2w = spherical_c2w(azimuth, elevation, view.camera.centers.norm())
        view.camera = placed(self._page.inputs, c2w[None], view.camera.intrinsics[None])[0, 0]
        event.target.wxyz = viser.transforms.SO3.from_matrix(c2w[:3, :3].double().numpy()).wxyz
        event.target.position = c2w[:3, 3].numpy()
        if event.phase == "end":
            await asyncio.to_thread(self._do, self._changed)
