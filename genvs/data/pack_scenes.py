"""Packs as a dataset of their own: `--data cars_train.128px.pack`, several with commas between, or a folder of them.

Nothing but the packs is read, and of these only the headers and indices at first: a hundred thousand scenes open in
seconds. A pack is named as `make_packs` does it, NAME.128px.pack or, of other modalities than rgb, NAME.128px.sar.pack.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genvs.data.framing import Framing
from genvs.data.pack_index import PackIndex, mark
from genvs.data.packed import FORMAT, HEADER_BYTES, JoinedPacks, Pack
from genvs.data.scene import Scene
from genvs.data.scenes import Splits
from genvs.data.storage import Storage, natural_key, printable
from genvs.errors import InputError
from genvs.modalities import MODALITIES, PICTURE_CHANNELS

NAME = re.compile(rf"(.+)\.(\d+)px(?:\.({'|'.join(MODALITIES)}))?\.pack")
AGAIN = "make it again: train once on the folder or .zip of its scenes (docs/data.md)"


class OpenPack(NamedTuple):
    """A pack, its index, and the index's settings."""

    pack: Pack
    known: PackIndex
    settings: dict[str, Any]


def are_packs(path: str | os.PathLike[str]) -> bool:
    """Whether `path` names a pack or several, or a folder that holds packs and no other folders."""
    if os.fspath(path).endswith(".pack"):
        return True
    names = Storage(Path(path)).names() if os.path.isdir(path) else []
    return any(map(NAME.fullmatch, names)) and not any(name.endswith("/") for name in names)


def find_splits(path: str | os.PathLike[str]) -> Splits:
    """Packs named NAME_val... and NAME_test... are held out, also those beside the named ones; all others train."""
    folder = Path(path)
    if folder.is_dir():
        found = [folder / match[0] for name in Storage(folder).names() if (match := NAME.fullmatch(name))]
        files = sorted({_of(file) for file in found}, key=lambda file: natural_key(file.name))
    else:
        files = listed(path)
        for split in ("val", "test"):
            beside = [file.with_name(file.name.replace("_train.", f"_{split}.")) for file in files]
            files += [file for file in beside if file not in files and file.is_file()]
    named = {split: [file for file in files if f"_{split}." in file.name] for split in ("val", "test")}
    train = [file for file in files if file not in named["val"] + named["test"]]
    if not train:
        return Splits(joined(files))
    return Splits(joined(train), *(joined(files) if files else None for files in named.values()))


def listed(path: str | os.PathLike[str]) -> list[Path]:
    """The packs that a path with commas names."""
    return list(map(Path, re.split(r"(?<=\.pack),", os.fspath(path))))


def joined(files: Iterable[Path]) -> Path:
    return Path(",".join(map(str, files)))


def _of(file: Path, resolution: int | None = None, modality: str = "rgb") -> Path:
    """The path of the pack of the same scenes for this modality and resolution (by default that of `file`)."""
    match = NAME.fullmatch(file.name)
    if match is None:
        raise InputError(f"{printable(file)}: name it NAME.<resolution>px.pack again, as training does")
    kind = "" if modality == "rgb" else f".{modality}"
    return file.with_name(f"{match[1]}.{resolution or match[2]}px{kind}.pack")


def open_pack(path: Path) -> OpenPack:
    """Raises InputError for a file that is no pack, damaged, or of another version."""
    try:
        with open(path, "rb") as file:
            record = json.loads(file.read(HEADER_BYTES))
            if record["format"] != FORMAT:
                raise InputError(f"{printable(path)}: is of another version; {AGAIN}")
            file.seek(-record["index"][0], os.SEEK_END)
            data = file.read()
        if list(mark(data)) != record["index"]:
            raise ValueError
        index = PackIndex.from_bytes(data)
        made = record["resolution"], index.num_views, record["sources"], mark(data), record["modality"]
        pack = Pack(path, *made, record["decoder"])
        pack.views  # noqa: B018 - opens the file
        return OpenPack(pack, index, json.loads(bytes(index.settings)))
    except FileNotFoundError:
        raise InputError(f"{printable(path)}: no such file; give a pack that exists, or {AGAIN}") from None
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be read ({error.strerror}); check its permissions") from None
    except (ValueError, LookupError, TypeError, EOFError):
        raise InputError(f"{printable(path)}: not a whole pack; copy it again, or {AGAIN}") from None


