"""What draws the sheets of samples while the diffusion stages train: the recipe's sampler, on networks in training."""

import numpy as np
import torch
from torch import Tensor

from cardiosynth.core.case import Case
from cardiosynth.core.config import parse_settings
from cardiosynth.core.intensity import rounded_image
from cardiosynth.core.random import generator
from cardiosynth.diffusion.denoiser import NetworkDenoiser
from cardiosynth.diffusion.process import build_process
from cardiosynth.diffusion.settings import DiffusionStage
from cardiosynth.diffusion.sheets import Draw, Trainee
from cardiosynth.diffusion.stages import told_spacing
from cardiosynth.diffusion.unet import chest_ct
from cardiosynth.sampling.generator import LatentDiffusionGenerator, LatentDiffusionStages
from cardiosynth.sampling.model import LatentDiffusionModel
from cardiosynth.sampling.sampler import SamplerSettings, draw_latent
from cardiosynth.training.settings import uses_bfloat16

SEED = 0
"""Sheets show the same noise at every step, so that what changes is the network."""


def sheet_sampler(sampler: SamplerSettings) -> Draw:
    """Return what draws a sheet's cases with ``sampler``, from noise, without confidence maps and guidance.

    Guidance would need a network that has learned to do without its condition, early in training it has not.
    """
    changes = {"confidence": None, "guidance_template": 0.0, "guidance_mask": 0.0, "start": "noise", "strength": 1.0}
    plain = sampler.model_copy(update=changes)

    def draw(trainee: Trainee, template: Case, reference: Case | None) -> Case:
        if reference is None:
            return _unconditional(trainee, template, plain)
        return _conditional(trainee, template, reference, plain)

    return draw


def _conditional(trainee: Trainee, template: Case, reference: Case, sampler: SamplerSettings) -> Case:
    record = {"fingerprint": "in training", **trainee.record}
    first = parse_settings(DiffusionStage, record.get("first_stage", record["settings"]), "the stage's record")
    model = LatentDiffusionModel(trainee.codec, trainee.network, first, record)
    maker = LatentDiffusionGenerator(LatentDiffusionStages(), sampler, str(trainee.codec.device), model)
    return maker.generate(reference, template, SEED)


def _unconditional(trainee: Trainee, like: Case, sampler: SamplerSettings) -> Case:
    """Return a sample of the first stage on the grid of ``like``, in its unit."""
    codec, network = trainee.codec, trainee.network
    first = parse_settings(DiffusionStage, trainee.record["settings"], "the diffusion stage's record")
    process = build_process(first.process)
    shape = (1, codec.latent_channels, *codec.latent_shape(like.grid.shape))
    rng, device = generator(SEED, "sampling", like.case_id), codec.device
    noise = torch.randn(shape, generator=rng).to(device)
    half = uses_bfloat16(sampler.precision, device)
    acquisition = chest_ct(told_spacing(like)[None].to(device)) if network.needs_acquisition else None

    def predict(x: Tensor, t: Tensor, _: None) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            return network(x, t, None, acquisition)

    clamp = codec.within_images if sampler.clamp == "image" else sampler.clamp
    denoiser = NetworkDenoiser(predict, process, first.prediction, clamp)
    latent = draw_latent(sampler, denoiser, process, noise, None, rng=rng)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        image = codec.decode(latent[0], codec.window_of(like))
    return Case(
        case_id=f"sample-{like.case_id}",
        image=rounded_image(image) if like.intensity_unit == "hu" else image.astype(np.float32),
        affine=like.affine,
        intensity_unit=like.intensity_unit,
        spacing_known=like.spacing_known,
        origin="synthetic",
    )
