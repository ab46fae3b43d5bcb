"""Photos of a toy on a rug, which stand for your own in docs/tutorial.md:

    python -m examples.photos datasets/toy

writes images/*.jpg, as a phone held by hand takes them all around the toy: its lens distorts, aim and exposure vary.
masks/*.png show where the toy is. --cameras adds transforms.json, the true cameras, as ns-process-data writes COLMAP's.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import map_coordinates

from genvs.data.synthetic.shading import render
from genvs.data.synthetic.things.build import THEMES, build_thing
from genvs.errors import InputError, run_program
from genvs.geometry.cameras import to_opencv
from genvs.geometry.distortion import distortion_of, photo_positions
from genvs.geometry.trajectories import spherical_c2w
from genvs.programs import Parser, whole

FOCAL = 0.8  # of the width: 28 mm on film
LENS = {"k1": -0.09, "k2": 0.02, "p1": 0.001, "p2": -0.0015}
ASPECT = 0.75  # height over width
MARGIN = 1.4  # side of the undistorted square picture, in photo widths: the lens shows more than a pinhole would
WALL = 2.5  # radius of the round room, world units
DISTANCE = 1.4  # of the camera, and the toy's diagonal is 1


def cameras(count: int, rng: np.random.Generator) -> np.ndarray:
    """Camera-to-world `[count, 4, 4]`, OpenCV axes, z up: two rounds, the second one higher, by an unsteady hand."""
    turn = np.arange(count) / count * 4 * np.pi
    azimuth = turn + rng.uniform(-0.1, 0.1, count)
    elevation = np.where(turn < 2 * np.pi, 0.3, 0.75) + rng.uniform(-0.1, 0.1, count)
    distance = DISTANCE * rng.uniform(0.92, 1.08, count)
    c2w = spherical_c2w(*map(torch.from_numpy, (azimuth, elevation, distance))).numpy()
    c2w[:, :3, 3] += rng.uniform(-0.04, 0.04, (count, 3))  # it does not aim exactly
    return c2w


def pattern(tint: Sequence[float], rng: np.random.Generator, side: int = 1024) -> np.ndarray:
    """Patches of all sizes, float `[side, side, 3]` from 0 to 1, in which COLMAP finds points. tint: their mean."""
    picture = np.ones((side, side, 3))
    for cells in (16, 64, 256):
        picture += np.kron(
            (rng.uniform(-0.2, 0.2, (cells, cells, 1)) + rng.uniform(-0.05, 0.05, (cells, cells, 3))),
            np.ones((side // cells, side // cells, 1)),
        )
    return picture * tint


def room(rays: np.ndarray, position: np.ndarray, floor: float, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The colours `[N, 3]`, from 0 to 1, of a floor at the height `floor` and of a round wall.

    rays: directions `[N, 3]`, world. position: `[3]`, of the camera. pictures: of the floor and of the wall.
    """
    x, y = position[:2]
    a, b, c = (rays[:, :2] ** 2).sum(1), rays[:, :2] @ (x, y), x * x + y * y - WALL**2
    to_wall = (np.sqrt(b * b - a * c) - b) / a
    to_floor = np.where(rays[:, 2] < 0, (floor - position[2]) / np.minimum(rays[:, 2], -1e-9), np.inf)
    on_floor = to_floor < to_wall
    hits = position + np.minimum(to_floor, to_wall)[:, None] * rays
    around = np.arctan2(hits[:, 1], hits[:, 0]) / (2 * np.pi)
    places = np.where(on_floor[:, None], hits[:, :2] / (2 * WALL), np.stack([4 * around, hits[:, 2] / WALL], 1)) % 1
    shade = 1 - 0.5 * np.exp(-8 * (hits[:, :2] ** 2).sum(1)) * on_floor  # below the toy
    rows, columns = (places.T * len(pictures[0])).astype(int)
    return np.where(on_floor[:, None], *(picture[rows, columns] for picture in pictures)) * shade[:, None]


