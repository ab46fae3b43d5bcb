"""Networks from and to the Hugging Face Hub. It needs the package huggingface_hub, the extra `hub`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from genvs.errors import InputError
from genvs.models import GeNVS
from genvs.snapshot import CONFIG_FILE, WEIGHTS_FILE, load_snapshot

if TYPE_CHECKING:
    from huggingface_hub import HfApi

INSTALL = "pip install huggingface_hub"


def from_pretrained(
    name: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    *,
    revision: str | None = None,
    near: float | None = None,
    far: float | None = None,
) -> GeNVS:
    """A network for inference from a folder that `genvs.export` wrote, here or on the Hugging Face Hub.

    name: a folder, or a repository such as "user/name", which is downloaded once. revision: a branch, tag or commit of
    the repository. The rest is as in `load_snapshot`. Nothing that is downloaded is executed.
    Raises InputError where there is neither, or the network cannot be loaded.
    """
    folder = Path(name)
    if not folder.is_dir():
        try:
            from huggingface_hub import snapshot_download
        except ImportError:
            raise InputError(f"{name}: no such folder; to load it from the Hugging Face Hub, {INSTALL}") from None
        try:
            wanted = [CONFIG_FILE, WEIGHTS_FILE]
            folder = Path(snapshot_download(str(name), revision=revision, allow_patterns=wanted))
        except Exception as error:  # of the names, the network, permissions and the disk; the packages beneath vary
            fault = f"no such folder, nor a repository that can be read ({_first(error).rstrip('.')})"
            raise InputError(f"{name}: {fault}: check the name, the network and your login") from None
    return load_snapshot(folder, device, near=near, far=far)


def logged_in(repo_id: str) -> HfApi:
    """What `push` needs. Raises InputError without the package, without a login, or for a wrong name."""
    try:
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.utils import HFValidationError, validate_repo_id
    except ImportError:
        raise InputError(f"`push`={repo_id}: needs a package: {INSTALL}") from None
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"`push`={repo_id}: give USER/NAME ({_first(error)})") from None
    if get_token() is None:
        raise InputError(f"`push`={repo_id}: you are not logged in to the Hugging Face Hub: run hf auth login")
    return HfApi()


def push(api: HfApi, folder: Path, repo_id: str) -> str:
    """Upload `folder` to the repository, which is made if it does not exist, and return its address.

    Raises InputError if that fails.
    """
    try:
        url = api.create_repo(repo_id, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder)
    except Exception as error:  # as above
        fault = f"{folder} is written, but not uploaded ({_first(error)})"
        raise InputError(f"`push`={repo_id}: {fault}: run hf upload {repo_id} {folder}") from None
    return str(url)


def _first(error: Exception) -> str:
    """An error's first line, or its kind."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
