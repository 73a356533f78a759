"""The two diffusion stages of a run, from a dataset folder to checkpoints that explain themselves.

``diffusion`` learns images, alone or with their masks (FQCDM); ``control`` (FCaS) starts from images alone and learns
to follow mask and template.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cardiosynth.anatomy.appearance import appearances, check_blood_pools
from cardiosynth.autoencoder.codec import Codec, LatentStatistics, load_codec, raw_statistics, stage_folder
from cardiosynth.core.case import Case
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.picture import Picture
from cardiosynth.core.progress import say
from cardiosynth.core.random import named_weights
from cardiosynth.core.store import load_tensors
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.loader import CaseCache
from cardiosynth.data.preparation import check_preparation
from cardiosynth.data.splits import hold_out
from cardiosynth.diffusion.codes import lacks_body
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.crops import Cropping, check_crop, heart_center
from cardiosynth.diffusion.dropout import ConditionDropout
from cardiosynth.diffusion.latents import Latents, encode_dataset
from cardiosynth.diffusion.objective import Objective, place_weight
from cardiosynth.diffusion.process import build_process
from cardiosynth.diffusion.records import (
    begin_as,
    build_network,
    control_record,
    diffusion_record,
    read_stage,
    recorded_statistics,
)
from cardiosynth.diffusion.settings import ControlStage, DiffusionStage
from cardiosynth.diffusion.sheets import Draw, Trainee, control_sheet, diffusion_sheet, own_rows, rows_of, sheet_watch
from cardiosynth.diffusion.task import ControlTask, DiffusionTask, without_partner
from cardiosynth.diffusion.unet import TemplateUNet, inherit
from cardiosynth.diffusion.validation import validation_loss
from cardiosynth.diffusion.variants import Variant, encode_variants
from cardiosynth.training.loop import fit
from cardiosynth.training.processes import Processes, join_processes
from cardiosynth.training.watch import Watch, WatchSettings

LATENTS = "latents"
"""Folder of a run that both stages share."""


def train_diffusion(
    cases: Dataset,
    run: Path,
    stage: DiffusionStage,
    *,
    autoencoder: Path | None = None,
    init: Path | None = None,
    device: str = "cpu",
    draw: Draw | None = None,
) -> Path:
    """Train the denoiser on images, or on images and masks where it is told of these; go on after a stop.

    Args:
        cases: the training set; cases without an image, or a mask that is told, are passed over.
        run: the model's folder; gets ``diffusion/`` and ``latents/``.
        stage: settings.
        autoencoder: run whose autoencoder is used, where not this one.
        init: run whose diffusion weights are the starting point.
        device: cpu or cuda.
        draw: draws what sheets of samples show; without it there are none.

    Returns:
        The last checkpoint.

    Raises:
        InputError: no autoencoder, fewer than two images, a grid that does not suit, or settings that changed.
    """
    cases, processes = cases.with_images(), join_processes(device)
    cases = cases if stage.condition is None else cases.with_masks()
    codec = load_codec(autoencoder or run, str(processes.device))
    check_preparation(cases, codec.record, stage_folder(autoencoder or run))
    latents = encode_dataset(codec, cases, run / LATENTS, processes, stage.encode_budget_gb)
    latents = latents.normalized(_statistics(stage, latents, codec))
    record = diffusion_record(stage, codec, cases, latents)
    with named_weights(stage.training.seed, "diffusion"):
        module = build_network(stage.denoiser, stage.condition, codec, cases.labels)
    record["init"] = None if init is None else begin_as(module, init / "diffusion", stage)
    objective = build_objective(cases, codec, stage, stage, module)
    held_out = _held_out(cases, stage.watch)
    masks = None if stage.condition is None else CaseCache(cases, codec.scale)
    task = DiffusionTask(module, latents, objective, held_out, masks, ConditionDropout(mask=stage.drop_mask))
    sheet = None
    if draw is not None:
        trainee, count = Trainee(codec.with_statistics(latents.statistics), module, record), stage.watch.sheet_cases
        sheet = partial(diffusion_sheet, trainee, draw, [cases[index] for index in range(min(len(cases), count))])
        if stage.condition is not None:
            sheet = partial(control_sheet, trainee, draw, own_rows(cases, held_out, count))
    return _fit(task, stage, run / "diffusion", record, device, sheet)


def train_control(
    cases: Dataset,
    run: Path,
    stage: ControlStage,
    *,
    autoencoder: Path | None = None,
    diffusion: Path | None = None,
    init: Path | None = None,
    device: str = "cpu",
    draw: Draw | None = None,
) -> Path:
    """Train the denoiser to follow mask and template, on pairs; go on where an earlier call stopped.

    Args:
        cases: the training set; cases without image or mask are passed over.
        run: the model's folder; gets ``control/`` and ``latents/``.
        stage: settings.
        autoencoder: run whose autoencoder is used, where not this one.
        diffusion: run whose diffusion stage is the beginning, where not this one.
        init: run whose control weights are the starting point instead.
        device: cpu or cuda.
        draw: draws what sheets of samples show; without it there are none.

    Returns:
        The last checkpoint.

    Raises:
        InputError: an earlier stage is missing or belongs to another autoencoder, fewer than two pairs, a grid that
            does not suit, or settings that changed.
    """
    cases, processes = cases.with_images().with_masks(), join_processes(device)
    codec = load_codec(autoencoder or run, str(processes.device))
    checkpoint, first = read_stage(diffusion or run, "diffusion", codec)
    check_preparation(cases, codec.record, stage_folder(autoencoder or run))
    check_preparation(cases, first, checkpoint)
    earlier = parse_settings(DiffusionStage, first["settings"], str(checkpoint))
    latents = encode_dataset(codec, cases, run / LATENTS, processes, stage.encode_budget_gb)
    latents = latents.normalized(recorded_statistics(first, checkpoint))
    record = control_record(stage, codec, cases, latents, first)
    variants = _variants(stage, codec.with_statistics(latents.statistics), cases, run / LATENTS, processes)
    # A mask alone may be empty, as those of slices beyond the heart are; a template must show something.
    cache = CaseCache(cases, codec.scale, needs_masks=stage.condition.kind != "mask")
    with named_weights(stage.training.seed, "control"):
        module = build_network(earlier.denoiser, stage.condition, codec, cases.labels)
    record["not_inherited"] = inherit(module, load_tensors(checkpoint / "model.safetensors"), checkpoint)
    record["init"] = None if init is None else begin_as(module, init / "control", stage)
    objective = build_objective(cache.cases, codec, earlier, stage, module)
    held_out = _held_out(cases, stage.watch)
    _say_who_is_alone(cache, stage, held_out)
    how = {"bidirectional": stage.bidirectional, "freeze_unet": stage.freeze_unet}
    dropout = ConditionDropout(stage.drop_template, stage.drop_mask)
    given = {"dropout": dropout, "held_out": held_out, "variants": variants}
    task = ControlTask(module, cache, latents, objective, **how, **given)
    record["typical_intensities"] = task.typical_intensities()
    record["body_added"] = _bodies_added(cache.cases, stage.condition)
    sheet = None
    if draw is not None:
        trainee = Trainee(codec.with_statistics(latents.statistics), module, record)
        sheet = partial(control_sheet, trainee, draw, rows_of(task, cache, stage.watch.sheet_cases))
    return _fit(task, stage, run / "control", record, device, sheet)


def _fit(
    task: DiffusionTask | ControlTask,
    stage: DiffusionStage | ControlStage,
    folder: Path,
    record: Mapping[str, Any],
    device: str,
    sheet: Callable[[], Picture] | None,
) -> Path:
    """Train, and look on the way at what is held out, and at samples where a sheet shows them."""
    watches = [Watch(stage.watch.validate_every, lambda _: validation_loss(task, stage.training.precision))]
    if sheet is not None:
        watches.append(sheet_watch(folder, stage.watch, sheet))
    label = f"train {folder.name}"
    return fit(task, stage.training, folder, record, device=device, label=label, watches=watches)


def build_objective(
    cases: Iterable[Case],
    codec: Codec,
    first: DiffusionStage,
    stage: DiffusionStage | ControlStage,
    module: TemplateUNet,
) -> Objective:
    """Return what is learned of these cases, after one look at each.

    Args:
        cases: in the order of the latents, on one grid.
        codec: the autoencoder.
        first: the first stage: process, prediction, sizes.
        stage: the one that is trained.
        module: its network.

    Raises:
        InputError: a crop that does not suit, or a case without a voxel size for a network that must be told.
    """
    weights, spacings_mm, centers, grid = {}, {}, [], ()
    for index, case in enumerate(cases):
        grid = case.grid.shape
        centers.append(tuple(v // codec.compression for v in heart_center(case)) if stage.crop else ())
        if stage.objective.is_weighted and case.mask is not None:
            mask = torch.from_numpy(case.mask)
            weights[index] = place_weight(mask, case.labels, stage.objective, codec.compression)
        if module.needs_acquisition:
            spacings_mm[index] = told_spacing(case)
    cropping = None
    if stage.crop is not None:
        check_crop(stage.crop, grid, codec.compression * first.denoiser.multiple)
        shape, volume = (tuple(n // codec.compression for n in size) for size in (stage.crop, grid))
        cropping = Cropping(shape, volume, tuple(centers), codec.compression)
    process = build_process(first.process)
    return Objective(process, first.prediction, stage.objective, weights, spacings_mm, cropping)


def told_spacing(case: Case) -> Float[Tensor, "3"]:
    """Return the voxel size that a network is told of, a slice's thickness included.

    Raises:
        InputError: it is not known.
    """
    if not case.spacing_known:
        raise InputError(
            f"case {case.case_id} has no voxel size, which this network must be told; prepare the case with "
            "--spacing-mm, or set diffusion.denoiser.spacing_input=false for a new network."
        )
    return torch.from_numpy(np.linalg.norm(case.affine[:3, :3], axis=0)).float()


def _bodies_added(cases: Sequence[Case], condition: ConditionSettings) -> int:
    """Return, and say, to how many masks the body was added that MAISI's networks must be told."""
    count = sum(lacks_body(case) for case in cases) if condition.codes == "maisi" else 0
    if count:
        say(f"{count} of {len(cases)} masks have no label 'body'; MAISI's networks are told the one seen in the image.")
    return count


