"""The viewer's page from a camera to an encoded picture: its own server, and a client that does without a browser."""

import itertools
import math
import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import Tensor

from benchmarks import common
from benchmarks.common import PRECISIONS, Result
from benchmarks.model import random_net, random_views
from genvs.data.framing import Framing
from genvs.data.scene_input import SceneInput
from genvs.data.types import Views
from genvs.geometry.trajectories import orbit
from genvs.modalities import from_levels
from genvs.sampling.viewer import Viewer

MOVES = 125  # cameras a second that a dragging mouse sends; a browser sends 50
CANVAS = (600, 800)  # of the browser, height and width, pixels


class Client:
    """What a browser is to the server: it sends cameras, and gets pictures as JPEGs. It speaks viser's protocol."""

    def __init__(self, port: int, path: Tensor, fov: float) -> None:
        """path: cameras c2w `[N, 4, 4]`. fov: vertical, radians."""
        import viser
        from websockets.sync.client import connect

        from inference.page import HOST

        address, protocol = f"ws://{HOST}:{port}", f"viser-v{viser.__version__}"
        self._socket = connect(address, subprotocols=[protocol], max_size=None, compression=None)
        self._fov, self._poses = fov, itertools.cycle(path.double().numpy())

    def move(self) -> None:
        """Send the path's next camera."""
        import msgspec
        import viser

        c2w = next(self._poses)
        camera = {
            "wxyz": viser.transforms.SO3.from_matrix(c2w[:3, :3]).wxyz.tolist(),
            "position": c2w[:3, 3].tolist(),
            "fov": self._fov,
            "near": 0.01,
            "far": 100.0,
            "image_height": CANVAS[0],
            "image_width": CANVAS[1],
            "look_at": [0.0, 0.0, 0.0],
            "up_direction": [0.0, 0.0, 1.0],
        }
        self._socket.send(msgspec.msgpack.encode({"type": "ViewerCameraMessage", **camera}))

    def picture(self) -> bytes:
        """The next picture's JPEG."""
        import msgspec
        import zstandard

        while True:
            data = self._socket.recv(60)
            size = int.from_bytes(data[8:16], "little")
            for message in msgspec.msgpack.decode(zstandard.decompress(data[16 : 16 + size]))["messages"]:
                if message["type"] == "BackgroundImageMessage" and message["rgb_data"]:  # at first there is none
                    return message["rgb_data"]


def drag(port: int, path: Tensor, fov: float, seconds: float) -> tuple[list[float], float]:
    """Seconds from each of some cameras to its picture; pictures a second while the mouse moves."""
    client = Client(port, path, fov)
    client.move()
    client.picture()
    waits = []
    for _ in range(max(2, int(10 * seconds))):
        start = time.perf_counter()
        client.move()
        client.picture()
        waits.append(time.perf_counter() - start)

    released = threading.Event()

    def move() -> None:
        while not released.wait(1 / MOVES):
            client.move()

    mouse = threading.Thread(target=move)
    mouse.start()
    marks = [time.perf_counter()]
    while marks[-1] < marks[0] + seconds or len(marks) < 3:
        client.picture()
        marks.append(time.perf_counter())
    released.set()
    mouse.join()
    return waits, (len(marks) - 1) / (marks[-1] - marks[0])


@common.benchmark
@common.seconds_option
@common.views_option
def main(preset: str, seconds: float, views: int) -> Iterator[Result]:
    """frames/s of a page while the mouse drags, and ms from one camera to its picture: one evaluation each, as JPEGs of
    the network's size. The client is a process of its own."""
    from inference.page import serving

    net, generator = random_net(preset), torch.Generator().manual_seed(0)
    scene = net.config.scene
    given = random_views(net.config, (1, views), generator)
    inputs = Views(from_levels(given.images).round().byte(), given.cameras)
    shown = SceneInput(inputs, [str(view) for view in range(views)], None, [])
    path, fov = orbit(360, scene.radius), 2 * math.atan(0.5 / scene.focal)
    spawn = multiprocessing.get_context("spawn")
    with serving(Viewer(net, inputs), shown, Framing(), 0) as server, ProcessPoolExecutor(1, spawn) as client:
        waits, rate = client.submit(drag, server.get_port(), path, fov, seconds).result()
    took, spread = common.summarize(waits)
    yield Result("camera to picture", took * 1e3, "ms", PRECISIONS[0], 1, spread)
    yield Result("pictures while dragging", rate, "frames/s", PRECISIONS[0], 1, note=f"{MOVES} cameras/s")
