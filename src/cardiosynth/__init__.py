"""cardiosynth: annotated cardiac images where there are few.

The public names below are loaded on first use, so that ``import cardiosynth`` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cardiosynth.anatomy.masks import make_masks
    from cardiosynth.core.case import Case
    from cardiosynth.data.dataset import read_dataset, write_dataset
    from cardiosynth.recipes.shipped import shipped_run
    from cardiosynth.sampling.generator import load_generator
    from cardiosynth.segmentation.losses import cal_loss

_HOME = {
    "Case": "cardiosynth.core.case",
    "cal_loss": "cardiosynth.segmentation.losses",
    "load_generator": "cardiosynth.sampling.generator",
    "make_masks": "cardiosynth.anatomy.masks",
    "read_dataset": "cardiosynth.data.dataset",
    "shipped_run": "cardiosynth.recipes.shipped",
    "write_dataset": "cardiosynth.data.dataset",
}

__all__ = [
    "Case",
    "__version__",
    "cal_loss",
    "load_generator",
    "make_masks",
    "read_dataset",
    "shipped_run",
    "write_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cardiosynth' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
