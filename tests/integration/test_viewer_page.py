"""The viewer's page in a real browser."""

import io
import json
import math
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.viewer import Client
from genvs.data.camera_paths import transforms_of
from genvs.data.framing import Framing
from genvs.data.scene_input import SceneInput, read_scene
from genvs.data.types import Views
from genvs.geometry import Cameras, to_opencv
from genvs.geometry.trajectories import orbit, spherical_c2w
from genvs.sampling.viewer import Viewer
from tests.browser import HEIGHT, Browser, chromium, wait_until
from tests.small_model import SIZE, small_net

pytest.importorskip("viser", reason="the viewer needs viser: pip install -c constraints.txt -e .[viewer]")
from inference import page  # noqa: E402

LENS = torch.tensor([[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]])
FOV = 2 * math.atan(0.5)  # of LENS, radians
CORNER = (60, 340)  # of the canvas, where no camera is seen
CANVAS = (slice(200, 350), slice(120, 400))  # rows and columns of a screenshot that show nothing but the picture

# Where the page's camera is or is moving to, world, and every 101st pixel of the picture behind its scene. Nothing if
# messages are waiting, or the picture is a draft. `__viserMutable` is what viser shows to its own tests.
SHOWN = f"""(({{backgroundMaterial, camera, cameraControl, messageQueue, nodeRefFromName}}) => {{
    const image = backgroundMaterial.uniforms.colorMap.value?.image;
    if (messageQueue.length || image?.height != {page.SIDE}) return null;
    const context = new OffscreenCanvas(image.width, image.height).getContext('2d', {{willReadFrequently: true}});
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, image.width, image.height).data.filter((_, i) => i % 404 < 3);
    const end = cameraControl.getPosition(camera.position.clone(), true);
    return [nodeRefFromName[''].worldToLocal(end).toArray(), [...pixels]];
}})(__viserMutable)"""


@pytest.fixture(scope="module")
def viewer() -> Viewer:
    images = torch.randint(0, 256, (1, 2, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1)).byte()
    planes = torch.full((1, 2), 0.8), torch.full((1, 2), 1.8)
    return Viewer(small_net(), Views(images, Cameras(orbit(2, 1.3)[None], LENS.expand(1, 2, 3, 3), *planes)))


@pytest.fixture(scope="module")
def scene(viewer) -> SceneInput:
    return SceneInput(viewer.inputs, ["0", "1"], None, [])


@pytest.fixture(scope="module")
def server(viewer, scene) -> Iterator:
    with page.serving(viewer, scene, Framing(), 8080) as server:
        yield server


@pytest.fixture(scope="module")
def browser(server, tmp_path_factory, request) -> Iterator[Browser]:
    if not request.config.getoption("--all"):
        pytest.skip("a real browser takes its time: ./test.sh --all")
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


