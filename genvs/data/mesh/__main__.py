"""Command line: `python -m genvs.data.mesh --out DIR MESH...`."""

from collections.abc import Sequence
from pathlib import Path

from genvs.data.mesh.dataset import CAMERAS, ensure_meshes
from genvs.data.mesh.model import READERS
from genvs.data.synthetic.__main__ import new_parser, report
from genvs.errors import run_program


def main(arguments: Sequence[str] | None = None) -> None:
    parser, objects = new_parser(
        "python -m genvs.data.mesh",
        "Draw meshes from all around, one scene each. An object is centred, scaled to a bounding box of diagonal 1, "
        "and seen from the distance of SRN's cars. Started again, the command draws only what is missing.",
        "the split to write, such as OUT_train",
    )
    objects.add_argument("meshes", type=Path, nargs="+", metavar="MESH", help=f"{', '.join(READERS)}, or a folder")
    objects.add_argument("--up", choices=["y", "z"], default="y", help="the meshes' upward axis")
    places = "random on the sphere, or along SRN's test spiral"
    objects.add_argument("--cameras", choices=list(CAMERAS), default="sphere", help=places)
    report(lambda **options: [ensure_meshes(**options)], **vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    run_program(main)
