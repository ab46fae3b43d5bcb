"""Write a network as a folder in the layout of the Hugging Face Hub, to share it.

The folder holds the weights (safetensors), the config and a model card. `genvs.load_snapshot`, `genvs.from_pretrained`
and every program that takes a snapshot read it, and nothing in it is executed.
"""

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save

from genvs.errors import InputError, run_program
from genvs.files import replacing, write_atomic
from genvs.hub import logged_in, push
from genvs.models import GeNVS
from genvs.programs import Parser
from genvs.snapshot import CONFIG_FILE, FORMAT, VERSION, WEIGHTS_FILE, in_half_precision, load_snapshot, snapshot_sha256

NETWORK = "network"  # as inference/evaluate.py calls what it measures, beside baselines
# What a reader of figures wants to know of an evaluation's settings.
SHOWN = "data split num_objects scenes num_inputs views resolution sampler num_steps guidance noise seeds".split()
CARD = """\
---
library_name: genvs
pipeline_tag: image-to-image
tags: [novel-view-synthesis, diffusion, 3d]
{front_matter}---
# {name}

A network of GeNVS, generative novel view synthesis with 3D-aware diffusion
([arXiv 2304.02602](https://arxiv.org/abs/2304.02602)): from one to a few posed views of an object, it draws the object
from any other camera.

## Use

```python
import genvs

net = genvs.from_pretrained({repository!r})
views = genvs.sample_views(net, images, c2w, target_c2w)
```

or `inference/inference.sh --ckpt_path FOLDER --in_dir SCENE`. Cameras are camera-to-world matrices with OpenCV axes
(+x right, +y down, +z forward).

## The network

{network}

Its author should say here on which data it was trained, what it cannot do, and under which licence it may be used
(`license:` at the top of this file).

## Figures

{figures}
"""


class Figures(NamedTuple):
    """An evaluation's means and standard errors, by what was measured and by what drew it; settings as a reader wants
    them.
    """

    settings: dict[str, Any]
    means: Mapping[str, Mapping[str, tuple[float, float | None]]]


def export(
    net: GeNVS, folder: Path, figures: Sequence[Figures] = (), repository: str | None = None, *, half: bool = False
) -> None:
    """Write `net` to `folder`, which is made. figures: for the model card. repository: the folder's name on the Hub.

    half: in half precision, which loses nothing if the network comes from such a file.
    Raises InputError if the folder is not empty, OSError if it cannot be written.
    """
    new_folder(folder)
    state = in_half_precision(net) if half else net.state_dict()
    with replacing(folder / WEIGHTS_FILE) as file:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
        file.write(save(tensors, metadata={"format": "pt"}))
    write_atomic(model_card(net, folder.name, figures, repository), folder / "README.md")
    content = {"format": FORMAT, "version": VERSION, "config": dataclasses.asdict(net.config), "notes": net.notes}
    write_atomic(json.dumps(content, indent=2) + "\n", folder / CONFIG_FILE)


def new_folder(folder: Path) -> None:
    """Make the folder. Raises InputError if it exists and is not empty."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InputError(f"{folder} is not empty, and nothing is overwritten: name another folder")


def model_card(net: GeNVS, name: str, figures: Sequence[Figures], repository: str | None) -> str:
    """The folder's README.md: YAML for the Hub, then Markdown."""
    scene, trained = net.config.scene, net.notes.get("cur_nimg")
    facts = {
        "images": f"{net.config.resolution} x {net.config.resolution} pixels",
        "it reads and draws": ", ".join(net.config.modalities),
        "parameters": f"{sum(parameter.numel() for parameter in net.parameters()) / 1e6:.1f} million",
        "trained on": ("an unknown number of images" if trained is None else f"{trained:,} target images")
        + (f", starting from {net.notes['started_from']}" if "started_from" in net.notes else ""),
        "depth planes": f"{scene.near:g} to {scene.far:g} world units",
        "distance of the cameras": f"{scene.radius:g} world units from the origin",
        "focal length": f"{scene.focal:g} image widths",
    }
    network = _table(["", ""], [[fact, value] for fact, value in facts.items()])
    parts, results = [], []
    for settings, means in figures:
        columns = list(dict.fromkeys(column for row in means.values() for column in row))
        rows = [[measure, *(_cell(row.get(column)) for column in columns)] for measure, row in means.items()]
        parts.append(_table(["", *columns], rows))
        parts.append("\n".join(f"* {key}: {value}" for key, value in settings.items()))
        metrics = [{"type": measure, "value": row[NETWORK][0]} for measure, row in means.items()]
        dataset = {"name": settings["data"], "type": settings["data"]}
        results.append({"task": {"type": "image-to-image"}, "dataset": dataset, "metrics": metrics})
    about = "Means ± standard errors, by GeNVS's `inference/evaluate.sh`; its docs/evaluation.md explains them."
    # JSON is YAML.
    front_matter = f"model-index: {json.dumps([{'name': name, 'results': results}])}\n" if results else ""
    shown = "\n\n".join([*parts, about]) if parts else "Nothing was measured."
    repository = repository or f"path/of/{name}"
    return CARD.format(front_matter=front_matter, name=name, repository=repository, network=network, figures=shown)