class Window:
    """A page in a window of its own, and its camera on the server. viewer: what is to draw its pictures."""

    def __init__(self, server, browser: Browser, viewer: Viewer) -> None:
        others = server.get_clients()
        self.tab, self.viewer = browser.open(f"http://{page.HOST}:{server.get_port()}"), viewer
        wait_until(lambda: self.tab.run("window.__viserMutable?.backgroundMaterial") and self.tab.run(SHOWN))
        [client] = (client for number, client in server.get_clients().items() if number not in others)
        self.camera = client.camera
        self.tab.fill("12", "3")
        notes = "document.querySelectorAll('[class*=Notification-closeButton]')"  # such as one of slow graphics
        self.tab.run(f"{notes}.forEach(button => button.click())")
        wait_until(lambda: self.tab.run(f"{notes}.length") == 0)
        self.rest()

    def rest(self, inputs: Views | None = None) -> None:
        """Wait until the page shows what the viewer draws at its camera, with all steps, from now on from `inputs`."""
        if inputs is not None:
            self.viewer = self.viewer.drawing_from(inputs)
        wait_until(self.is_at_rest)

    def is_at_rest(self) -> bool:
        position, pixels = self.tab.run(SHOWN) or (np.inf, [])
        if not np.allclose(position, self.camera.position, atol=1e-4):
            return False
        drawn = self.viewer.draw(self.viewer.camera(self.c2w(), self.camera.fov), num_steps=3)
        canvas = Image.fromarray(page.on_canvas(drawn, page.SIDE, self.camera.aspect))
        canvas.save(jpeg := io.BytesIO(), "JPEG", quality=90)
        expected = np.asarray(Image.open(jpeg), int).reshape(-1, 3)[::101].ravel()
        return len(expected) == len(pixels) and bool(np.abs(expected - pixels).mean() < 0.5)

    def c2w(self) -> np.ndarray:
        c2w = np.eye(4, dtype=np.float32)
        c2w[:3, :3], c2w[:3, 3] = page.viser.transforms.SO3(self.camera.wxyz).as_matrix(), self.camera.position
        return c2w

    def seen_at(self, point: np.ndarray) -> tuple[int, int]:
        """The pixel that shows a point, world."""
        x, y, z, _ = np.linalg.inv(self.c2w().astype(float)) @ (*point, 1)
        pixel = z * self.pixel_size()
        return round(HEIGHT * self.camera.aspect / 2 + x / pixel), round(HEIGHT / 2 + y / pixel)

    def pixel_size(self) -> float:
        """At a distance of 1; viser's own count of pixels falls where the browser is slow."""
        return 2 * math.tan(self.camera.fov / 2) / HEIGHT

    def point_at(self, place: tuple[float, float], cursor: str) -> None:
        """Move the mouse, until the page shows that it is over a camera, or is not."""

        def is_there() -> bool:
            self.tab.mouse("mouseMoved", place)
            return self.tab.run("__viserMutable.canvas.style.cursor") == cursor

        wait_until(is_there)

    def click_camera(self, c2w: np.ndarray) -> None:
        place = self.seen_at(middle(c2w))
        self.point_at(place, "pointer")
        self.tab.click(place)
        wait_until(lambda: np.allclose(self.camera.position, c2w[:3, 3], atol=1e-3))

    def drag(self, right: int) -> None:
        """Orbit."""
        self.point_at(CORNER, "auto")
        self.tab.drag(CORNER, by=(right, 0))

    def drag_camera(self, name: str, c2w: np.ndarray, right: int, afterwards: str = "") -> np.ndarray:
        """Drag a camera, run a script, and wait until the camera is there: its new c2w."""
        view, start = self.c2w(), self.seen_at(middle(c2w))
        self.point_at(start, "pointer")
        self.tab.drag(start, by=(right, 0), moves=16)
        self.tab.run(afterwards)
        depth = view[:3, 2] @ (middle(c2w) - view[:3, 3])
        expected = middle(c2w) + right * self.pixel_size() * depth * view[:3, 0]
        expected *= 1.3 / np.linalg.norm(expected)
        place = f"__viserMutable.nodePoseData['{name}'].position"
        wait_until(lambda: np.allclose(self.tab.run(place), expected, atol=0.01))
        x, y, z = self.tab.run(place)  # exactly: the mouse pressed a whole pixel
        return spherical_c2w(*torch.tensor([math.atan2(y, x), math.asin(z / 1.3)]), 1.3).numpy()

    def has(self, camera: str) -> bool:
        return self.tab.run(f"'{camera}' in __viserMutable.nodeRefFromName")

    def fields(self) -> str:
        """What the controls show."""
        return self.tab.run("[...document.querySelectorAll('input')].map(field => field.value).join()")


def middle(c2w: np.ndarray) -> np.ndarray:
    """The middle of the picture that a camera with LENS is shown with."""
    return c2w[:3, 3] + 1.3 * page.FRUSTUM / math.cbrt(math.tan(FOV / 2) ** 2 / 3) * c2w[:3, 2]


@pytest.fixture(scope="module")
def window(server, browser, viewer) -> Iterator[Window]:
    window = Window(server, browser, viewer)
    yield window
    window.tab.close()
    wait_until(lambda: not drawing_threads())


def drawing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("page ")]


