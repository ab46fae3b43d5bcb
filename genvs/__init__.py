"""GeNVS: generative novel view synthesis with 3D-aware diffusion (arXiv 2304.02602)."""

from importlib import import_module

_HOMES = {
    "Cameras": "genvs.geometry",
    "GeNVS": "genvs.models",
    "GeNVSConfig": "genvs.config",
    "load_snapshot": "genvs.snapshot",
    "save_snapshot": "genvs.snapshot",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    # Public names load on first use, so that making data or reading a config does not wait for torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'genvs' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
