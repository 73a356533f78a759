"""Lets packages that import torchvision be imported where its compiled part does not fit this build of torch.

Imports nothing of cardiosynth: a program that runs in another Python loads this file by its path.
"""

import sys

KEPT: list = []
"""A library's declarations end with the object."""


def declare_torchvision_operators() -> None:
    """Let torchvision be imported; where it can be already, or is not there, nothing happens.

    nnU-Net (through timm) and transformers import torchvision, whose wheels hold CUDA code that a CPU build of torch
    cannot load (pytorch/vision 9085). Nobody here uses torchvision's operators, and for the import it is enough that
    they are declared.
    """
    import torch

    try:
        import torchvision
    except ImportError:
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        KEPT.append(library)
        import torchvision  # noqa: F401
