"""The controls of the viewer's page for camera paths: key views, playing, and files of what is drawn along a path."""

from __future__ import annotations

import json
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from genvs.data.camera_paths import read_camera_path, transforms_of
from genvs.data.framing import Framing
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.geometry.key_views import through
from genvs.geometry.trajectories import TRAJECTORIES, placed, trajectory_cameras
from inference import writers
from inference.page_files import as_file

if TYPE_CHECKING:
    from inference.page import Page

KEY_VIEWS = "key views"
MOST_SHOWN = 50  # key views of a loaded path that are shown as cameras
KEY_COLOR = (220, 70, 30)
FILES = {"MP4": "views.mp4", "GIF": "views.gif", "PNG": "views.zip", "transforms.json": "transforms.json"}


class PathControls:
    """A camera path of one page. Its key views are c2w `[4, 4]` with intrinsics `[3, 3]`."""

    def __init__(self, page: Page, framing: Framing) -> None:
        self._page, self._framing = page, framing
        self._keys: list[tuple[Tensor, Tensor]] = []
        self._stopped = threading.Event()
        gui = page.client.gui
        with gui.add_folder("Camera path"):
            self._kind = gui.add_dropdown("Path", (KEY_VIEWS, *TRAJECTORIES))
            actions = {"Add key view": self._add, "Remove the last": self._remove}
            load = gui.add_upload_button("Load a path", mime_type=".json", hint="nerfstudio's, or a transforms.json.")
            self._frames = gui.add_number("Frames", 60, min=1, max=10_000, step=1)
            self._fps = gui.add_number("Frames/s", 20, min=1, max=120, step=1)
            self._file = gui.add_dropdown("File", tuple(FILES))
            actions |= {"Play": self._play, "Export": self._export, "Stop": self._stopped.set}
            buttons = {label: gui.add_button(label) for label in actions}
        for label, action in actions.items():
            buttons[label].on_click(lambda _, action=action: self._do(action))
        load.on_upload(lambda event: self._do(lambda: self._load(event.target.value.name, event.target.value.content)))

    def _do(self, action: Callable[[], object]) -> None:
        with self._page.showing_errors():
            action()

    def cameras(self) -> Cameras:
        """The path's cameras `[1, K]`. Raises InputError where there is none."""
        inputs, count = self._page.inputs, int(self._frames.value)
        if self._kind.value != KEY_VIEWS:
            return trajectory_cameras(inputs, self._kind.value, count)
        if not self._keys:
            raise InputError("The path has no key views: add some, or choose another path.")
        c2w, lenses = (torch.stack(column) for column in zip(*self._keys, strict=True))
        if count != len(self._keys):  # a loaded path keeps its own pace
            c2w, lenses = through(c2w, lenses, count, smooth=True)
        return placed(inputs, c2w, lenses)

    def _add(self) -> None:
        camera = self._page.camera()
        self._keys.append((camera.c2w[0, 0], camera.intrinsics[0, 0]))
        self._show_keys()

    def _remove(self) -> None:
        del self._keys[-1:]
        self._show_keys()

    def _load(self, name: str, content: bytes) -> None:
        """Take a file's cameras as key views, and as many frames as it has."""
        with as_file(name, content) as path:
            c2w, lenses, fps = read_camera_path(path, self._framing)
        c2w = self._page.in_scene(c2w)
        self._keys = list(zip(c2w.float(), lenses.float(), strict=True))
        self._kind.value, self._frames.value, self._fps.value = KEY_VIEWS, len(c2w), fps or self._fps.value
        self._show_keys()

    def _show_keys(self) -> None:
        self._page.hide_cameras("/path/")
        every = -(-len(self._keys) // MOST_SHOWN) or 1
        for number, (c2w, lens) in enumerate(self._keys[::every]):
            self._page.show_camera(f"/path/{number}", c2w, lens, KEY_COLOR)
        self._page.redraw()

    def _play(self) -> None:
        """Move the browser's camera along the path; pictures for which there is no time are left out."""
        self._stopped.clear()
        cameras = self.cameras()[0]
        for c2w, lens in zip(cameras.c2w, cameras.intrinsics, strict=True):
            if self._is_stopped():
                return
            self._page.go_to(c2w, lens)
            self._stopped.wait(1 / self._fps.value)

    def _is_stopped(self) -> bool:
        return self._stopped.is_set() or self._page.closed.is_set()

    def _export(self) -> None:
        """Draw the path with all steps, and send the browser a file of it."""
        self._stopped.clear()
        name, cameras = FILES[self._file.value], self.cameras()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            if name == "transforms.json":
                path.write_text(self._transforms(cameras), encoding="utf-8")
            elif name.endswith(".zip"):
                self._write_zip(path, cameras)
            else:
                write = writers.write_gif if name.endswith(".gif") else writers.write_video
                write(path, self._drawn(cameras), self._fps.value)
            self._page.client.send_file_download(name, path.read_bytes(), save_immediately=True)

    def _transforms(self, cameras: Cameras) -> str:
        """A transforms.json of the cameras, in the world of the inputs' files."""
        placement, c2w = self._page.scene.placement, cameras.c2w[0].double().numpy()
        c2w = c2w if placement is None else placement.inverse.of(c2w)
        names = [f"{number:05d}.png" for number in range(len(c2w))]
        side, lenses = self._page.viewer.net.config.resolution, cameras.intrinsics[0].double().numpy()
        return json.dumps(transforms_of(names, c2w, lenses, side), indent=1)

    def _write_zip(self, path: Path, cameras: Cameras) -> None:
        """PNGs and their transforms.json: a scene that training and inference read."""
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("transforms.json", self._transforms(cameras))
            for number, picture in enumerate(self._drawn(cameras)):
                image = path.with_name(f"{number:05d}.png")
                writers.write_png(image, picture)
                archive.write(image, image.name)

    def _drawn(self, cameras: Cameras) -> Iterator[np.ndarray]:
        """The chosen pictures at cameras `[1, K]`, with their progress on the page. Raises Dropped at a stop."""
        count = cameras.shape[1]
        note = self._page.client.add_notification("Drawing", f"0 of {count}", loading=True, with_close_button=False)
        try:
            for number in range(count):
                yield self._page.draw(cameras[:, number : number + 1], self._is_stopped)
                note.body = f"{number + 1} of {count}"
        finally:
            note.remove()
