"""The viewer's page in a real browser."""

import io
import json
import math
import threading
import time
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
from tests.browser import HEIGHT, Browser, Tab, chromium, wait_until
from tests.small_model import SIZE, small_net

pytest.importorskip("viser", reason="the viewer needs viser: pip install -c constraints.txt -e .[viewer]")
from inference import page  # noqa: E402

CANVAS = (slice(200, 350), slice(120, 400))  # rows and columns of a screenshot that show nothing but the picture
CENTER = (240, 200)  # of the canvas


@pytest.fixture(scope="module")
def scene() -> SceneInput:
    images = torch.randint(0, 256, (1, 2, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1)).byte()
    lens = torch.tensor([[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]]).expand(1, 2, 3, 3)
    inputs = Views(images, Cameras(orbit(2, 1.3)[None], lens, torch.full((1, 2), 0.8), torch.full((1, 2), 1.8)))
    return SceneInput(inputs, ["0", "1"], None, [])


@pytest.fixture(scope="module")
def server(scene) -> Iterator:
    with page.serving(Viewer(small_net(), scene.inputs), scene, Framing(), 8080) as server:
        yield server


@pytest.fixture(scope="module")
def browser(server, tmp_path_factory, request) -> Iterator[Browser]:
    if not request.config.getoption("--all"):
        pytest.skip("a real browser misses a drag now and then: ./test.sh --all")
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def tab(server, browser) -> Iterator[Tab]:
    tab = opened(server, browser)
    yield tab
    tab.close()
    wait_until(lambda: not drawing_threads())


def opened(server, browser: Browser) -> Tab:
    """A page that shows its first picture, at rest."""
    tab = browser.open(f"http://{page.HOST}:{server.get_port()}")
    wait_until(lambda: canvas(tab).std() > 5)
    tab.fill("12", "3")
    at_rest(tab)
    notes = "document.querySelectorAll('[class*=Notification-closeButton]')"  # such as one of slow graphics
    tab.run(f"{notes}.forEach(button => button.click())")
    wait_until(lambda: tab.run(f"{notes}.length") == 0)
    return tab


def canvas(tab: Tab) -> np.ndarray:
    return tab.picture()[CANVAS].astype(int)


def at_rest(tab: Tab, unlike: np.ndarray | None = None) -> np.ndarray:
    """The canvas once it is unlike another one, has all its steps and, for it is decoded then, stays the same."""
    wait_until(lambda: unlike is None or np.abs(canvas(tab) - unlike).mean() > 0.3)
    wait_until(lambda: "3 steps" in fields(tab))
    last = canvas(tab)
    while time.sleep(0.3) or (last != (now := canvas(tab))).any():
        last = now
    return last


def fields(tab: Tab) -> str:
    """What the controls show."""
    return tab.run("[...document.querySelectorAll('input')].map(field => field.value).join()")


def drawing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("page ")]


def camera(server):
    """The camera of the first page."""
    return next(iter(server.get_clients().values())).camera


def position(server) -> np.ndarray:
    return np.array(camera(server).position)


def seen_at(server, point: np.ndarray) -> tuple[int, int]:
    """The pixel of the first page that shows a point, world."""
    view = camera(server)
    x, y, z = page.viser.transforms.SO3(view.wxyz).inverse().apply(np.asarray(point) - view.position)
    pixel = z * pixel_size(view)
    return round(HEIGHT * view.aspect / 2 + x / pixel), round(HEIGHT / 2 + y / pixel)


def pixel_size(view) -> float:
    """Of a page's camera, at a distance of 1; viser's own count of pixels falls where the browser is slow."""
    return 2 * math.tan(view.fov / 2) / HEIGHT


def test_a_click_on_an_input_camera_goes_there(server, tab):
    """A page starts at the first input's camera, which sees the second one, on the other side of the object."""
    before, (first, second) = at_rest(tab), orbit(2, 1.3).double()
    np.testing.assert_allclose(position(server), first[:3, 3], atol=1e-4)
    tab.drag(seen_at(server, second[:3, 3] + 0.05 * second[:3, 2]), by=(0, 0))  # a point in its pyramid
    wait_until(lambda: np.allclose(position(server), second[:3, 3], atol=1e-3))
    at_rest(tab, unlike=before)


def test_a_drag_changes_the_picture_and_no_request_leaves_the_machine(server, browser, tab):
    before = at_rest(tab)
    start = position(server)
    tab.drag(CENTER, by=(120, 20))
    at_rest(tab, unlike=before)
    moved = position(server)
    assert np.linalg.norm(moved) == pytest.approx(1.3, abs=1e-3), "it orbits the origin"
    assert np.linalg.norm(moved - start) > 0.1
    own = tuple(f"{scheme}{page.HOST}:{server.get_port()}/" for scheme in ("http://", "ws://", "blob:http://"))
    assert any(url.startswith(own) for url in browser.requested)
    assert [url for url in browser.requested if not url.startswith((*own, "data:"))] == []


