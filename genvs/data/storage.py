"""Reading files from a folder or from inside a `.zip`, with the same calls: `names`, `read`, `state` and `beside`.

Links in a folder are followed; only regular files are read. Nothing in a zip is ever unpacked to disk.
"""

from __future__ import annotations

import functools
import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from genvs.errors import InputError

# What zipfile raises for archives and members that are damaged, encrypted or compressed in an unknown way.
ZIP_ERRORS = (OSError, EOFError, RuntimeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
IGNORED = {"Thumbs.db", "desktop.ini", "__MACOSX"}


def printable(name: str | os.PathLike[str]) -> str:
    """A name that is safe in a one-line message: control characters and broken encodings are escaped."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in os.fspath(name))


def counted(number: int, noun: str) -> str:
    """A number of things, as in "1 view" or "2 views"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorting key by which `v2` comes before `v10`."""
    parts: list[str | int] = list(re.split("([0-9]+)", name))
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """A regular file's content. Raises InputError for anything else, also for a pipe, without waiting for it."""
    shown = printable(path)
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{shown}: is a pipe or a device, not a file; replace it by the file or remove it")
            return file.read()
    except OSError as error:
        raise InputError(
            f"{shown}: cannot be read ({error.strerror}); restore the file or remove its whole view"
        ) from None


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class FolderStorage:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self, folder: str = "") -> list[str]:
        """Names in `folder`, unordered; those of folders end with '/'. Hidden files and the like are left out."""
        try:
            with os.scandir(os.path.join(self.root, folder)) as entries:
                visible = (entry for entry in entries if not _is_ignored(entry.name))
                return [entry.name + "/" if entry.is_dir() else entry.name for entry in visible]
        except OSError as error:
            shown = printable(error.filename or self.root)
            raise InputError(f"{shown}: cannot be listed ({error.strerror}); check its permissions") from None

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return read_bytes(os.path.join(self.root, name))

    def state(self, name: str) -> tuple[int, int]:
        """Size in bytes and time of change (ns) of a file, of which one changes when its content does."""
        path = os.path.join(self.root, name)
        try:
            status = os.stat(path)
        except OSError as error:
            raise InputError(
                f"{printable(path)}: cannot be read ({error.strerror}); restore the file or remove its whole view"
            ) from None
        return status.st_size, status.st_mtime_ns

    def beside(self, suffix: str) -> Path:
        """A path next to the folder: its name with `suffix`."""
        root = Path(os.path.abspath(self.root))  # not where a link leads: that may be read-only
        return root.parent / (root.name + suffix)


class ZipStorage:
    """Members of a zip below `prefix` ('' or a folder's name with '/' at its end). Each process opens it by itself."""

    def __init__(self, archive: Path, prefix: str) -> None:
        self.archive, self.prefix, self.root = archive, prefix, archive / prefix
        status = os.stat(archive)
        self.archive_state = status.st_size, status.st_mtime_ns

    @property
    def _opened(self) -> _OpenZip:
        return _open_zip(os.fspath(self.archive), self.archive_state)

    def has(self, folder: str) -> bool:
        """Whether the zip has this folder, '' or with '/' at its end."""
        return self.prefix + folder in self._opened.folders

    def names(self, folder: str = "") -> list[str]:
        """As `FolderStorage.names`."""
        if folder and not folder.endswith("/"):
            folder += "/"
        if not self.has(folder):
            raise InputError(f"{printable(self.root / folder)}: no such folder in this zip; check the path")
        return list(self._opened.folders[self.prefix + folder])

    def read(self, name: str) -> bytes:
        """As `FolderStorage.read`; also raises InputError for a damaged member."""
        shown = printable(self.root / name)
        try:
            return self._opened.file().read(self.prefix + name)
        except KeyError:
            raise InputError(f"{shown}: no such file in this zip; make the zip again with it") from None
        except ZIP_ERRORS as error:
            reason = printable(str(error)[:100])
            raise InputError(f"{shown}: cannot be read ({reason}); make or download the zip again") from None

    def state(self, name: str) -> tuple[int, int]:
        """As `FolderStorage.state`, but of the whole zip, when it was opened."""
        return self.archive_state

    def beside(self, suffix: str) -> Path:
        """A path next to the zip: its name, the folder's within it, and `suffix`."""
        archive = Path(os.path.abspath(self.archive))
        name = ".".join([archive.name, *self.prefix.split("/")[:-1]])
        return archive.parent / (name + suffix)


Storage = FolderStorage | ZipStorage


class _OpenZip:
    """A zip and what is in its folders ('' or 'a/b/'): names of files, and of folders with '/' at their ends."""

    def __init__(self, archive: str) -> None:
        self._zip, self._pid = zipfile.ZipFile(archive), os.getpid()
        self.folders: dict[str, dict[str, None]] = {"": {}}  # the dicts are ordered sets
        for name in self._zip.namelist():
            folder, slash, base = name.rpartition("/")
            folder = self._known(folder + slash)
            if base and not _is_ignored(base):
                self.folders[folder][base] = None

    def _known(self, folder: str) -> str:
        """`folder` itself, after it and its parents have been listed."""
        if folder not in self.folders:
            parent, slash, base = folder[:-1].rpartition("/")
            parent = self._known(parent + slash)
            self.folders[folder] = {}
            if base and not _is_ignored(base):
                self.folders[parent][base + "/"] = None
        return folder

    def file(self) -> zipfile.ZipFile:
        if self._pid != os.getpid():  # a forked process shares its parent's place in an open file
            if self._zip.fp:
                self._zip.fp.close()
            self._zip.fp, self._pid = open(str(self._zip.filename), "rb"), os.getpid()
        return self._zip


@functools.lru_cache(maxsize=4)
def _open_zip(archive: str, state: tuple[int, int]) -> _OpenZip:
    """Opened once for all splits in it, and again when its size or time of change (`state`) is another."""
    try:
        return _OpenZip(archive)
    except ZIP_ERRORS as error:
        reason = printable(str(error))
        raise InputError(f"{printable(archive)}: not a whole zip file ({reason}); download it again") from None


def find_storage(path: str | os.PathLike[str]) -> Storage | None:
    """The folder `path`, which may lie inside a zip (`cars.zip/cars_train`); None where there is none.

    Raises InputError for a zip that is damaged.
    """
    path = Path(path)
    if os.path.isdir(path):
        return FolderStorage(path)
    for archive in (path, *path.parents):
        if archive.suffix.lower() == ".zip" and os.path.isfile(archive):
            inside = path.relative_to(archive).as_posix()
            storage = ZipStorage(archive, "" if inside == "." else inside + "/")
            return storage if storage.has("") else None
    return None


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name in IGNORED
