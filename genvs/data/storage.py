"""Reading files from a folder or from inside a `.zip`, with the same calls: `names`, `read`, `state` and `beside`.

A folder is its owner's, so links in it are followed; only regular files are read. A zip may be anyone's: its members
are checked when it is opened, nothing is ever unpacked to disk, and no member is inflated beyond the caller's limit.
"""

from __future__ import annotations

import functools
import os
import re
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from genvs.errors import InputError

MAX_ZIP_MEMBERS = 2_000_000  # all of srn_cars.zip is 780,000
LOCAL_HEADER = struct.Struct("<4s22x2H")  # signature, then the lengths of name and extra field
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


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """A regular file's content. Raises InputError, also for more than `limit` bytes. Never waits for a pipe."""
    shown = printable(path)
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{shown}: is a pipe or a device, not a file; replace it by the file or remove it")
            if status.st_size > limit:
                raise InputError(f"{shown}: {status.st_size:,} bytes, more than the {limit:,} allowed; check this file")
            return file.read(limit)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{shown}: cannot be read ({reason}); restore the file or remove its whole view") from None


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class FolderStorage:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self, folder: str = "") -> list[str]:
        """Names in `folder`, unordered; those of folders end with '/'. Dotfiles and the like are left out."""
        try:
            with os.scandir(os.path.join(self.root, folder)) as entries:
                visible = (entry for entry in entries if not _is_ignored(entry.name))
                return [entry.name + "/" if entry.is_dir() else entry.name for entry in visible]
        except OSError as error:
            shown = printable(error.filename or self.root)
            raise InputError(f"{shown}: cannot be listed ({error.strerror}); check its permissions") from None

    def read(self, name: str, limit: int) -> bytes:
        """The content of a file of at most `limit` bytes."""
        return read_bytes(os.path.join(self.root, name), limit)

    def state(self, name: str) -> tuple[int, int]:
        """Size in bytes and time of change (ns) of a file: another content shows in one of them."""
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
    """Members of a zip below `prefix` ('' or a folder's name with '/' at its end).

    Holds no open file, so that it can be shared with, or sent to, any number of loader processes.
    """

    def __init__(self, archive: Path, prefix: str) -> None:
        self.archive = archive
        self.root = archive / prefix
        status = os.stat(archive)
        self.prefix, self.archive_state = prefix, (status.st_size, status.st_mtime_ns)
        index = _zip_index(os.fspath(archive), status.st_mtime_ns, status.st_size)
        self.folders = {name[len(prefix) :]: found for name, found in index.items() if name.startswith(prefix)}

    def names(self, folder: str = "") -> list[str]:
        """As `FolderStorage.names`."""
        if folder and not folder.endswith("/"):
            folder += "/"
        if folder not in self.folders:
            raise InputError(f"{printable(self.root / folder)}: no such folder in this zip; check the path")
        return list(self.folders[folder])

    def read(self, name: str, limit: int) -> bytes:
        """As `FolderStorage.read`; also raises InputError for a damaged member."""
        folder, slash, base = name.rpartition("/")
        member = self.folders.get(folder + slash, {}).get(base)
        shown = printable(self.root / name)
        if member is None:
            raise InputError(f"{shown}: no such file in this zip; make the zip again with it")
        if max(member.size, member.compressed_size) > limit:
            raise InputError(f"{shown}: {member.size:,} bytes, more than the {limit:,} allowed; check this file")
        try:
            with open(self.archive, "rb") as file:
                file.seek(member.offset)
                signature, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
                file.seek(name_length + extra_length, os.SEEK_CUR)
                data = file.read(member.compressed_size)
            if member.method == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit)
        except (OSError, struct.error, zlib.error):
            signature, data = b"", b""
        if signature != b"PK\3\4" or len(data) != member.size or zlib.crc32(data) != member.crc:
            raise InputError(f"{shown}: damaged, or changed since it was opened; make or download the zip again")
        return data

    def state(self, name: str) -> tuple[int, int]:
        """As `FolderStorage.state`, but of the whole zip, when it was opened."""
        return self.archive_state

    def beside(self, suffix: str) -> Path:
        """A path next to the zip: its name, the folder's within it, and `suffix`."""
        archive = Path(os.path.abspath(self.archive))
        name = ".".join([archive.name, *self.prefix.split("/")[:-1]])
        return archive.parent / (name + suffix)


Storage = FolderStorage | ZipStorage


class _Member(NamedTuple):
    offset: int
    compressed_size: int
    size: int
    method: int
    crc: int


def find_storage(path: str | os.PathLike[str]) -> Storage | None:
    """The folder `path`, which may lie inside a zip (`cars.zip/cars_train`); None where there is none.

    Raises InputError for a zip that is damaged or unsafe.
    """
    path = Path(path)
    if os.path.isdir(path):
        return FolderStorage(path)
    for archive in (path, *path.parents):
        if archive.suffix.lower() == ".zip" and os.path.isfile(archive):
            inside = path.relative_to(archive).as_posix()
            storage = ZipStorage(archive, "" if inside == "." else inside + "/")
            return storage if storage.folders else None
    return None


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name in IGNORED


@functools.lru_cache(maxsize=1)
def _zip_index(archive: str, mtime_ns: int, size: int) -> dict[str, dict[str, _Member | None]]:
    """Folder ('' or 'a/b/') to what is in it: files, and folders ('c/') with None.

    The time and size are arguments so that a changed zip is read anew; its splits share one reading.
    """
    shown = printable(archive)
    try:
        with zipfile.ZipFile(archive) as file:
            infos = file.infolist()
    except (OSError, ValueError, NotImplementedError, struct.error, zipfile.BadZipFile) as error:
        raise InputError(f"{shown}: not a whole zip file ({printable(str(error))}); download it again") from None
    if len(infos) > MAX_ZIP_MEMBERS:
        raise InputError(f"{shown}: {len(infos):,} members, more than the {MAX_ZIP_MEMBERS:,} allowed; unpack it")
    folders: dict[str, dict[str, _Member | None]] = {"": {}}
    for info in infos:
        problem = _member_problem(info)
        folder, slash, base = info.filename.rstrip("/").rpartition("/")
        folder += slash
        if not problem and not info.is_dir() and base in folders.get(folder, {}):
            problem = "is there twice"
        if problem:
            raise InputError(f"{shown}: member '{printable(info.filename[:200])}' {problem}; make the zip without it")
        _add_folder(folders, info.filename if info.is_dir() else folder)
        if not info.is_dir() and not _is_ignored(base):
            folders[folder][base] = _Member(
                info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC
            )
    return folders


def _add_folder(folders: dict[str, dict[str, _Member | None]], folder: str) -> None:
    """Make `folder` ('' or 'a/b/') and its parents known."""
    if folder not in folders:
        parent, slash, base = folder[:-1].rpartition("/")
        _add_folder(folders, parent + slash)
        folders[folder] = {}
        if not _is_ignored(base):
            folders[parent + slash][base + "/"] = None


def _member_problem(info: zipfile.ZipInfo) -> str | None:
    """What makes a member unsafe or unreadable, or None."""
    name = info.orig_filename
    if name.startswith("/") or "\\" in name or re.match("[A-Za-z]:", name):
        return "has an absolute path or a backslash"
    parts = name.removesuffix("/").split("/")
    if ".." in parts:
        return "points outside the zip"
    if "" in parts or "." in parts or not name.isprintable() or len(name) > 1024:
        return "has an unusable name"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a link"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed by a method other than deflate"
    return None
