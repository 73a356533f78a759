"""What this machine has, and what a recipe asks of it: parameters, the size of weights, cores and memory."""

import os
import platform
from importlib.util import find_spec
from typing import Any

import torch

from cardiosynth import __version__
from cardiosynth.autoencoder.networks import build_autoencoder
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.diffusion.unet import TemplateUNet
from cardiosynth.evaluation.results import environment
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.segmentation.networks import build_segmenter, target_classes
from cardiosynth.training.settings import uses_bfloat16

EXTRAS = {"nnunet": "nnunetv2", "dicom": "pydicom", "medsam": "transformers", "ray": "ray", "slurm": "submitit"}


def examine(recipe: FcasRecipe) -> dict[str, Any]:
    """Return JSON-like facts: ``machine``, ``packages`` and ``recipe`` (parameters of each network)."""
    return {"version": __version__, "machine": _machine(), "packages": environment(), "recipe": _demands(recipe)}


def in_words(facts: dict[str, Any]) -> str:
    """Return the facts as a person reads them."""
    machine, recipe = facts["machine"], facts["recipe"]
    lines = [
        f"cardiosynth {facts['version']}, Python {platform.python_version()}, torch {facts['packages']['torch']}",
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, bfloat16 {'yes' if machine['bfloat16'] else 'no'}",
        f"GPU: {machine['gpu'] or 'none; everything runs on the CPU'}",
        f"recipe {recipe['name']}: {' x '.join(map(str, recipe['shape']))} voxels of {recipe['spacing_mm'][0]:g} mm",
    ]
    lines += [f"  {name}: {count / 1e6:.2f} million parameters" for name, count in recipe["parameters"].items()]
    lines.append(f"  weights: {recipe['weights_mb']:.0f} MB; one image is {recipe['image_mb']:.0f} MB")
    return "\n".join(lines)


def _machine() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    device = torch.device("cuda" if cuda else "cpu")
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "bfloat16": uses_bfloat16("auto", device),
        "extras": sorted(name for name, module in EXTRAS.items() if find_spec(module)),
    }


def _demands(recipe: FcasRecipe) -> dict[str, Any]:
    with torch.device("meta"):
        networks = _networks(recipe)
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    voxels = recipe.grid.shape[0] * recipe.grid.shape[1] * recipe.grid.shape[2]
    return {
        "name": recipe.name,
        "shape": list(recipe.grid.shape),
        "spacing_mm": list(recipe.grid.spacing_mm),
        "parameters": counts,
        "weights_mb": sum(counts.values()) * 4 / 1e6,
        "image_mb": voxels * 4 / 1e6,
    }


def _networks(recipe: FcasRecipe) -> dict[str, torch.nn.Module]:
    codec, first = recipe.autoencoder.network, recipe.diffusion
    sizes = (codec.latent_channels, codec.compression, codec.spatial_dims, first.denoiser)
    return {
        "autoencoder": build_autoencoder(codec, 0),
        "denoiser with condition": TemplateUNet(*sizes, recipe.control.condition, CARDIAC_CT),
        "segmenter": build_segmenter(recipe.segmenter.network, target_classes(CARDIAC_CT)),
    }
