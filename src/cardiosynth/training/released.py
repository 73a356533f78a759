"""Weights in files that others released: read without executing anything, tensor by tensor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import load_tensors

EXTRAS = ("scale_factor", "num_train_timesteps")
"""What released files hold beside weights and we need."""


def read_released(file: Path, key: str) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return weights, float32, and the extras that stand beside them.

    Args:
        file: ``.safetensors``, or what ``torch.save`` wrote: a state dict, or a mapping that holds it.
        key: name of the state dict in such a mapping; where it has another name, it must be the only one.

    Raises:
        InputError: the file cannot be read, holds anything but tensors and plain values - which is not executed - or no
            state dict, or weights that are not finite.
    """
    contents = load_tensors(file) if file.suffix == ".safetensors" else _unpickled(file)
    extras = {name: float(contents[name]) for name in EXTRAS if name in contents}
    weights = _state_dict(contents, key, file)
    broken = [name for name, value in weights.items() if not bool(value.isfinite().all())]
    if broken:
        raise InputError(f"{file}: weight '{broken[0]}' is not finite; download the file again.")
    return {name: value.float() for name, value in weights.items()}, extras


def _unpickled(file: Path) -> Mapping[str, Any]:
    try:
        # The restricted unpickler makes tensors and plain values only; it refuses to call anything else.
        contents = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{file} is not there; check the path.") from error
    except Exception as error:  # a file that is no archive of tensors makes the unpickler fail in any way
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{file} cannot be read as tensors alone, and nothing in it was executed "
            f"({reason[0] if reason else type(error).__name__}); if you trust its origin, save its state dict as "
            ".safetensors and import that."
        ) from error
    if not isinstance(contents, Mapping):
        raise InputError(f"{file} holds no state dict but a {type(contents).__name__}; give a file of weights.")
    return contents


def _state_dict(contents: Mapping[str, Any], key: str, file: Path) -> dict[str, Tensor]:
    plain = {name: value for name, value in contents.items() if name not in EXTRAS}
    if _holds_tensors(plain):
        return plain
    found = [name for name, value in plain.items() if _holds_tensors(value)]
    if key in found:
        return dict(plain[key])
    if len(found) != 1:
        raise InputError(f"{file} holds {', '.join(map(str, plain)) or 'nothing'} and no '{key}'; give another file.")
    return dict(plain[found[0]])


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(x, Tensor) for x in value.values())
