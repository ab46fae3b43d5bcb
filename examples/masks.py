"""Masks of the photos of an object, cut out by colour:

    pip install opencv-python-headless
    python -m examples.masks datasets/toy

writes masks/NAME.png for each photo in images/ that has none. GrabCut (Rother et al., 2004), by OpenCV, starts from the
middle of the photo, where the object has to lie whole, and needs no network. Look at the masks: where the object and
what is behind it have the same colours, a program that knows objects does better.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from genvs.data.storage import IMAGE_SUFFIXES
from genvs.errors import InputError, run_program
from genvs.files import replacing
from genvs.programs import Parser

SIDE = 320  # pixels at which photos are looked at, along the longer side
SURELY_BEHIND, PERHAPS_OBJECT = 0.36, 0.2  # distances from the middle, in longer sides: farther than, nearer than
ROUNDS = 8


def cut_out(photo: Image.Image) -> Image.Image:
    """A picture of the photo's size, white where the object is and black elsewhere."""
    import cv2

    small = photo.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    colors = np.asarray(small)[..., ::-1].copy()
    y, x = np.indices(colors.shape[:2]) + 0.5 - np.array([[[small.height]], [[small.width]]]) / 2
    distance = np.hypot(x, y) / max(small.size)
    labels = np.where(distance < PERHAPS_OBJECT, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    labels = np.where(distance > SURELY_BEHIND, cv2.GC_BGD, labels).astype(np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))  # of colours, which OpenCV changes
    cv2.setRNGSeed(0)
    cv2.grabCut(colors, labels, None, *models, ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    whole = Image.fromarray(255 * found.astype(np.uint8)).resize(photo.size, Image.Resampling.BILINEAR)
    return whole.point(lambda value: 255 * (value > 127))


def main() -> None:
    parser = Parser("python -m examples.masks", "Cut the object out of the photos in DIR/images, by colour.")
    parser.add_argument("folder", metavar="DIR", type=Path, help="the masks are written to DIR/masks")
    folder = parser.parse_args().folder
    try:
        import cv2  # noqa: F401
    except ImportError:
        raise InputError("OpenCV is not installed: run pip install opencv-python-headless") from None
    photos = [file for file in (folder / "images").glob("*") if file.suffix[1:].lower() in IMAGE_SUFFIXES]
    if not photos:
        raise InputError(f"{folder / 'images'}: has no photos: put them there")
    masks = folder / "masks"
    masks.mkdir(exist_ok=True)
    missing = [file for file in sorted(photos) if not (masks / f"{file.stem}.png").exists()]
    for file in tqdm(missing, unit="photo", disable=None):
        try:
            with Image.open(file) as photo:
                mask = cut_out(photo)  # as the photo is stored: COLMAP does not look at EXIF orientations
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error}): replace it or remove it") from None
        with replacing(masks / f"{file.stem}.png") as target:
            mask.save(target, "PNG")
    print(f"Wrote {len(missing)} masks to {masks}")


if __name__ == "__main__":
    run_program(main)
