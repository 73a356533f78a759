"""The memory that a training step or one synthetic case really takes, beside the prediction; run in its own process.

glibc keeps freed blocks of up to 32 MB for later, by default, and its heap grows beyond what is alive by up to a half
with tensors of that size. MALLOC_MMAP_THRESHOLD_ makes it give everything back at once, so that what is measured is
what is in use.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from cardiosynth.autoencoder.networks import build_autoencoder
from cardiosynth.autoencoder.streaming import plan_decode
from cardiosynth.core.config import with_overrides
from cardiosynth.diffusion.control import Condition
from cardiosynth.recipes.demand import (
    STAGES,
    build_denoiser,
    computes_in_bfloat16,
    condition_shapes,
    sampling_demand,
    training_demand,
)
from cardiosynth.recipes.fcas import DEMO, TINY, FcasRecipe
from cardiosynth.training.loop import take_step
from cardiosynth.training.processes import join_processes
from cardiosynth.training.state import TrainingState

MB = 2**20


def measure(what: str, side: int, precision: str) -> dict[str, float]:
    """Return ``predicted`` and ``measured`` megabytes, of a fresh process."""
    words = [sys.executable, "-m", "tests.recipes.measured", what, str(side), precision]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2])
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def sized(recipe: FcasRecipe, side: int, precision: str) -> FcasRecipe:
    """Return the recipe on cubes of this side, crops included."""
    cube, stages = [side] * 3, ("autoencoder", "diffusion", "control", "segmenter")
    crops = [f"{stage}.crop={cube}" for stage in ("autoencoder", "segmenter")]
    precisions = [f"{stage}.training.precision={precision}" for stage in stages]
    return with_overrides(recipe, [f"grid.shape={cube}", *crops, *precisions, f"sampler.precision={precision}"])


def train(recipe: FcasRecipe, stage: str) -> None:
    """Take two steps, the second with moments."""
    task, shapes, settings = STAGES[stage](recipe)
    real(task.module)
    batch = {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}
    players = task.players()
    state = TrainingState(task.module, {player.name: player.parameters for player in players}, settings)
    for _ in range(2):
        take_step(state, players, batch, settings, join_processes("cpu"), lambda batch: [])


@torch.no_grad()
def sample(recipe: FcasRecipe) -> None:
    """Embed a condition and evaluate the denoiser once."""
    network = real(build_denoiser(recipe, recipe.control.condition)).eval()
    shapes = condition_shapes(1, recipe.grid.shape)
    condition = Condition(**{name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in shapes.items()})
    codec = recipe.autoencoder.network
    x = torch.zeros(1, codec.latent_channels, *(n // codec.compression for n in recipe.grid.shape))
    with torch.autocast("cpu", torch.bfloat16, enabled=computes_in_bfloat16(recipe.sampler.precision, False)):
        embedding = network.embed(condition)
        network(x, torch.zeros(1), embedding)


@torch.no_grad()
def decode(recipe: FcasRecipe) -> None:
    """Decode one latent at once."""
    codec = recipe.autoencoder.network
    autoencoder = build_autoencoder(codec)
    z = torch.zeros(1, codec.latent_channels, *(n // codec.compression for n in recipe.grid.shape))
    with torch.autocast("cpu", torch.bfloat16, enabled=computes_in_bfloat16(recipe.sampler.precision, False)):
        autoencoder.decode(z)


def predicted(recipe: FcasRecipe, what: str) -> int:
    """Return the bytes that doctor foretells."""
    if what == "sample":
        demand = sampling_demand(recipe, gpu=False)
        return max(demand.embedding.peak_bytes, demand.step.peak_bytes)
    if what == "decode":
        autoencoder = build_autoencoder(recipe.autoencoder.network)
        latent = tuple(n // autoencoder.compression for n in recipe.grid.shape)
        bfloat16 = computes_in_bfloat16(recipe.sampler.precision, False)
        plan = plan_decode(autoencoder, latent, None, torch.bfloat16 if bfloat16 else torch.float32)
        return int(1e9 * plan.untiled_peak_gb) + sum(p.nbytes for p in autoencoder.parameters())
    return training_demand(recipe, what, gpu=False).step.peak_bytes


def real(module: nn.Module) -> nn.Module:
    """Give a module that was built on the meta device small random weights."""
    module.to_empty(device="cpu")
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.0, 0.02)
    return module


def run(recipe: FcasRecipe, what: str) -> None:
    {"sample": sample, "decode": decode}.get(what, lambda chosen: train(chosen, what))(recipe)


def status_bytes(key: str) -> int:
    """Return a value of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


if __name__ == "__main__":
    what, side, precision = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    # Once small, so that libraries are loaded and their kernels made.
    run(sized(TINY, 32, precision), what)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    recipe = sized(DEMO, side, precision)
    run(recipe, what)
    measured = status_bytes("VmHWM") - before
    json.dump({"measured": measured / MB, "predicted": predicted(recipe, what) / MB}, sys.stdout)
