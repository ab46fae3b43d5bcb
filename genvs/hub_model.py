"""A network with the methods of the Hugging Face Hub's models. To import it, the extra `hub` must be installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from genvs.export import export, new_folder
from genvs.hub import INSTALL, from_pretrained
from genvs.models import GeNVS
from genvs.snapshot import load_snapshot

try:
    from huggingface_hub import PyTorchModelHubMixin
except ImportError:
    raise ImportError(f"genvs.hub_model needs a package: {INSTALL}") from None


class HubGeNVS(GeNVS, PyTorchModelHubMixin):
    """GeNVS with `save_pretrained`, `from_pretrained` and `push_to_hub`, for folders in the layout of `genvs.export`.

    from_pretrained also takes a snapshot; otherwise it is `genvs.from_pretrained`, with the same options and errors.
    save_pretrained raises InputError for a folder that is not empty. push_to_hub raises what huggingface_hub raises.
    """

    _repository: str | None = None  # for the model card

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, name: str | os.PathLike[str], **options: Any
    ) -> HubGeNVS:
        path = Path(name)
        net = load_snapshot(path, **options) if path.is_file() else from_pretrained(name, **options)
        net.__class__ = cls
        return cast(HubGeNVS, net)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        new_folder(Path(save_directory))  # the mixin would delete a config.json there
        return super().save_pretrained(save_directory, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        export(self, save_directory, repository=self._repository, half="halved_from" in self.notes)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        self._repository = repo_id
        return super().push_to_hub(repo_id, **options)
