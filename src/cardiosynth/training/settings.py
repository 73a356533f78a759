"""How long, how fast and how exactly a network is trained: the same settings for every stage."""

from functools import cache
from pathlib import Path
from typing import Literal

import pydantic
import torch

from cardiosynth.core.config import Settings
from cardiosynth.training.plateau import PlateauSettings

Precision = Literal["fp32", "bf16", "auto"]

MAY_CHANGE = ("steps", "log_every", "checkpoint_every", "keep_checkpoints")
"""Settings that a resumed run may have otherwise than the run had at its beginning."""


class TrainingSettings(Settings):
    """Settings of the loop.

    Attributes:
        steps: optimizer steps of each player in all.
        batch_size: examples per step, over all processes together.
        learning_rate: AdamW's, after the warm-up.
        warmup_steps: steps over which the learning rate rises linearly from 0.
        schedule: ``constant`` after the warm-up, or a half ``cosine`` that reaches 0 at the end.
        plateau: lowers the rate further when a loss no longer falls, or null. Published (FQCDM) with.
        weight_decay: AdamW's decoupled decay.
        betas: AdamW's decay rates of the first and second moment.
        max_gradient_norm: gradients of a player whose joint 2-norm is larger are scaled down to it.
        ema_decay: decay per step of the averaged weights; 0 keeps the raw ones.
        log_every: steps between rows of ``metrics.jsonl``.
        checkpoint_every: steps between checkpoints; the last step has one in any case.
        keep_checkpoints: how many of the newest checkpoints stay on disk.
        precision: ``bf16`` computes losses under autocast; ``auto`` does so where the device has bfloat16.
        compile: whether losses are compiled by torch.compile, as one graph each. A loss that cannot be is an error.
        seed: names every draw of the run.
    """

    steps: int = pydantic.Field(default=1000, ge=1)
    batch_size: int = pydantic.Field(default=2, ge=1)
    learning_rate: float = pydantic.Field(default=1e-4, gt=0)
    warmup_steps: int = pydantic.Field(default=0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    plateau: PlateauSettings | None = None
    weight_decay: float = pydantic.Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    max_gradient_norm: float = pydantic.Field(default=1.0, gt=0)
    ema_decay: float = pydantic.Field(default=0.999, ge=0, lt=1)
    log_every: int = pydantic.Field(default=10, ge=1)
    checkpoint_every: int = pydantic.Field(default=500, ge=1)
    keep_checkpoints: int = pydantic.Field(default=2, ge=1)
    precision: Precision = "auto"
    compile: bool = False
    seed: int = 0


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Return whether losses are computed under bfloat16 autocast on this device."""
    if precision == "auto":
        return torch.cuda.is_bf16_supported() if device.type == "cuda" else _processor_has_bfloat16()
    return precision == "bf16"


@cache
def _processor_has_bfloat16(facts: Path = Path("/proc/cpuinfo")) -> bool:
    # Torch's own question is private and changes between releases. Without these instructions bfloat16 is emulated,
    # slower than float32.
    text = facts.read_text(encoding="utf-8", errors="replace") if facts.exists() else ""
    return any(f" {flag}" in text for flag in ("avx512_bf16", "amx_bf16"))
