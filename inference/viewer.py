"""A page in the browser that shows an object from wherever the mouse drags the camera."""

import sys
from pathlib import Path

# A script's path starts at its own folder, where `inference` is a file.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dnnlib.quiet_interrupt  # noqa: F401

# isort: split
import click

from dnnlib.command import Command, option_group, run_command
from genvs.data.framing import framing_of
from genvs.data.storage import counted
from genvs.errors import InputError
from genvs.sampling.viewer import Viewer
from inference import options
from inference.inference import open_scene

of_page = option_group("Page")


@click.command(cls=Command, epilog=f"{options.BY_DEFAULT} Without --inputs, pictures are drawn from all views.")
@options.scene_options
@options.camera_options
@options.network_options
@options.sampling("--class_id", type=int, show_default="none", help="The object's class, if trained with --cond.")
@of_page("--port", type=click.IntRange(1024, 65535), default=8080, help="The page's port, or the next free one.")
def main(in_dir: Path, port: int, **given) -> None:
    """Show an object in the browser, as drawn from the views in a folder."""
    try:
        from inference.page import HOST, serving
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is missing: pip install -c constraints.txt -e .[viewer]") from None
    device = options.choose_device(given.pop("device"))
    _, net = options.open_network(given)
    target = options.known_modalities("target", None if given["target"] is None else [given["target"]], net)[0]
    scene = open_scene(in_dir, net.config, {**given, "target": target, "targets": []})
    kind = {"class_id": given["class_id"], "modality": target}
    viewer = Viewer(net.to_device(device), scene.inputs, bf16=given["bf16"], **kind)
    framing = framing_of(net.config.scene, given["fit"], given["background"])
    with serving(viewer, scene, framing, port) as server:
        views = counted(len(scene.names), "input view")
        click.echo(f"Showing {views} at http://{HOST}:{server.get_port()}; Ctrl-C ends.")
        server.sleep_forever()


if __name__ == "__main__":
    run_command(main)