def test_a_click_on_an_input_camera_goes_there(window):
    """A page starts at the first input's camera, which sees the second one, on the other side of the object."""
    first, second = orbit(2, 1.3).double().numpy()
    np.testing.assert_allclose(window.camera.position, first[:3, 3], atol=1e-4)
    is_shown = "__viserSceneTree.getState()['/inputs/1'].effectiveVisibility"
    with window.viewer._turns:  # while another picture is drawn
        window.drag(10)
        window.click_camera(second)
        wait_until(lambda: not window.tab.run(is_shown))  # a drag would else take hold of it
    window.rest()


def test_a_drag_changes_the_picture_and_no_request_leaves_the_machine(server, browser, window):
    start, before = window.c2w(), window.tab.picture()[CANVAS].astype(int)
    window.drag(120)
    window.rest()
    moved = window.camera.position
    assert np.linalg.norm(moved) == pytest.approx(1.3, abs=1e-3), "it orbits the origin"
    assert np.linalg.norm(moved - start[:3, 3]) > 0.1
    assert np.abs(window.tab.picture()[CANVAS] - before).mean() > 1
    own = tuple(f"{scheme}{page.HOST}:{server.get_port()}/" for scheme in ("http://", "ws://", "blob:http://"))
    assert any(url.startswith(own) for url in browser.requested)
    assert [url for url in browser.requested if not url.startswith((*own, "data:"))] == []


def test_two_pages_do_not_disturb_each_other_and_a_closed_one_frees_its_work(server, browser, viewer, window):
    other = Window(server, browser, viewer)
    assert len(drawing_threads()) == 2
    before = window.c2w()
    other.drag(-120)
    other.rest()
    assert window.is_at_rest() and (window.c2w() == before).all()
    other.drag(60)
    other.tab.close()  # while it is drawn
    wait_until(lambda: len(drawing_threads()) == 1)
    window.drag(120)
    window.rest()


def test_key_views_are_played_and_errors_are_shown(window):
    window.tab.press("Export")
    wait_until(lambda: "The path has no key views" in window.tab.run("document.body.innerText"))
    ends = []
    for number in range(2):
        window.drag(50)
        window.rest()
        ends.append(window.camera.position)
        window.tab.press("Add key view")
        wait_until(lambda number=number: window.has(f"/path/{number}"))
    window.tab.fill("60", "20")
    seen = []
    window.camera.on_update(lambda camera: seen.append(np.linalg.norm(camera.position - ends, axis=1)))
    window.tab.press("Play")
    wait_until(lambda: any(first < second for first, second in seen))
    wait_until(lambda: seen[-1][1] < 1e-3)
    window.rest()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # read_frames leaves pipes open
