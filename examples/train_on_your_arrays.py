"""Fine-tune a network on numpy images and poses, from a clone's root:

    python -m examples.train_on_your_arrays ARRAYS.npz models/demo.pkl OUT

ARRAYS.npz has `images`, `c2w` and `focal`, as `fine_tune` takes them. In a program of your own, call `fine_tune`.
"""

from pathlib import Path

import numpy as np
from PIL import Image

import genvs
import train
from genvs.errors import InputError, run_program
from genvs.programs import Parser


def fine_tune(
    images: np.ndarray, c2w: np.ndarray, focal: float, snapshot: str, out: Path, *options: str
) -> genvs.GeNVS:
    """A network for inference. The arrays, as a dataset, and the run are in the new folder `out`.

    images: uint8 `[S, V, H, W, 3]`, V views of each of S scenes. c2w: `[S, V, 4, 4]`, camera-to-world, OpenCV axes.
    focal: in image widths. options: of train.py, such as "--kimg=20". Raises InputError for other arrays.
    """
    if images.dtype != np.uint8 or images.ndim != 5 or images.shape[-1] != 3:
        raise InputError(f"`images` are {images.dtype} {list(images.shape)}: give uint8 [S, V, H, W, 3]")
    if c2w.shape != (*images.shape[:2], 4, 4):
        raise InputError(f"`c2w` has the shape {list(c2w.shape)}: give {[*images.shape[:2], 4, 4]}")
    out.mkdir(parents=True)
    height, width = images.shape[2:4]
    for place in np.ndindex(*images.shape[:2]):
        scene, view = out / "data" / f"{place[0]:06d}", f"{place[1]:06d}"
        for kind in ("rgb", "pose"):
            (scene / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[place]).save(scene / "rgb" / f"{view}.png")
        np.savetxt(scene / "pose" / f"{view}.txt", c2w[place].reshape(1, 16))
        intrinsics = f"{focal * width} {width / 2} {height / 2} 0\n0 0 0\n1\n{height} {width}\n"
        (scene / "intrinsics.txt").write_text(intrinsics)
    start = [f"--transfer={snapshot}", f"--data={out / 'data'}", f"--outdir={out / 'run'}", "--nosubdir"]
    train.main([*start, *options], standalone_mode=False)
    return genvs.load_snapshot(max((out / "run").glob("network-snapshot-*.pkl")))


def main() -> None:
    parser = Parser("python -m examples.train_on_your_arrays", "Fine-tune a network on numpy images and poses.")
    parser.add_argument("arrays", metavar="ARRAYS.npz", help="has images, c2w and focal, as fine_tune takes them")
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="to start from, such as models/demo.pkl")
    parser.add_argument("out", metavar="OUT", type=Path, help="new folder, of the dataset and the run")
    options = parser.parse_args()
    try:
        with np.load(options.arrays) as given:
            images, c2w, focal = given["images"], given["c2w"], float(given["focal"])
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise InputError(f"{options.arrays}: {error}: give an .npz with `images`, `c2w` and one `focal`") from None
    fine_tune(images, c2w, focal, options.snapshot, options.out)


if __name__ == "__main__":
    run_program(main, translate=str)
