"""The viewer's page in one browser, and the thread that draws for it. viser serves it; nothing asks another address."""

import contextlib
import io
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
import viser
from PIL import Image
from torch import Tensor

from genvs.data.framing import Framing
from genvs.data.scene_input import SceneInput
from genvs.data.storage import counted
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.sampling.synthesis import usual_sampling
from genvs.sampling.viewer import Dropped, Viewer
from genvs.visualize import enlarge
from inference.page_files import VolumeControls
from inference.page_path import PathControls
from inference.page_views import ViewControls

DRAFT_STEPS = 1  # while the camera moves
REST = 0.25  # seconds without a change after which a sample is drawn with all its steps
SIDE = 512  # smallest side of the picture on the page, pixels
FRUSTUM = 0.12  # length of the cameras shown, in distances of the inputs from the origin
HOST = "127.0.0.1"


class Page:
    """What one browser shows. Its own controls, key views and pictures: no other browser sees them."""

    def __init__(self, client: viser.ClientHandle, viewer: Viewer, scene: SceneInput, framing: Framing) -> None:
        """framing: of images and cameras that are added."""
        self.client, self.viewer, self.scene = client, viewer, scene
        self.inputs = scene.inputs.cameras
        self.unit = float(self.inputs.centers.norm(dim=-1).mean())
        self.closed, self._changed = threading.Event(), threading.Event()
        self._frusta: dict[str, viser.CameraFrustumHandle] = {}
        self._add_controls()
        self.views = ViewControls(self, framing)
        PathControls(self, framing)
        if "opacity" in viewer.pictures:
            VolumeControls(self)
        client.camera.on_update(self._on_update)
        self._thread = threading.Thread(target=self._work, name=f"page {client.client_id}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; what it is drawing is dropped."""
        self.closed.set()
        self._changed.set()
        self._thread.join()

    def redraw(self) -> None:
        """Something that the picture depends on has changed."""
        self._show_far_cameras()
        self._changed.set()

    async def _on_update(self, _: object) -> None:
        self.redraw()

    def _add_controls(self) -> None:
        gui = self.client.gui
        with gui.add_folder("Picture"):
            self.picture = gui.add_dropdown("Show", self.viewer.pictures)
            sampler, num_steps = usual_sampling(self.viewer.net)
            most = num_steps if sampler == "consistency" else 50
            self._steps = gui.add_slider("Steps", 1, most, 1, num_steps, hint="Once the camera stands still.")
            self._guidance = gui.add_slider("Guidance", 1.0, 4.0, 0.25, 1.0, hint="Above 1: closer to the inputs.")
            self._seed = gui.add_slider("Seed", 0, 99, 1, 0, hint="Of the noise that samples start from.")
            degrees = math.degrees(field_of_view(self.inputs.intrinsics[0, 0]))
            self._fov = gui.add_slider("Field of view", 5.0, 120.0, 0.1, round(degrees, 1), hint="Vertical, degrees.")
            self._show_cameras = gui.add_checkbox("Cameras", True)
            self._speed = gui.add_text("Speed", "", disabled=True)
        for control in (self.picture, self._steps, self._guidance, self._seed, self._show_cameras):
            control.on_update(self._on_update)
        self._fov.on_update(lambda _: setattr(self.client.camera, "fov", math.radians(self._fov.value)))

    def show_camera(
        self, name: str, c2w: Tensor, lens: Tensor, color: tuple[int, int, int], image: np.ndarray | None = None
    ) -> viser.CameraFrustumHandle:
        """Show a camera, c2w `[4, 4]` with intrinsics `[3, 3]`. It replaces one of the same name."""
        self._frusta[name] = self.client.scene.add_camera_frustum(
            name,
            fov=field_of_view(lens),
            aspect=lens[1, 1].item() / lens[0, 0].item(),
            scale=FRUSTUM * self.unit,
            thickness=0.003 * self.unit,
            color=color,
            image=image,
            wxyz=viser.transforms.SO3.from_matrix(c2w[:3, :3].double().numpy()).wxyz,
            position=c2w[:3, 3].numpy(),
            visible=False,  # until it is known to be away from the browser's camera
        )
        return self._frusta[name]

    def hide_cameras(self, prefix: str) -> None:
        """Remove the cameras whose names start with `prefix`."""
        for name in [name for name in self._frusta if name.startswith(prefix)]:
            self._frusta.pop(name).remove()

    def go_to(self, c2w: Tensor, lens: Tensor) -> None:
        """Move the browser's camera to c2w `[4, 4]`. It then orbits the point of its axis nearest the origin."""
        self._fov.value = round(math.degrees(field_of_view(lens)), 1)
        with self.client.atomic():
            self.client.camera.position = c2w[:3, 3].numpy()
            self.client.camera.look_at = pivot(c2w, self.unit)

    def c2w(self) -> np.ndarray:
        """The browser's camera, `[4, 4]`, OpenCV axes."""
        c2w = np.eye(4, dtype=np.float32)
        c2w[:3, :3] = viser.transforms.SO3(self.client.camera.wxyz).as_matrix()
        c2w[:3, 3] = self.client.camera.position
        return c2w

    def in_scene(self, c2w: Tensor) -> Tensor:
        """Cameras c2w `[K, 4, 4]` of files, in the world of the page."""
        placement = self.scene.placement
        return c2w if placement is None else torch.from_numpy(placement.of(c2w.numpy()))

    def camera(self) -> Cameras:
        """The browser's camera `[1, 1]`, of the middle of its view: a square as high as the view."""
        return self.viewer.camera(self.c2w(), self.client.camera.fov)

    def draw(self, camera: Cameras, is_dropped: Callable[[], bool], num_steps: int | None = None) -> np.ndarray:
        """The chosen picture at a camera `[1, 1]`, uint8 `[R, R, 3]`; drafts have `num_steps`, and no guidance."""
        return self.viewer.draw(
            camera,
            self.picture.value,
            num_steps=num_steps or int(self._steps.value),
            guidance=1.0 if num_steps else self._guidance.value,
            seed=int(self._seed.value),
            is_dropped=is_dropped,
        )

    def _work(self) -> None:
        """Draws what was asked for last, until the page is closed."""
        while True:
            self._changed.wait()
            if self.closed.is_set():
                return
            self._changed.clear()
            with self.showing_errors():
                self._show(DRAFT_STEPS, self.closed.is_set)
                if not self._changed.wait(REST):
                    self._show(None, self._changed.is_set)

    def _show(self, num_steps: int | None, is_dropped: Callable[[], bool]) -> None:
        """Draw the picture, or with `num_steps` a draft, which is sent as small as the network draws it."""
        start = time.perf_counter()
        picture = self.draw(self.camera(), is_dropped, num_steps)
        image = on_canvas(picture, 1 if num_steps else SIDE, self.client.camera.aspect)
        steps = f", {counted(num_steps or int(self._steps.value), 'step')}" if self.picture.value == "sample" else ""
        with self.client.atomic():
            self.client.scene.set_background_image(image, format="jpeg", jpeg_quality=90)
            self._speed.value = f"{1 / (time.perf_counter() - start):.1f} frames/s{steps}"
        self.client.flush()  # else viser waits for a sixtieth of a second for more to send

    def _show_far_cameras(self) -> None:
        """Show the cameras, except those so near the browser's that they would cover its view."""
        for frustum in list(self._frusta.values()):
            distance = np.linalg.norm(self.client.camera.position - frustum.position)
            visible = bool(self._show_cameras.value and distance > 3 * FRUSTUM * self.unit)
            if frustum.visible != visible:
                frustum.visible = visible

    @contextlib.contextmanager
    def showing_errors(self) -> Iterator[None]:
        """Errors of the block are shown on the page; a closed one has none."""
        try:
            yield
        except Dropped:
            pass
        except Exception as error:  # whatever it is, the page lives on
            if self.closed.is_set():
                return
            text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self.client.add_notification("Error", text.replace("`", ""), color="red")


def pivot(c2w: Tensor, unit: float) -> np.ndarray:
    """The point of a camera's axis that is nearest the origin, but not behind it: c2w `[4, 4]` to `[3]`."""
    place, forward = c2w[:3, 3].double().numpy(), c2w[:3, 2].double().numpy()
    return place + max(-place @ forward, 0.1 * unit) * forward


def field_of_view(lens: Tensor) -> float:
    """Vertical, radians, of intrinsics `[3, 3]`."""
    return 2 * math.atan(0.5 / lens[1, 1].item())


def on_canvas(picture: np.ndarray, side: int, aspect: float) -> np.ndarray:
    """A picture `[R, R, 3]`, enlarged to at least `side` pixels, in the middle of the browser's canvas.

    aspect: the canvas's width over its height. It is as high as the picture; the border's colour fills the rest.
    """
    image, edges = enlarge(picture, side), np.median(picture[:, [0, -1]], axis=(0, 1))
    canvas = Image.new("RGB", (max(1, round(image.width * aspect)), image.height), tuple(edges.astype(int)))
    canvas.paste(image, ((canvas.width - image.width) // 2, 0))
    return np.asarray(canvas)


@contextlib.contextmanager
def serving(viewer: Viewer, scene: SceneInput, framing: Framing, port: int) -> Iterator[viser.ViserServer]:
    """A server at HOST, at the first free port from `port` on. Its pages start at the first input's camera.

    It ends with the block, its pages first: a thread that draws while Python ends would crash it.
    """
    warnings.filterwarnings("ignore", "Queued a .* on a closed connection")  # people close windows
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its address in a box; the caller says more
        server = viser.ViserServer(HOST, port, label="GeNVS", verbose=False)
    server.gui.configure_theme(show_logo=False, show_share_button=False)
    server.gui.main_panel.dock_right()
    server.scene.set_up_direction("+z")
    first, start = scene.inputs.cameras[0, 0], server.initial_camera
    start.position, start.look_at = first.centers.numpy(), pivot(first.c2w, float(first.centers.norm()))
    start.fov = field_of_view(first.intrinsics)
    pages: dict[int, Page] = {}

    @server.on_client_connect
    def open_page(client: viser.ClientHandle) -> None:
        page = pages[client.client_id] = Page(client, viewer, scene, framing)
        page.redraw()
        if client.client_id not in server.get_clients():  # closed meanwhile
            page.close()

    @server.on_client_disconnect
    def close_page(client: viser.ClientHandle) -> None:
        if client.client_id in pages:
            pages.pop(client.client_id).close()

    try:
        yield server
    finally:
        for page in list(pages.values()):
            page.close()
        with contextlib.redirect_stdout(io.StringIO()):  # it says that it stopped
            server.stop()