def test_a_loaded_path_is_exported_as_each_kind_of_file(browser, window, tmp_path):
    """With its own frames and pace; what is drawn is the same in each."""
    c2w = spherical_c2w(torch.tensor([0.0, 0.1, 1.0]), torch.tensor([0.3, 0.4, 0.3]), 1.3)
    poses = to_opencv(c2w, "opengl").flatten(1).tolist()  # the same flip leads back
    cameras = [{"camera_to_world": pose, "fov": 50} for pose in poses]
    (tmp_path / "path.json").write_text(json.dumps({"camera_path": cameras, "fps": 10}))
    tab = window.tab
    tab.upload(tmp_path / "path.json", accept=".json")
    wait_until(lambda: ",3,10,MP4" in window.fields())

    def exported(name: str) -> Path:
        tab.press("Export")
        return wait_until(lambda: [file for file in browser.downloads.iterdir() if file.name == name])[0]

    meta, *frames = imageio_ffmpeg.read_frames(exported("views.mp4"))
    assert (meta["size"], meta["fps"], len(frames)) == ((512, 512), 10, 3)
    tab.choose("MP4", "GIF")
    with Image.open(exported("views.gif")) as gif:
        assert (gif.n_frames, gif.info["duration"]) == (3, 100)
        first = np.asarray(gif.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX)).astype(int)
    tab.choose("GIF", "PNG")
    archive = exported("views.zip")
    scene = read_scene(archive, small_net().config, targets=[])
    torch.testing.assert_close(scene.inputs.cameras.c2w[0], c2w, rtol=0, atol=1e-5)
    image = scene.inputs.images[0, 0].movedim(0, -1).numpy().astype(int)
    for pixels in (first, np.frombuffer(frames[0], np.uint8).reshape(SIZE, 512 // SIZE, SIZE, -1, 3).mean((1, 3))):
        assert np.abs(pixels - image).mean() < 12 < np.abs(pixels - image[::-1]).mean()
    tab.choose("PNG", "transforms.json")
    with zipfile.ZipFile(archive) as files:
        assert exported("transforms.json").read_bytes() == files.read("transforms.json")


def test_depths_are_downloaded(browser, window):
    window.tab.choose("point cloud, PLY", "depth, npy")
    window.tab.press("Download")
    assert np.load(wait_until(lambda: list(browser.downloads.glob("depth.npy")))[0]).shape == (SIZE, SIZE)


def test_an_image_is_dropped_placed_dragged_and_left_out(viewer, window):
    """Without a pose it is placed at the page's camera; a file, a drag or a button moves it."""
    pixels = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(png := io.BytesIO(), "PNG")
    image = torch.from_numpy(pixels).movedim(-1, 0)[None, None]

    def added(c2w: np.ndarray, fov: float = FOV) -> Views:
        return Views(image, viewer.camera(c2w, fov))

    def placed(c2w: np.ndarray, fov: float = FOV) -> Views:
        return Views.cat([viewer.inputs, added(c2w, fov)], dim=1)

    tab = window.tab
    tab.drop({"new.png": png.getvalue()}, on="Drop images here")
    here = placed(window.c2w(), window.camera.fov)
    window.rest(here)
    for inputs in (viewer.inputs, here):
        tab.press("Draw from it")
        window.rest(inputs)

    x, y, z = window.camera.position
    behind = torch.tensor([math.atan2(-y, -x) + 0.3, -math.asin(z / 1.3) - 0.3])  # seen below the notes
    pose = spherical_c2w(*behind, 1.3).numpy()
    record = json.dumps(transforms_of(["images/new.png"], pose[None], LENS[None].double().numpy(), SIZE))
    tab.drop({"transforms.json": record.encode()}, on="Drop images here")
    window.rest(placed(pose))

    dragged = window.drag_camera("/inputs/2", pose, 40)
    window.rest(placed(dragged))
    # Over a slow network, the events of a drag come all at once.
    tab.run("held = [], send = __viserMutable.sendMessage, __viserMutable.sendMessage = event => held.push(event)")
    dragged = window.drag_camera("/inputs/2", dragged, -40, "held.forEach(__viserMutable.sendMessage = send)")
    window.rest(placed(dragged))
    window.click_camera(dragged)
    window.rest()

    window.drag(150)
    window.rest()
    tab.press("Place here")
    inputs = placed(window.c2w(), window.camera.fov)
    window.rest(inputs)

    with zipfile.ZipFile(archive := io.BytesIO(), "w") as files:
        files.writestr("transforms.json", record)
        files.writestr("images/new.png", png.getvalue())
    tab.drop({"scene.zip": archive.getvalue()}, on="Drop images here")
    window.rest(Views.cat([inputs, added(pose)], dim=1))


def test_a_picture_is_as_high_as_the_canvas():
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    picture[:, [0, -1]] = 7, 8, 9
    wide, narrow = page.on_canvas(picture, 1, 2.0), page.on_canvas(picture, 1, 0.5)
    np.testing.assert_array_equal(wide[:, 4:12], picture)
    assert (wide[:, [*range(4), *range(12, 16)]] == (7, 8, 9)).all()
    np.testing.assert_array_equal(narrow, picture[:, 2:6])


def test_a_server_ends_after_its_pages(viewer, scene):
    before = drawing_threads()
    with page.serving(viewer, scene, Framing(), 8080) as server:
        client = Client(server.get_port(), orbit(8, 1.3), 0.9)
        client.move()
        client.picture()
        assert len(drawing_threads()) == len(before) + 1
    assert drawing_threads() == before