def test_two_pages_do_not_disturb_each_other_and_a_closed_one_frees_its_work(server, browser, tab):
    other = opened(server, browser)
    assert len(drawing_threads()) == 2
    before, others = at_rest(tab), at_rest(other)
    other.drag(CENTER, by=(-120, 0))
    at_rest(other, unlike=others)
    assert np.abs(canvas(tab) - before).mean() < 0.5
    other.drag(CENTER, by=(60, 0))
    other.close()  # while it is drawn
    wait_until(lambda: len(drawing_threads()) == 1)
    tab.drag(CENTER, by=(120, 0))
    at_rest(tab, unlike=before)


def test_an_image_is_dropped_placed_and_left_out(server, tab):
    """Without a pose it is placed at the page's camera; one in a file moves it."""
    time.sleep(1)  # the cameras of the last move are still shown before their pictures
    before = at_rest(tab)
    png = io.BytesIO()
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(png, "PNG")
    tab.drop({"new.png": png.getvalue()}, on="Drop images here")
    placed_here = at_rest(tab, unlike=before)
    tab.press("Draw from it")
    left_out = at_rest(tab, unlike=placed_here)  # as before, but for cameras that may still be shown
    assert np.abs(left_out - before).mean() < 0.25 * np.abs(left_out - placed_here).mean()
    tab.press("Draw from it")
    at_rest(tab, unlike=before)

    x, y, _ = position(server)
    pose = spherical_c2w(
        *torch.tensor([math.atan2(-y, -x) + 0.3, -0.4], dtype=torch.float64), 1.3
    )  # seen below the notes
    record = transforms_of(
        ["images/new.png"], pose[None].numpy(), np.array([[[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]]), SIZE
    )
    tab.drop({"transforms.json": json.dumps(record).encode()}, on="Drop images here")
    at_rest(tab, unlike=placed_here)

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as scene:
        scene.writestr("transforms.json", json.dumps(record))
        scene.writestr("images/new.png", png.getvalue())
    tab.drop({"scene.zip": archive.getvalue()}, on="Drop images here")
    wait_until(lambda: "scene.zip/new" in fields(tab))


def test_key_views_are_played_and_errors_are_shown(server, tab):
    tab.press("Export")
    wait_until(lambda: "The path has no key views" in tab.run("document.body.innerText"))
    tab.press("Add key view")
    start = position(server)
    tab.drag(CENTER, by=(100, 0))
    wait_until(lambda: np.linalg.norm(position(server) - start) > 0.1)
    at_rest(tab)
    end = position(server)
    tab.press("Add key view")
    tab.press("Play")
    wait_until(lambda: np.linalg.norm(position(server) - start) < 0.05)
    wait_until(lambda: np.linalg.norm(position(server) - end) < 1e-3)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # read_frames leaves pipes open
def test_a_loaded_path_is_exported_as_each_kind_of_file(browser, tab, tmp_path):
    """With its own frames and pace; what is drawn is the same in each."""
    c2w = spherical_c2w(torch.tensor([0.0, 0.1, 1.0]), torch.tensor([0.3, 0.4, 0.3]), 1.3)
    poses = to_opencv(c2w, "opengl").flatten(1).tolist()  # the same flip leads back
    cameras = [{"camera_to_world": pose, "fov": 50} for pose in poses]
    (tmp_path / "path.json").write_text(json.dumps({"camera_path": cameras, "fps": 10}))
    tab.upload(tmp_path / "path.json", accept=".json")
    wait_until(lambda: ",3,10,MP4" in fields(tab))

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


def test_depths_are_downloaded(browser, tab):
    tab.choose("point cloud, PLY", "depth, npy")
    tab.press("Download")
    assert np.load(wait_until(lambda: list(browser.downloads.glob("depth.npy")))[0]).shape == (SIZE, SIZE)


def test_a_picture_is_as_high_as_the_canvas():
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    picture[:, [0, -1]] = 7, 8, 9
    wide, narrow = page.on_canvas(picture, 1, 2.0), page.on_canvas(picture, 1, 0.5)
    np.testing.assert_array_equal(wide[:, 4:12], picture)
    assert (wide[:, [*range(4), *range(12, 16)]] == (7, 8, 9)).all()
    np.testing.assert_array_equal(narrow, picture[:, 2:6])


def test_a_server_ends_after_its_pages(scene):
    before = drawing_threads()
    with page.serving(Viewer(small_net(), scene.inputs), scene, Framing(), 8080) as server:
        client = Client(server.get_port(), orbit(8, 1.3), 0.9)
        client.move()
        client.picture()
        assert len(drawing_threads()) == len(before) + 1
    assert drawing_threads() == before
