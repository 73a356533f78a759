"""The two diffusion stages of a run, from a dataset folder to checkpoints that explain themselves.

``diffusion`` learns images without conditions; ``control`` starts from it and learns to follow mask and template.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cardiosynth import __version__
from cardiosynth.anatomy.appearance import appearances, check_blood_pools
from cardiosynth.autoencoder.codec import Codec, LatentStatistics, load_codec, stage_folder
from cardiosynth.core.case import Case
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.progress import say
from cardiosynth.core.random import named_weights
from cardiosynth.core.store import fingerprint, latest_checkpoint, load_tensors, read_json
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.loader import CaseCache
from cardiosynth.data.preparation import check_preparation, recorded_preparation
from cardiosynth.data.splits import hold_out
from cardiosynth.diffusion.codes import lacks_body
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.crops import Cropping, check_crop, heart_center
from cardiosynth.diffusion.dropout import ConditionDropout
from cardiosynth.diffusion.latents import Latents, encode_dataset
from cardiosynth.diffusion.objective import Objective, place_weight
from cardiosynth.diffusion.process import build_process
from cardiosynth.diffusion.settings import ControlStage, DiffusionStage
from cardiosynth.diffusion.sheets import Draw, Trainee, control_sheet, diffusion_sheet, rows_of, sheet_watch
from cardiosynth.diffusion.task import ControlTask, DiffusionTask, without_partner
from cardiosynth.diffusion.unet import DenoiserSettings, TemplateUNet, inherit
from cardiosynth.diffusion.validation import validation_loss
from cardiosynth.diffusion.variants import Variant, encode_variants
from cardiosynth.training.loop import fit
from cardiosynth.training.processes import Processes, join_processes
from cardiosynth.training.state import load_weights
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
    """Train the unconditional denoiser on every case that has an image; go on where an earlier call stopped.

    Args:
        cases: the training set.
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
    codec = load_codec(autoencoder or run, str(processes.device))
    check_preparation(cases, codec.record, stage_folder(autoencoder or run))
    latents = encode_dataset(codec, cases, run / LATENTS, processes, stage.encode_budget_gb)
    latents = latents.normalized(latents.measured())
    record = diffusion_record(stage, codec, cases, latents)
    with named_weights(stage.training.seed, "diffusion"):
        module = _network(stage.denoiser, None, codec, cases.labels)
    record["init"] = None if init is None else _begin_as(module, init / "diffusion", stage)
    objective = build_objective(cases, codec, stage, stage, module)
    held_out = _held_out(cases, stage.watch)
    task = DiffusionTask(module, latents, objective, held_out)
    watches = [Watch(stage.watch.validate_every, lambda _: validation_loss(task, stage.training.precision))]
    if draw is not None:
        trainee = Trainee(codec.with_statistics(latents.statistics), module, record)
        shown = [cases[index] for index in range(min(len(cases), stage.watch.sheet_cases))]
        sheet = partial(diffusion_sheet, trainee, draw, shown)
        watches.append(sheet_watch(run / "diffusion", stage.watch, sheet))
    folder, label = run / "diffusion", "train diffusion"
    return fit(task, stage.training, folder, record, device=device, label=label, watches=watches)


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
    cache = CaseCache(cases, codec.scale, needs_masks=True)
    with named_weights(stage.training.seed, "control"):
        module = _network(earlier.denoiser, stage.condition, codec, cases.labels)
    record["not_inherited"] = inherit(module, load_tensors(checkpoint / "model.safetensors"), checkpoint)
    record["init"] = None if init is None else _begin_as(module, init / "control", stage)
    objective = build_objective(cache.cases, codec, earlier, stage, module)
    held_out = _held_out(cases, stage.watch)
    _say_who_is_alone(cache, stage, held_out)
    how = {"bidirectional": stage.bidirectional, "freeze_unet": stage.freeze_unet}
    dropout = ConditionDropout(stage.drop_template, stage.drop_mask)
    given = {"dropout": dropout, "held_out": held_out, "variants": variants}
    task = ControlTask(module, cache, latents, objective, **how, **given)
    record["typical_intensities"] = task.typical_intensities()
    record["body_added"] = _bodies_added(cache.cases, stage.condition)
    watches = [Watch(stage.watch.validate_every, lambda _: validation_loss(task, stage.training.precision))]
    if draw is not None:
        trainee = Trainee(codec.with_statistics(latents.statistics), module, record)
        sheet = partial(control_sheet, trainee, draw, rows_of(task, cache, stage.watch.sheet_cases))
        watches.append(sheet_watch(run / "control", stage.watch, sheet))
    folder, label = run / "control", "train control"
    return fit(task, stage.training, folder, record, device=device, label=label, watches=watches)


