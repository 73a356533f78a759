"""MAISI's released U-Nets and ControlNets, as our checkpoints.

A released ControlNet is told one mask, of all labels, in 8 channels. Ours is told M'_A ++ M'_B ++ I_B (17 channels):
M'_B is a mask of all labels, so that its planes take the 8 channels' weights; those of M'_A and I_B begin at zero.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cardiosynth.autoencoder.codec import Codec, LatentStatistics, load_codec
from cardiosynth.autoencoder.released import RELEASED_STEP, released_facts
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.store import load_tensors, save_checkpoint
from cardiosynth.diffusion.codes import released_labels
from cardiosynth.diffusion.layouts import Layout
from cardiosynth.diffusion.records import read_stage, recorded_statistics
from cardiosynth.diffusion.settings import ControlStage, DiffusionStage
from cardiosynth.diffusion.stem import MaisiStem
from cardiosynth.diffusion.unet import TIMESTEPS, TemplateUNet
from cardiosynth.training.released import read_released
from cardiosynth.training.state import load_strictly

KEYS = {"unet": "unet_state_dict", "controlnet": "controlnet_state_dict"}
"""Names of the weights in released files."""
STEM = "controlnet_cond_embedding"
ENTRY = f"{STEM}.conv_in.conv.weight"
"""The stem's weights that read the condition."""
MASK_PLANES = 8
"""Channels that a released ControlNet is told."""


def import_unet(file: Path, run: Path, layout: Layout, licence: str) -> Path:
    """Write a released U-Net as the diffusion stage of ``run`` and return the checkpoint.

    Args:
        file: holds ``unet_state_dict``, ``scale_factor`` and ``num_train_timesteps``; or flat ``.safetensors`` with a
            tensor ``scale_factor`` beside the weights.
        run: holds the autoencoder; gets ``diffusion/step-0000000``.
        layout: of the weights.
        licence: of the weights.

    Raises:
        InputError: no autoencoder, a file that cannot be read, no scale factor, another number of timesteps, or a
            tensor that is missing, unknown or of another shape.
    """
    codec = _codec(run)
    weights, extras = read_released(file, KEYS["unet"])
    module = _network(codec, layout, conditional=False)
    load_strictly(module.unet, weights, file)
    record = {
        "stage": "diffusion",
        "settings": _first_stage(layout).model_dump(mode="json"),
        "statistics": _statistics(extras, codec, file).model_dump(mode="json"),
        **_facts(file, licence, codec, layout),
    }
    return save_checkpoint(run / "diffusion", RELEASED_STEP, module.state_dict(), {}, record)


def import_controlnet(file: Path, run: Path, layout: Layout, licence: str) -> Path:
    """Write a released ControlNet, widened to 17 channels, as the control stage of ``run``; return the checkpoint.

    Args:
        file: holds ``controlnet_state_dict``; or flat ``.safetensors``.
        run: holds autoencoder and U-Net; gets ``control/step-0000000``, which holds the U-Net's weights, too.
        layout: of the weights.
        licence: of the weights.

    Raises:
        InputError: no autoencoder or U-Net, a U-Net of another layout, a file that cannot be read, or a tensor that is
            missing, unknown or of another shape.
    """
    codec = _codec(run)
    _check_there(run, "diffusion", "unet")
    checkpoint, first = read_stage(run, "diffusion", codec)
    earlier = parse_settings(DiffusionStage, first["settings"], str(checkpoint / "record.json"))
    if earlier.denoiser != layout.denoiser:
        raise InputError(f"{checkpoint} is not a U-Net of layout {layout.name}; import the one that {file} belongs to.")
    weights, _ = read_released(file, KEYS["controlnet"])
    module = _network(codec, layout, conditional=True)
    load_control(module, weights, file)
    load_strictly(module.unet, _without(load_tensors(checkpoint / "model.safetensors"), "unet."), checkpoint)
    facts = _facts(file, licence, codec, layout)
    facts["licences"] = sorted({*facts["licences"], *first["licences"]})
    record = {
        "stage": "control",
        "settings": ControlStage(condition=layout.condition, freeze_unet=True).model_dump(mode="json"),
        "diffusion": first["fingerprint"],
        "first_stage": first["settings"],
        "statistics": recorded_statistics(first, checkpoint).model_dump(mode="json"),
        "not_inherited": [],
        "typical_intensities": {},
        "body_added": 0,
        **facts,
    }
    return save_checkpoint(run / "control", RELEASED_STEP, module.state_dict(), {}, record)