def _variants(stage: ControlStage, codec: Codec, cases: Dataset, folder: Path, processes: Processes) -> list[Variant]:
    check_blood_pools(stage.appearance, cases.labels)
    looks = appearances(stage.appearance)
    return encode_variants(codec, cases, folder, looks, processes, stage.encode_budget_gb)


def _say_who_is_alone(cache: CaseCache, stage: ControlStage, held_out: Sequence[int]) -> None:
    """Say where templates of the same acquisition were asked for and there are none."""
    if stage.condition.kind == "mask" or stage.condition.template != "same_acquisition":
        return
    alone = without_partner(cache, held_out)
    if len(alone) == len(cache):
        looks = "" if stage.appearance.variants else ", or set control.appearance.variants=4"
        say(
            "No case shares its acquisition with another one, so templates are drawn at random; state acquisition in "
            f"the manifest's provenance{looks}."
        )
    elif alone:
        say(f"{len(alone)} of {len(cache)} cases share their acquisition with none and take any case as template.")


def _statistics(stage: DiffusionStage, latents: Latents, codec: Codec) -> LatentStatistics:
    match stage.normalization:
        case None:
            return latents.measured()
        case "raw":
            return raw_statistics(codec.latent_channels)
        case "codebook":
            return latents.of_codes(codec)


def _held_out(cases: Dataset, watch: WatchSettings) -> tuple[int, ...]:
    kept = hold_out(cases.case_ids, watch.cases)
    return tuple(index for index, case_id in enumerate(cases.case_ids) if case_id in kept)