def read_evaluation(folder: Path, sha256: str) -> list[Figures]:
    """The figures in a folder that `inference/evaluate.py` wrote, of the snapshot with this hash.

    Raises InputError if there are none, or they are of another snapshot.
    """
    found = []
    try:
        for path in sorted([*folder.glob("results.json"), *folder.glob("*-protocol.json")]):
            content = json.loads(path.read_text(encoding="utf-8"))
            if (settings := content["protocol"])["snapshot_sha256"] != sha256:
                fault = f"was measured with another snapshot ({Path(settings['snapshot']).name})"
                raise InputError(f"{path}: {fault}: export that one, or evaluate this one")
            shown = {name: settings[name] for name in SHOWN if settings.get(name) is not None}
            shown["data"] = Path(settings["data"]).name
            table = path.with_name(path.name.replace("-protocol.json", ".csv"))
            found.append(Figures(shown, _of_views(content) if table == path else _of_modalities(table)))
    except InputError:
        raise
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{folder}: its results cannot be read ({error!r:.100}): let the evaluation end") from None
    if not found:
        raise InputError(f"{folder}: has no results.json: give a folder that inference/evaluate.py wrote")
    return found


def _of_views(results: Mapping[str, Any]) -> dict[str, dict[str, tuple[float, float | None]]]:
    """The figures in results.json."""
    summaries = {NETWORK: results["summary"]} | {name: of["summary"] for name, of in results["baselines"].items()}
    return {
        measure: {
            drawing: (summary[measure]["mean"], summary[measure].get("standard_error"))
            for drawing, summary in summaries.items()
            if measure in summary
        }
        for measure in results["summary"]
    }


def _of_modalities(table: Path) -> dict[str, dict[str, tuple[float, float | None]]]:
    """The PSNRs in the table of an evaluation of several modalities."""
    found: dict[str, dict[str, tuple[float, float | None]]] = {}
    with open(table, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            error = float(row["psnr_error"]) if row["psnr_error"] else None
            named = found.setdefault(f"psnr, {row['target']} from {row['inputs']}", {})
            named[row["drawing"]] = float(row["psnr"]), error
    return found


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _cell(figure: tuple[float, float | None] | None) -> str:
    if figure is None:
        return "-"
    mean, error = figure
    return f"{mean:.4g}" + ("" if error is None else f" ± {error:.2g}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a snapshot as a folder, and upload it if asked to."""
    parser = Parser("python -m genvs.export", (__doc__ or "").partition("\n")[0])
    network, sharing = map(parser.add_argument_group, ("network", "sharing"))
    given = "network snapshot, its folder, or training state"
    network.add_argument("snapshot", metavar="SNAPSHOT", type=Path, help=given)
    network.add_argument("folder", metavar="DIR", type=Path, help="new folder: weights, config and model card")
    shown = "show figures that inference/evaluate.py wrote there"
    sharing.add_argument("--evaluation", metavar="DIR", type=Path, help=shown)
    sharing.add_argument("--push", metavar="USER/NAME", help="upload DIR to this repository of the Hugging Face Hub")
    options = parser.parse_args(arguments)
    api = logged_in(options.push) if options.push else None
    net = load_snapshot(options.snapshot)
    figures = read_evaluation(options.evaluation, snapshot_sha256(options.snapshot)) if options.evaluation else []
    export(net, options.folder, figures, options.push, half="halved_from" in net.notes)
    print(f"Wrote {options.folder}: {', '.join(sorted(path.name for path in options.folder.iterdir()))}")
    if api:
        print(f"Uploaded it to {push(api, options.folder, options.push)}")


if __name__ == "__main__":
    run_program(main)
