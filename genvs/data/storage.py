"""Files in a folder or inside a `.zip`, read with the same calls.

Links in a folder are followed; only regular files are read. Nothing in a zip is ever unpacked to disk.
"""

import contextlib
import copy
import functools
import json
import os
import re
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genvs.errors import InputError

# What systems put beside files, in lower case: Windows, macOS, Python, disks, and storage by Synology, QNAP and NetApp.
IGNORED = {
    "", "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "lost+found", "system volume information",
    "$recycle.bin", "recycler", "found.000", "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot",
    "network trash folder", "temporary items", "@tmp", "~snapshot", "__pycache__",
}  # fmt: skip
IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "webp")
ZIP_UTF8 = 1 << 11  # of a member's flags: its name is in UTF-8


def printable(name: str | os.PathLike[str]) -> str:
    """A name that is safe in a one-line message: control characters and broken encodings are escaped."""
    name = os.fspath(name)
    return name if name.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)


def counted(number: int, noun: str) -> str:
    """A number of things, as in "1 view" or "2 views"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorting key by which `v2` comes before `v10`."""
    parts: list[str | int] = list(re.split("([0-9]+)", name))
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def folded(name: str) -> str:
    """A file's name without differences of case, or of the two ways to write accents, as some file systems have it."""
    return unicodedata.normalize("NFC", name).lower()


def not_a_pointer(data: bytes, shown: str) -> bytes:
    """A file's content. Raises InputError for what Git leaves in its place where Git LFS is not installed."""
    if data.startswith(b"version https://git-lfs.github.com/spec/"):
        raise InputError(f"{shown}: is a pointer of Git LFS, not the file itself; run git lfs pull there")
    return data


class Storage:
    """Files below the folder `root`, by names with '/' between folders. Names of folders, but for '', end with '/'."""

    def __init__(self, root: Path) -> None:
        self.root = self.whole = root

    def shown(self, name: str) -> str:
        """The path of a file or folder, for messages."""
        return printable(self.root / name)

    def names(self, folder: str = "") -> list[str]:
        """The names of what is in `folder`, unordered, without hidden files and the like; none where it is missing."""
        path = self.root / folder
        if not os.path.exists(path):
            return []
        with self._readable(folder), os.scandir(path) as entries:
            visible = (entry for entry in entries if not is_ignored(entry.name))
            return [entry.name + "/" if entry.is_dir() else entry.name for entry in visible]

    def folders(self) -> list[str]:
        """The names of the folders at the top, in natural order."""
        return sorted((name for name in self.names() if name.endswith("/")), key=natural_key)

    def read(self, name: str) -> bytes:
        """The content of a file. Raises InputError where it is missing, damaged or not a regular file."""
        path = os.path.join(self.root, name)
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(f"{self.shown(name)}: is a folder, a pipe or a device; put the file there or remove it")
        with self._readable(name), open(path, "rb") as file:
            return not_a_pointer(file.read(), self.shown(name))

    def read_json(self, name: str) -> Any:
        """The content of a JSON file. Raises InputError as `read` does, and for other files."""
        data = self.read(name)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            reason = printable(str(error)[:80])
            raise InputError(f"{self.shown(name)}: not JSON ({reason}); correct it, or write it again") from None

    def state(self, name: str) -> tuple[int, int]:
        """Size in bytes and time of change (ns) of a file; inside a zip, those of the zip."""
        with self._readable(name):
            status = os.stat(os.path.join(self.root, name))
        return status.st_size, status.st_mtime_ns

    def beside(self, suffix: str) -> Path:
        """A path next to the folder, or to the zip that it is in: its name with `suffix`."""
        whole = Path(os.path.abspath(self.whole))  # not where a link leads: that may be read-only
        return whole.with_name(".".join([whole.name, *self.root.relative_to(self.whole).parts]) + suffix)

    @contextlib.contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            shown = printable(error.filename or self.root / name)
            remedy = "restore it, check its permissions, or remove its whole view"
            raise InputError(f"{shown}: cannot be read ({error.strerror}); {remedy}") from None


class ZipStorage(Storage):
    """Members of a zip below `prefix` ('' or a folder's name with '/' at its end)."""

    def __init__(self, archive: Path, prefix: str) -> None:
        self.whole, self.prefix, self.root = archive, prefix, archive / prefix
        status = os.stat(archive)
        self.archive_state = status.st_size, status.st_mtime_ns

    def names(self, folder: str = "") -> list[str]:
        _, folders = _open_zip(os.fspath(self.whole), self.archive_state)
        return list(folders.get(self.prefix + folder, ()))

    def read(self, name: str) -> bytes:
        archive = copy.copy(_open_zip(os.fspath(self.whole), self.archive_state)[0])
        try:
            # Opened for every read: forked processes and threads would share the place in a file that stays open.
            with open(self.whole, "rb") as archive.fp:
                return archive.read(self.prefix + name)
        except Exception as error:  # zipfile and its decoders raise many kinds
            reason = printable(str(error)[:100])
            raise InputError(f"{self.shown(name)}: cannot be read ({reason}); make the zip again") from None
        finally:
            archive.fp = None

    def state(self, name: str) -> tuple[int, int]:
        return self.archive_state


@functools.lru_cache(maxsize=4)
def _open_zip(path: str, state: tuple[int, int]) -> tuple[zipfile.ZipFile, dict[str, set[str]]]:
    """The zip, and the names in each of its folders ('' or 'a/b/').

    Read once for all splits in it, and again when its size or time of change (`state`) is another.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile raises many kinds for damaged archives
        raise InputError(f"{printable(path)}: not a whole zip ({printable(str(error))}); download it again") from None
    folders: dict[str, set[str]] = {"": set()}
    for member in members:
        name = member.filename
        with contextlib.suppress(UnicodeError):  # macOS does not say that it writes UTF-8
            name = name if member.flag_bits & ZIP_UTF8 else name.encode("cp437").decode()
        name = re.sub(r"^(\./)+", "", name.replace("\\", "/"))  # as Windows and some libraries write it
        archive.NameToInfo[name], folder = member, ""
        for part in re.findall("[^/]*/|[^/]+$", name):
            if not is_ignored(part):
                folders[folder].add(part)
            folder += part
            if part.endswith("/"):
                folders.setdefault(folder, set())
    return archive, folders


def find_storage(path: str | os.PathLike[str]) -> Storage | None:
    """The folder `path`, which may lie inside a zip (`cars.zip/cars_train`); None where there is none.

    Raises InputError for a zip that is damaged.
    """
    path = Path(path)
    if os.path.isdir(path):
        return Storage(path)
    for archive in (path, *path.parents):
        if archive.suffix.lower() == ".zip" and os.path.isfile(archive):
            inside = path.relative_to(archive).as_posix()
            storage = ZipStorage(archive, "" if inside == "." else inside + "/")
            return storage if storage.names() else None
    return None


def open_split(path: Path) -> tuple[Storage | None, str]:
    """The storage of a split, and the name of the `.json` files that list its scenes' views ('' for SRN's layout)."""
    file = path.name if path.suffix == ".json" else ""
    return find_storage(path.parent if file else path), file


def is_ignored(name: str) -> bool:
    return name.startswith(".") or name.removesuffix("/").lower() in IGNORED
