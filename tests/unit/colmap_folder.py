"""Writes COLMAP models, in both of the layouts that COLMAP documents, for tests."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "FOV")
COMMENT = "# a comment\n"


def write_model(
    folder: Path,
    names: Sequence[str],
    c2w: np.ndarray,
    points: np.ndarray,
    *,
    model: str = "SIMPLE_PINHOLE",
    parameters: Sequence[float] = (32.8125, 16, 16),
    size: tuple[int, int] = (32, 32),
    seen: Sequence[Sequence[int]] | None = None,
    binary: bool = True,
) -> Path:
    """A model of one camera, with a photo of each name, and a point of each row. c2w: `[N, 4, 4]`, OpenCV axes.

    seen: for each photo, the rows of the points that it sees; by default, all. Points have the numbers 7, 17, ...
    """
    seen = [range(len(points))] * len(names) if seen is None else seen
    w2c = np.linalg.inv(c2w)
    poses = [(*Rotation.from_matrix(m[:3, :3]).as_quat(scalar_first=True), *m[:3, 3]) for m in w2c]
    folder.mkdir(parents=True, exist_ok=True)
    photos = list(zip(names, poses, seen, strict=True))
    if binary:
        camera = struct.pack("<QIiQQ", 1, 3, MODELS.index(model), *size)
        (folder / "cameras.bin").write_bytes(camera + struct.pack(f"<{len(parameters)}d", *parameters))
        images = struct.pack("<Q", len(photos))
        for number, (name, pose, rows) in enumerate(photos, start=1):
            images += struct.pack("<I7dI", number, *pose, 3) + name.encode() + b"\0" + struct.pack("<Q", len(rows) + 1)
            images += b"".join(struct.pack("<2dq", 1.5, 2.5, 10 * row + 7) for row in rows)
            images += struct.pack("<2dq", 3.5, 4.5, -1)
        (folder / "images.bin").write_bytes(images)
        content = struct.pack("<Q", len(points))
        for row, point in enumerate(points):
            content += struct.pack("<Q3d3BdQ2I", 10 * row + 7, *point, 1, 2, 3, 0.5, 1, 1, row)
        (folder / "points3D.bin").write_bytes(content)
        return folder
    numbers = " ".join(map(repr, map(float, parameters)))
    (folder / "cameras.txt").write_text(f"{COMMENT}3 {model} {size[0]} {size[1]} {numbers}\n")
    lines = []
    for number, (name, pose, rows) in enumerate(photos, start=1):
        lines.append(f"{number} {' '.join(map(repr, map(float, pose)))} 3 {name}")
        lines.append(" ".join(f"1.5 2.5 {10 * row + 7}" for row in rows))
    (folder / "images.txt").write_text(COMMENT + "\n".join(lines) + "\n")
    lines = [f"{10 * row + 7} {' '.join(map(repr, map(float, p)))} 1 2 3 0.5 1 {row}" for row, p in enumerate(points)]
    (folder / "points3D.txt").write_text(COMMENT + "\n".join(lines) + "\n")
    return folder
