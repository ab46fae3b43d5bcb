"""Where each photo of a folder was taken from, found by COLMAP:

    pip install pycolmap
    python -m examples.colmap datasets/toy

reads datasets/toy/images and writes datasets/toy/sparse/0, with the z axis up. One camera must have taken all photos
without zooming. COLMAP's own programs and ns-process-data find the same; only the direction of z differs.
"""

import tempfile
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from genvs.errors import InputError, run_program
from genvs.programs import Parser


def find_cameras(folder: Path) -> tuple[int, int]:
    """Write the cameras of the photos in `folder`. Returns the number of photos placed, and of all."""
    images, model = folder / "images", folder / "sparse" / "0"
    if model.exists():
        raise InputError(f"{model}: exists and is not overwritten: move it away")
    if not images.is_dir():
        raise InputError(f"{images}: is no folder: put the photos there")
    try:
        import pycolmap
    except ImportError:
        raise InputError("pycolmap is not installed: run pip install pycolmap") from None
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "OPENCV"
    with tempfile.TemporaryDirectory() as temporary:
        database = Path(temporary, "database.db")
        pycolmap.extract_features(database, images, camera_mode=pycolmap.CameraMode.SINGLE, reader_options=reader)
        pycolmap.match_exhaustive(database)
        found = pycolmap.incremental_mapping(database, images, temporary)
    if not found:
        raise InputError(f"{images}: COLMAP finds no cameras: take more photos that overlap")
    largest = max(found.values(), key=lambda each: each.num_reg_images())
    down = np.mean([image.cam_from_world().rotation.matrix()[1] for image in largest.images.values()], axis=0)
    upright = Rotation.align_vectors([[0, 0, -1]], [down])[0].as_matrix()
    largest.transform(pycolmap.Sim3d(1, pycolmap.Rotation3d(upright), np.zeros(3)))
    model.mkdir(parents=True)
    largest.write(model)
    return largest.num_reg_images(), sum(1 for file in images.iterdir() if file.is_file())


def main() -> None:
    parser = Parser("python -m examples.colmap", "Find the cameras of the photos in DIR/images with COLMAP.")
    parser.add_argument("folder", metavar="DIR", type=Path, help="the cameras are written to DIR/sparse/0")
    folder = parser.parse_args().folder
    placed, photos = find_cameras(folder)
    print(f"{placed} of {photos} photos have cameras, written to {folder / 'sparse' / '0'}")


if __name__ == "__main__":
    run_program(main)