# ---------------------------------------------------------------------------------------------------------------
# Records: what a checkpoint says of itself. `fit` adds the training settings, `save_checkpoint` step and fingerprint.


def diffusion_record(stage: DiffusionStage, codec: Codec, cases: Dataset, latents: Latents) -> dict[str, Any]:
    """Return the record of a ``diffusion`` checkpoint.

    Keys: ``stage``, ``settings`` (of the stage), ``autoencoder`` (fingerprint), ``statistics`` (of latents),
    ``labels``, ``grid`` (shape, and spacing in mm of the first case), ``preparation`` (where the dataset records it),
    ``intensity``, ``cases`` (fingerprint of the
    images), ``licences`` (of the data, the autoencoder's included), ``init``, ``code_version``.
    """
    return {
        "stage": "diffusion",
        "settings": stage.model_dump(mode="json"),
        **_origin(codec, cases, latents, stage.denoiser),
    }


def control_record(
    stage: ControlStage, codec: Codec, cases: Dataset, latents: Latents, first: dict[str, Any]
) -> dict[str, Any]:
    """Return the record of a ``control`` checkpoint, which suffices, with the autoencoder's, to generate.

    Keys: those of :func:`diffusion_record`; ``diffusion`` (fingerprint of the first stage) and ``first_stage`` (its
    settings: sizes, process, prediction); ``not_inherited`` (the ControlNet's tensors that the U-Net has in another
    shape, so that they began at random); ``typical_intensities`` (model units, by structure: for templates that lack a
    structure); ``body_added`` (to how many masks, see ``diffusion/codes.py``); ``appearances`` (the looks of training
    pairs, where there are any).
    """
    denoiser = parse_settings(DenoiserSettings, first["settings"]["denoiser"], "the diffusion stage's record")
    settings, looks = stage.model_dump(mode="json"), [look.facts() for look in appearances(stage.appearance)]
    if not looks:
        del settings["appearance"]  # a run that was begun before there were looks goes on
    return {
        "stage": "control",
        "settings": settings,
        **({"appearances": looks} if looks else {}),
        "diffusion": first["fingerprint"],
        "first_stage": first["settings"],
        **_origin(codec, cases, latents, denoiser),
    }


def read_stage(run: Path, stage: str, codec: Codec) -> tuple[Path, dict[str, Any]]:
    """Return the newest checkpoint of a stage and its record.

    Args:
        run: a run's folder, the stage's folder, or one checkpoint.
        stage: ``diffusion`` or ``control``.
        codec: the autoencoder that it must belong to.

    Raises:
        InputError: there is none, it is of another stage, or it was trained with another autoencoder.
    """
    folder = run / stage if (run / stage).is_dir() or not (run / "record.json").exists() else run
    checkpoint = latest_checkpoint(folder)
    record = read_json(checkpoint / "record.json")
    if record.get("stage") != stage:
        raise InputError(f"{checkpoint} is of stage '{record.get('stage')}', not {stage}; name another run.")
    if record["autoencoder"] != codec.fingerprint:
        raise InputError(
            f"{checkpoint} was trained with the autoencoder {record['autoencoder']}, not with {codec.fingerprint}; "
            "train this stage anew or name the run of that autoencoder."
        )
    return checkpoint, record