class PackedScene(Scene):
    """A scene of some packs, one for each modality that it has. number: within them. Poses are placed already."""

    certain = True

    def __init__(self, packs: dict[str, OpenPack], number: int) -> None:
        self.packs, self.number = packs, number
        self.modalities = [name for name, opened in packs.items() if opened.known.num_views[number]]
        self.first = packs[self.modalities[0]] if self.modalities else next(iter(packs.values()))
        self.name = self.first.known.name(number)

    @property
    def shown(self) -> str:  # type: ignore[override]
        return f"{printable(self.first.pack.path)}: {printable(self.name)}"

    @property
    def view_names(self) -> list[str]:  # type: ignore[override]
        return self.first.known.view_names(self.number)

    def _record(self, view: int, modality: str) -> np.void:
        pack = self.packs[modality].pack
        return pack.views[pack.first_views[self.number] + view]

    def read_c2w(self, view: int) -> np.ndarray:
        return self._record(view, self.modalities[0])["c2w"].astype(np.float64)

    def read_view(self, view: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
        return self.read_picture(view, resolution, "rgb", (0, 1))

    def read_picture(
        self, view: int, resolution: int, modality: str, planes: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        record = self._record(view, modality)
        image = np.broadcast_to(record["image"], (PICTURE_CHANNELS, resolution, resolution))
        return image, record["intrinsics"].astype(np.float64)

    def read_depths(self) -> np.ndarray | None:
        start = self.first.pack.first_views[self.number]
        depths = self.first.known.depths[start : start + self.first.known.num_views[self.number]]
        return None if not len(depths) or np.isnan(depths).any() else depths

    def file_states(self) -> Iterable[tuple]:
        return self.picture_states(self.modalities[0])

    def picture_states(self, modality: str) -> Iterable[tuple]:
        yield self.name, self.packs[modality].pack.sources


class ScenesOfPacks(Sequence[PackedScene]):
    """The scenes of packs, made when they are asked for. parts: each the packs of the same scenes, by modality."""

    def __init__(self, parts: Sequence[dict[str, OpenPack]]) -> None:
        self.parts = parts
        counts = np.array([len(next(iter(part.values())).known.names) for part in parts])
        self.first_scenes, self.total = np.cumsum(counts) - counts, int(counts.sum())

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, number: int) -> PackedScene:  # type: ignore[override]
        if not 0 <= number < self.total:
            raise IndexError(number)
        part = int(np.searchsorted(self.first_scenes, number, side="right")) - 1
        return PackedScene(self.parts[part], int(number - self.first_scenes[part]))

    def packs(self, modality: str) -> JoinedPacks:
        opened = [part.get(modality) for part in self.parts]
        return JoinedPacks(self.first_scenes, [one and one.pack for one in opened])

    def all_packs(self) -> list[Pack]:
        return [opened.pack for part in self.parts for opened in part.values()]

    def settings(self, name: str) -> list[Any]:
        """A setting of all packs that have it."""
        of_all = [opened.settings[name] for part in self.parts for opened in part.values()]
        return [setting for setting in of_all if setting is not None]


def open_scenes(
    path: Path, resolution: int, modalities: Sequence[str], framing: Framing, normalize: bool | float
) -> ScenesOfPacks:
    """The scenes of the packs that `path` names. Raises InputError for packs that were made with other options."""
    parts = []
    for file in listed(path):
        there = {name: _of(file, resolution, name) for name in modalities}
        opened = {name: open_pack(pack) for name, pack in there.items() if pack.is_file()}
        if not opened:
            open_pack(next(iter(there.values())))  # says what is missing
        for pack, known, settings in opened.values():
            fit, background = settings["framing"]
            for option, made, asked in (
                ("normalize", settings["normalize"], normalize),
                ("fit", fit, framing.fit),
                ("background", background, list(framing.background)),
            ):
                if made != asked:
                    fault = f"was made with `{option}` {made}, not {asked}"
                    raise InputError(f"{printable(pack.path)}: {fault}; give the same, or {AGAIN}")
            if not np.array_equal(known.names, next(iter(opened.values())).known.names):
                raise InputError(f"{printable(pack.path)}: holds other scenes than the packs beside it; {AGAIN}")
        parts.append(opened)
    return ScenesOfPacks(parts)
