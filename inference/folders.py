"""The folder that keeps an evaluation's pictures, and the settings that they were drawn with."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from genvs.data.scenes import SceneDataset
from genvs.errors import InputError
from genvs.files import lock, write_atomic
from genvs.models import GeNVS
from genvs.models.precision import has_native_bf16
from genvs.snapshot import snapshot_sha256
from inference import options

# Of the settings, what may change when an evaluation continues in its folder: where files are, and how much is
# measured. Snapshots are recognised by their hashes, and the data by their files' names, sizes and times of change.
FILES = ("snapshot", "data", "data_class", "split", "guide", "mean images of")
MAY_CHANGE = (*FILES, "num_objects", "seeds", "baselines", "metrics")


def settings_of(
    ckpt_path: Path,
    net: GeNVS,
    dataset: SceneDataset,
    split: str | None,
    classes: Sequence[int] | None,
    given: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    """What every evaluation's pictures depend on, as JSON keeps it. given: all options, settled."""
    return {
        "snapshot": str(ckpt_path),
        "snapshot_sha256": snapshot_sha256(ckpt_path),
        "data": str(dataset.path),
        "data_sha256": sha256(repr((dataset.digest_of_files(), classes, given["data_class"])).encode()),
        "split": split,
        **net.config.scene.planes,
        "convention": dataset.convention,
        "fit": dataset.framing.fit,
        "background": list(dataset.framing.background),
        "resolution": net.config.resolution,
        "view_weighting": net.config.view_weighting,
        **{name: given[name] for name in (*options.SAMPLING, "normalize", "data_class")},
        "bf16": has_native_bf16(device) if given["bf16"] is None else given["bf16"],
    }


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def facts(settings: dict[str, Any]) -> list[str]:
    """Settings for a reader, a line each."""
    return [
        f"{name}: {shown(value)}"
        for name, value in settings.items()
        if value not in (None, []) and not name.endswith("_sha256")
    ]


def shown(value: Any) -> str:
    """A setting's value for a reader."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def default_folder(kind: str, settings: dict[str, Any], given: dict[str, Any]) -> Path:
    """The folder of results by default: the same for the same options, so that it is found again."""
    snapshot = Path(settings["snapshot"])
    digest = sha256(repr([value for name, value in settings.items() if name not in MAY_CHANGE]).encode())
    name = f"{kind}-{snapshot.parent.name}-{snapshot.stem.removeprefix('network-snapshot-')}"
    name += f"-{Path(settings['data']).stem}-{options.described(given)}-{digest[:6]}"
    return options.ROOT / "inference" / "output" / name


def settings_in(path: Path) -> dict[str, Any]:
    """The settings in a JSON file; none if it does not exist. Raises InputError where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["protocol"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(f"{path}: cannot be read: choose another --out_dir, or delete this one") from None


def check_settings(path: Path, ours: dict[str, Any]) -> bool:
    """Whether `path` exists. Raises InputError if the settings there differ from `ours` in more than MAY_CHANGE."""
    theirs = settings_in(path)
    for key in (key for key in ours if theirs and key not in MAY_CHANGE and theirs.get(key) != ours[key]):
        other = f"{key} {shown(theirs.get(key))}, not {shown(ours[key])}"
        if key.endswith("_sha256"):
            other = f"other contents of the {key.removesuffix('_sha256')}"
        raise InputError(f"{path}: the images there were drawn with {other}: choose another --out_dir, or delete it")
    return bool(theirs)


@contextlib.contextmanager
def own_folder(path: Path, settings: dict[str, Any], check: Callable[[], None]) -> Iterator[None]:
    """Make the folder of `path`, lock it, and write the settings to `path`. Raises InputError where another evaluation
    writes there, and what `check` raises, which is called again, because one may have written there meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path.with_name(".lock")):
        check()
        write_atomic(json.dumps({"protocol": settings}, indent=1), path)
        yield
