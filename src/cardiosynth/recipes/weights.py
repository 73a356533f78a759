"""Released weights become a run, and anything that holds weights says what it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from cardiosynth.autoencoder.networks import MaisiAutoencoder
from cardiosynth.autoencoder.released import INTENSITY, NETWORK, import_autoencoder
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.store import checkpoints, file_sha256, load_tensors, read_json
from cardiosynth.diffusion.codes import released_labels
from cardiosynth.diffusion.layouts import LAYOUTS, Layout, find_layout
from cardiosynth.diffusion.process import TimeShift
from cardiosynth.diffusion.released import KEYS, expected_shapes, import_controlnet, import_unet
from cardiosynth.recipes.fcas import FcasRecipe, GridSettings
from cardiosynth.recipes.registry import RECIPE, keep_recipe
from cardiosynth.recipes.sizes import PAPER
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.segmentation.medsam.released import import_medsam, is_medsam
from cardiosynth.segmentation.staged import FINETUNED, PRETRAINED
from cardiosynth.training.released import read_released

Kind = Literal["autoencoder", "unet", "controlnet", "medsam"]
KINDS: tuple[Kind, ...] = ("autoencoder", "unet", "controlnet", "medsam")
UNKNOWN = "unknown: no network of MAISI's CT models, nor MedSAM, has these tensors"
RUN_STAGES = ("autoencoder", "diffusion", "control", "segmenter", "medsam")


def import_weights(file: Path, run: Path, kind: str, layout: str, licence: str) -> Path:
    """Turn released weights into a stage of ``run`` and return its checkpoint.

    Args:
        file: as released, or ``.safetensors``; of MedSAM a folder of Hugging Face as well.
        run: of MAISI autoencoder first, then U-Net, then ControlNet; it keeps a recipe to sample by.
        kind: one of ``KINDS``.
        layout: ddpm-ct or rflow-ct; of MedSAM none, the names of its weights tell.
        licence: under which the weights were given.

    Raises:
        InputError: an unknown kind or layout, no licence, a file that does not fit, or a stage that is there already.
    """
    if kind not in KINDS:
        raise InputError(f"there is no kind of weights '{kind}'" + suggest(kind, list(KINDS)))
    if kind != "medsam":
        return _import_maisi(file, run, kind, find_layout(layout), licence)
    if layout:
        raise InputError(f"--layout {layout} is MAISI's; the names of MedSAM's weights tell theirs, so leave it out.")
    return import_medsam(file, run, licence)


def _import_maisi(file: Path, run: Path, kind: str, layout: Layout, licence: str) -> Path:
    if not licence.strip():
        raise InputError(
            "weights travel with their licence, so say --licence TEXT. What is said of MAISI's CT weights contradicts "
            "itself (the documentation names the NVIDIA Open Model License, the file beside the code a non-commercial "
            "one); take the words from what came with your download."
        )
    stage = {"autoencoder": "autoencoder", "unet": "diffusion", "controlnet": "control"}[kind]
    if checkpoints(run / stage):
        raise InputError(f"{run} has a stage '{stage}' already; name another run folder.")
    recipe = released_recipe(layout)
    if (run / RECIPE).exists():
        keep_recipe(run, recipe)  # refuses another layout before anything is written
    if kind == "autoencoder":
        checkpoint = import_autoencoder(file, run, licence, released_labels())
    else:
        checkpoint = (import_unet if kind == "unet" else import_controlnet)(file, run, layout, licence)
    keep_recipe(run, recipe)
    return checkpoint


def released_recipe(layout: Layout) -> FcasRecipe:
    """Return the recipe of a run of released weights: its networks, and MAISI's own way of sampling.

    The grid is the one that MAISI's documentation gives as typical for a chest.
    """
    diffusion = PAPER.diffusion.model_copy(
        update={"denoiser": layout.denoiser, "process": layout.process, "prediction": layout.prediction}
    )
    sampler = PAPER.sampler
    if layout.process.kind == "rectified_flow":
        sampler = SamplerSettings(solver="euler", steps=30, clamp=None, shift=TimeShift(by_volume=True))
    changes = {
        "name": f"maisi/{layout.name.replace('-', '')}",
        "grid": GridSettings(shape=(512, 512, 128), spacing_mm=(0.684, 0.684, 2.422)),
        "intensity": INTENSITY,
        "autoencoder": AutoencoderStage(network=NETWORK),
        "diffusion": diffusion,
        "control": PAPER.control.model_copy(update={"condition": layout.condition}),
        "sampler": sampler,
    }
    return PAPER.model_copy(update=changes)


def describe(path: Path) -> list[dict[str, Any]]:
    """Return JSON-like facts about each stage of a run, about one checkpoint, or about a released file.

    Raises:
        InputError: nothing there that holds weights.
    """
    if path.is_file():
        return [_describe_file(path)]
    if (path / "record.json").exists():
        return [_describe_checkpoint(path)]
    stages = [folder / stage for folder in (path, path / PRETRAINED, path / FINETUNED) for stage in RUN_STAGES]
    found = [c for stage in stages for c in checkpoints(stage)[-1:]] or checkpoints(path)[-1:]
    if not found:
        raise InputError(f"{path} holds no checkpoint and is no file of weights; name a run, a checkpoint or a file.")
    return [_describe_checkpoint(checkpoint) for checkpoint in found]


def in_words(facts: list[dict[str, Any]]) -> str:
    """Return the facts as a person reads them, one line each; settings are for ``--json``."""
    blocks = []
    for each in facts:
        shown = {key: _in_words(value) for key, value in each.items() if key not in ("settings", "labels")}
        lines = [f"{key.replace('_', ' ')}: {text}" for key, text in shown.items() if text]
        if each.get("labels"):
            lines.append("labels: " + ", ".join(f"{name} {code}" for name, code in each["labels"].items()))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_in_words(item)}" for key, item in value.items() if _in_words(item))
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _describe_checkpoint(checkpoint: Path) -> dict[str, Any]:
    record = read_json(checkpoint / "record.json")
    settings = record.get("settings", {})
    first = record.get("first_stage", settings)
    weights = load_tensors(checkpoint / "model.safetensors")
    return {
        "path": str(checkpoint),
        "stage": record.get("stage"),
        "layout": record.get("released", {}).get("layout") or _layout_of(first),
        "released": record.get("released"),
        "parameters": sum(value.numel() for value in weights.values()),
        "steps": record.get("step"),
        "grid": record.get("grid"),
        "intensity": record.get("intensity"),
        "licences": record.get("licences"),
        "fingerprint": record.get("fingerprint"),
        "packed_from": record.get("packed", {}).get("fingerprint"),
        "autoencoder": record.get("autoencoder"),
        "init": record.get("init"),
        "labels": {label["name"]: label["code"] for label in record.get("labels", {}).get("labels", [])},
        "settings": settings,
    }


def _layout_of(stage: Mapping[str, Any]) -> str | None:
    """Return the released layout that the settings of a first stage are, None for any other."""
    ignored = {"checkpointing", "residual_leak"}
    given = {key: value for key, value in stage.get("denoiser", {}).items() if key not in ignored}
    for layout in LAYOUTS.values():
        denoiser = layout.denoiser.model_dump(mode="json")
        if given == {key: value for key, value in denoiser.items() if key not in ignored}:
            return layout.name
    return None


def _describe_file(file: Path) -> dict[str, Any]:
    weights, extras = read_released(file, KEYS["unet"])
    shapes = {name: value.shape for name, value in weights.items()}
    kinds = ["medsam"] if is_medsam(shapes) else [n for n, known in _released_shapes().items() if known == shapes]
    return {
        "path": str(file),
        "released": {"kind": ", ".join(kinds) or UNKNOWN},
        "parameters": sum(value.numel() for value in weights.values()),
        "scale_factor": extras.get("scale_factor"),
        "num_train_timesteps": extras.get("num_train_timesteps"),
        "sha256": file_sha256(file),
        "licences": None,
    }


def _released_shapes() -> dict[str, dict[str, torch.Size]]:
    with torch.device("meta"):
        autoencoder = MaisiAutoencoder(NETWORK).released()
    found = {"autoencoder": {name: value.shape for name, value in autoencoder.items()}}
    for layout in LAYOUTS.values():
        for kind in KEYS:
            found[f"{kind} {layout.name}"] = expected_shapes(kind, layout)
    return found
