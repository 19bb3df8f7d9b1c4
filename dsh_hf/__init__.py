"""Deep Sketch Hashing: sketches and images become binary codes that find each other."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsh_hf.configuration import DSHConfig
    from dsh_hf.modeling import DSHModel
    from dsh_hf.retrieval import Hit, SketchRetriever

__version__ = "0.1.0"
__all__ = ["DSHConfig", "DSHModel", "Hit", "SketchRetriever", "__version__"]

# Public names are fetched on first use, so that `import dsh_hf` costs no torch.
_HOMES = {
    "DSHConfig": "dsh_hf.configuration",
    "DSHModel": "dsh_hf.modeling",
    "Hit": "dsh_hf.retrieval",
    "SketchRetriever": "dsh_hf.retrieval",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'dsh_hf' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