def write_photos(folder: Path, thing: str, count: int, width: int, seed: int, *, with_cameras: bool) -> None:
    """Write the photos and masks, and their cameras. thing: a family of procedural things. width: pixels."""
    rng = np.random.default_rng(seed)
    model, _ = build_thing(rng, thing)
    c2w, pictures = cameras(count, rng), [pattern((0.55, 0.45, 0.35), rng), pattern((0.5, 0.55, 0.6), rng)]
    size, side = (width, round(ASPECT * width)), round(MARGIN * width)
    intrinsics = np.array([[FOCAL, 0, 0.5], [0, FOCAL / ASPECT, 0.5], [0, 0, 1]])
    lens = distortion_of("OPENCV", LENS)
    assert lens is not None
    uv = np.stack(np.meshgrid(*((np.arange(pixels) + 0.5) / pixels for pixels in size)), axis=-1)
    ideal = uv
    for _ in range(50):  # the inverse of photo_positions
        ideal = ideal + uv - photo_positions(ideal, lens, intrinsics)
    at = ((ideal - 0.5) * size + side / 2 - 0.5)[..., ::-1].reshape(-1, 2).T  # in the undistorted picture
    directions = np.concatenate([(ideal - 0.5) / (FOCAL, FOCAL / ASPECT), np.ones_like(ideal[..., :1])], axis=-1)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for view, (image, depth) in enumerate(render(model, c2w, FOCAL * width, side)):
        rays = directions.reshape(-1, 3) @ c2w[view, :3, :3].T
        behind = room(rays, c2w[view, :3, 3], float(model.bounds[0, 2]), pictures)
        bands = np.concatenate([image / 255.0, (depth > 0)[..., None]], axis=-1)
        *shown, cover = (map_coordinates(bands[..., band], at, order=1) for band in range(4))
        covered = cover > 0.5
        colors = np.where(covered[:, None], np.stack(shown, axis=1), behind) * rng.uniform(0.95, 1.05)
        photo = (255 * colors.clip(0, 1) + 0.5).astype(np.uint8).reshape(*uv.shape[:2], 3)
        Image.fromarray(photo).save(folder / "images" / f"{view:03d}.jpg", quality=92)
        Image.fromarray(255 * covered.reshape(uv.shape[:2]).astype(np.uint8)).save(folder / "masks" / f"{view:03d}.png")
    if with_cameras:
        poses = to_opencv(torch.from_numpy(c2w), "opengl").tolist()  # its own inverse
        frames = [{"file_path": f"images/{v:03d}.jpg", "transform_matrix": pose} for v, pose in enumerate(poses)]
        focal = {"fl_x": FOCAL * width, "fl_y": FOCAL * width, "cx": width / 2, "cy": size[1] / 2}
        record = {"camera_model": "OPENCV", "w": size[0], "h": size[1], **focal, **LENS, "frames": frames}
        (folder / "transforms.json").write_text(json.dumps(record, indent=1))


def main() -> None:
    parser = Parser("python -m examples.photos", "Write photos of a toy, and masks of it, to a new folder.")
    parser.add_argument("folder", metavar="DIR", type=Path, help="gets images/ and masks/")
    options = parser.add_argument_group("photos")
    things = [name for theme in THEMES.values() for name in theme]
    options.add_argument("--thing", choices=things, default="robot", metavar="NAME", help=f"one of {', '.join(things)}")
    options.add_argument("--photos", type=whole(8), default=48, metavar="N", help="number of photos")
    options.add_argument("--width", type=whole(64, 4096), default=640, metavar="PIXELS", help="of each photo")
    options.add_argument("--seed", type=whole(0), default=0, metavar="N", help="random seed")
    options.add_argument(
        "--cameras", action="store_true", help="write transforms.json too, so that COLMAP is not needed"
    )
    given = parser.parse_args()
    if given.folder.exists():
        raise InputError(f"{given.folder}: exists and is not overwritten: name another folder")
    write_photos(given.folder, given.thing, given.photos, given.width, given.seed, with_cameras=given.cameras)
    print(f"Wrote {given.photos} photos and masks to {given.folder}")


if __name__ == "__main__":
    run_program(main)