def recorded_statistics(record: dict[str, Any], origin: Path) -> LatentStatistics:
    """Return the latent statistics that a stage was trained with."""
    return parse_settings(LatentStatistics, record["statistics"], str(origin))


def load_control(run: Path, codec: Codec, device: str) -> tuple[TemplateUNet, DiffusionStage, dict[str, Any]]:
    """Load the newest conditional denoiser of a run, strictly.

    Returns:
        The network in eval mode without gradients, the first stage's settings, and the record.

    Raises:
        InputError: see :func:`read_stage`, or weights that do not fit.
    """
    checkpoint, record = read_stage(run, "control", codec)
    origin = str(checkpoint / "record.json")
    first = parse_settings(DiffusionStage, record["first_stage"], origin)
    stage = parse_settings(ControlStage, record["settings"], origin)
    network = _network(first.denoiser, stage.condition, codec, parse_settings(LabelTable, record["labels"], origin))
    load_weights(network, checkpoint)
    return network.requires_grad_(False).eval().to(device), first, record


def _network(
    denoiser: DenoiserSettings, condition: ConditionSettings | None, codec: Codec, labels: LabelTable
) -> TemplateUNet:
    dims = codec.autoencoder.spatial_dims
    return TemplateUNet(codec.latent_channels, codec.compression, dims, denoiser, condition, labels)


MEANINGS = {
    "diffusion": ("process", "prediction", "denoiser.residual_leak", "denoiser.timestep_offset"),
    "control": ("condition.kind", "condition.encoding", "condition.codes", "condition.stem"),
}
"""Settings without which weights of the right shapes would mean something else."""


def _begin_as(module: TemplateUNet, source: Path, stage: DiffusionStage | ControlStage) -> str:
    """Load weights to start from and return their fingerprint.

    Raises:
        InputError: there are none, they do not fit, or they were trained to mean something else.
    """
    checkpoint = latest_checkpoint(source)
    theirs, ours = read_json(checkpoint / "record.json")["settings"], stage.model_dump(mode="json")
    for setting in MEANINGS[source.name]:
        one, two = theirs, ours
        for part in setting.split("."):
            one, two = one[part], two[part]
        if one != two:
            raise InputError(f"{checkpoint} was trained with {setting}={one}, not {two}; set {source.name}.{setting}.")
    return load_weights(module, checkpoint)


def _origin(codec: Codec, cases: Dataset, latents: Latents, denoiser: DenoiserSettings) -> dict[str, Any]:
    grid = cases[0].grid
    for index, case_id in enumerate(cases.case_ids):
        if tuple(n * codec.compression for n in latents.shape(index)) != grid.shape:
            raise InputError(f"case {case_id} is not on a grid of {grid.shape} as {cases.case_ids[0]} is; run prepare.")
    step = codec.compression * denoiser.multiple
    if any(n % step for n in grid.shape):
        wanted = " ".join(str(max(1, round(n / step)) * step) for n in grid.shape)
        raise InputError(f"{cases.root}: a grid of {grid.shape} must be multiples of {step}; prepare --shape {wanted}.")
    licences = {row.get("provenance", {}).get("licence") for row in cases.rows.values()}
    spacing_mm = cases[0].spacing_mm
    return {
        "autoencoder": codec.fingerprint,
        "statistics": latents.statistics.model_dump(mode="json"),
        "labels": cases.labels.model_dump(mode="json"),
        "grid": {"shape": list(grid.shape), "spacing_mm": spacing_mm and [round(v, 6) for v in spacing_mm]},
        "intensity": codec.scale.model_dump(mode="json"),
        "cases": fingerprint([file.name for file in latents.files]),
        "licences": sorted({str(x) for x in licences if x} | set(codec.record.get("licences", []))),
        "code_version": __version__,
        **recorded_preparation(cases),
    }


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


def _held_out(cases: Dataset, watch: WatchSettings) -> tuple[int, ...]:
    kept = hold_out(cases.case_ids, watch.cases)
    return tuple(index for index, case_id in enumerate(cases.case_ids) if case_id in kept)