def load_control(module: TemplateUNet, weights: Mapping[str, Tensor], origin: Path) -> None:
    """Load a released ControlNet with 8 channels of condition into a network that is told 17.

    Args:
        module: of a released layout.
        weights: in the released layout, stem included.
        origin: for the error.

    Raises:
        InputError: a tensor is missing, unknown or of another shape.
    """
    control, stem = module.control, module.stem
    assert control is not None
    assert isinstance(stem, MaisiStem)
    if ENTRY in weights:
        weights = {**weights, ENTRY: widened(weights[ENTRY], origin)}
    # Together they are the released module, so that an error names tensors as the file does.
    control.register_module(STEM, stem.embedding)
    try:
        load_strictly(control, weights, origin)
    finally:
        control.register_module(STEM, nn.Identity())


def widened(entry: Tensor, origin: Path) -> Tensor:
    """Return the stem's first weights for 17 channels: M'_A zero, M'_B as given, I_B zero.

    Raises:
        InputError: weights that do not read 8 planes of one mask.
    """
    if entry.shape[1] != MASK_PLANES:
        raise InputError(
            f"{origin}: weight '{ENTRY}' reads {entry.shape[1]} channels instead of the {MASK_PLANES} bit-planes of a "
            "mask; give a released ControlNet."
        )
    wide = entry.new_zeros((entry.shape[0], 2 * MASK_PLANES + 1, *entry.shape[2:]))
    wide[:, MASK_PLANES : 2 * MASK_PLANES] = entry
    return wide


def expected_shapes(kind: str, layout: Layout) -> dict[str, torch.Size]:
    """Return name -> shape of what a released file of this kind holds: ``unet`` or ``controlnet``."""
    with torch.device("meta"):
        module = TemplateUNet(4, 4, 3, layout.denoiser, layout.condition, released_labels())
    assert module.control is not None
    assert isinstance(module.stem, MaisiStem)
    if kind == "unet":
        return {name: value.shape for name, value in module.unet.state_dict().items()}
    module.control.register_module(STEM, module.stem.embedding)
    shapes = {name: value.shape for name, value in module.control.state_dict().items()}
    return {**shapes, ENTRY: torch.Size((shapes[ENTRY][0], MASK_PLANES, *shapes[ENTRY][2:]))}


def _first_stage(layout: Layout) -> DiffusionStage:
    return DiffusionStage(denoiser=layout.denoiser, process=layout.process, prediction=layout.prediction)


def _network(codec: Codec, layout: Layout, *, conditional: bool) -> TemplateUNet:
    sizes = (codec.latent_channels, codec.compression, codec.autoencoder.spatial_dims, layout.denoiser)
    return TemplateUNet(*sizes, layout.condition if conditional else None, released_labels())


def _statistics(extras: Mapping[str, float], codec: Codec, file: Path) -> LatentStatistics:
    """Return what MAISI's ``latent * scale_factor`` is to us: no center, and a spread of 1 / scale_factor."""
    scale, steps = extras.get("scale_factor"), extras.get("num_train_timesteps", TIMESTEPS)
    if scale is None or not scale > 0:
        raise InputError(f"{file} holds no positive 'scale_factor', without which its latents cannot be scaled.")
    if steps != TIMESTEPS:
        raise InputError(f"{file} was trained with {steps:g} timesteps; these layouts have {TIMESTEPS}.")
    channels = codec.latent_channels
    return LatentStatistics(mean=(0.0,) * channels, std=(1 / scale,) * channels)


def _facts(file: Path, licence: str, codec: Codec, layout: Layout) -> dict[str, Any]:
    facts = released_facts(file, licence)
    return {
        **facts,
        "autoencoder": codec.fingerprint,
        "labels": released_labels().model_dump(mode="json"),
        "intensity": codec.scale.model_dump(mode="json"),
        "licences": sorted({licence, *codec.record.get("licences", [])}),
        "released": {**facts["released"], "layout": layout.name},
    }


def _codec(run: Path) -> Codec:
    _check_there(run, "autoencoder", "autoencoder")
    return load_codec(run)


def _check_there(run: Path, stage: str, kind: str) -> None:
    if not (run / stage).is_dir():
        raise InputError(
            f"{run} has no {stage} yet, to which these weights belong; first run cardiosynth weights import FILE {run} "
            f"--kind {kind}."
        )


def _without(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items()}
