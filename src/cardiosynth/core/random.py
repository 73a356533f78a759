"""Randomness has a name: every draw is a function of (seed, names) and of nothing else.

Which worker, shard or process draws, and what was drawn before, does not matter. Noise is drawn on the CPU, so
that every device starts alike.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def named_seed(seed: int, *names: str | int) -> int:
    """Return the 63-bit seed that belongs to ``names`` under the run's ``seed``."""
    plain = tuple(name if isinstance(name, str) else int(name) for name in names)  # NumPy's integers print otherwise
    digest = hashlib.sha256(repr((int(seed), *plain)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a fresh CPU generator for ``names``, e.g. ``generator(0, "sampling", case_id)``."""
    return torch.Generator().manual_seed(named_seed(seed, *names))


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a fresh NumPy generator for ``names``."""
    return np.random.default_rng(named_seed(seed, *names))


@contextmanager
def named_weights(seed: int, *names: str | int) -> Iterator[None]:
    """Build networks inside the block, and their initial weights are a function of ``names``.

    Layers draw from torch's global generator; it is given back as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(named_seed(seed, *names))
        yield


def draw_int(below: int, rng: torch.Generator) -> int:
    """Return a uniform integer in ``[0, below)``."""
    return int(torch.randint(below, (), generator=rng))
