"""GeNVS: generative novel view synthesis with 3D-aware diffusion (arXiv 2304.02602)."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"  # pyproject.toml reads it here
__all__ = ["Cameras", "GeNVS", "GeNVSConfig", "Viewer", "from_pretrained", "load_snapshot"]
__all__ += ["sample_views", "save_snapshot"]

if TYPE_CHECKING:
    from genvs.config import GeNVSConfig
    from genvs.geometry import Cameras
    from genvs.hub import from_pretrained
    from genvs.models import GeNVS
    from genvs.sampling.viewer import Viewer
    from genvs.sampling.views import sample_views
    from genvs.snapshot import load_snapshot, save_snapshot
else:  # type checkers would take every name for one that `__getattr__` knows
    _HOMES = {
        "Cameras": "genvs.geometry",
        "GeNVS": "genvs.models",
        "GeNVSConfig": "genvs.config",
        "Viewer": "genvs.sampling.viewer",
        "from_pretrained": "genvs.hub",
        "load_snapshot": "genvs.snapshot",
        "sample_views": "genvs.sampling.views",
        "save_snapshot": "genvs.snapshot",
    }

    def __getattr__(name):
        # Public names are imported on first use, so that making data or reading a config does not wait for torch.
        if name not in _HOMES:
            raise AttributeError(f"module 'genvs' has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
