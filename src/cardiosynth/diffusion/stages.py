"""The two diffusion stages of a run, from a dataset folder to checkpoints that explain themselves.

``diffusion`` learns images without conditions; ``control`` starts from it and learns to follow mask and template.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch import Tensor

from cardiosynth import __version__
from cardiosynth.autoencoder.codec import Codec, LatentStatistics, load_codec
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings, parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.random import named_weights
from cardiosynth.core.store import fingerprint, latest_checkpoint, load_tensors, read_json
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.loader import CaseCache
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.denoiser import Prediction, check_prediction
from cardiosynth.diffusion.dropout import ConditionDropout
from cardiosynth.diffusion.latents import Latents, encode_dataset
from cardiosynth.diffusion.process import ProcessSettings, build_process
from cardiosynth.diffusion.task import ControlTask, DiffusionTask, Objective, ObjectiveSettings, place_weight
from cardiosynth.diffusion.unet import DenoiserSettings, TemplateUNet, inherit
from cardiosynth.training.loop import fit
from cardiosynth.training.settings import TrainingSettings
from cardiosynth.training.state import load_weights

LATENTS = "latents"
"""Folder of a run that both stages share."""


class DiffusionStage(Settings):
    """The first stage.

    Attributes:
        denoiser: size of the U-Net (and of the ControlNet of the next stage).
        process: how latents are noised. Published: DDPM, T = 1000.
        prediction: what the network predicts. Published: epsilon.
        objective: which times and places count how much.
        training: the loop's. Published: learning rate 1e-5.
    """

    denoiser: DenoiserSettings = DenoiserSettings()
    process: ProcessSettings = ProcessSettings()
    prediction: Prediction = "epsilon"
    objective: ObjectiveSettings = ObjectiveSettings()
    training: TrainingSettings = TrainingSettings()

    @pydantic.model_validator(mode="after")
    def _determined(self) -> "DiffusionStage":
        check_prediction(self.prediction, build_process(self.process))
        return self


class ControlStage(Settings):
    """The second stage. Process, prediction and sizes are the first stage's.

    Attributes:
        condition: what the network is told. Published: template, bits, control.
        bidirectional: train both directions of every pair (Eq. 4). Published true.
        freeze_unet: leave the U-Net as the first stage made it; for ``inject: control`` only.
        drop_template: probability that a training example lacks its template, which guidance on it needs. Published 0.
        drop_mask: probability that it lacks its mask, likewise. Published 0.
        objective: which times and places count how much.
        training: the loop's; a batch of n examples holds 2 n directions. Published: learning rate 1e-5.
    """

    condition: ConditionSettings = ConditionSettings()
    bidirectional: bool = True
    freeze_unet: bool = False
    drop_template: float = pydantic.Field(default=0.0, ge=0, lt=1)
    drop_mask: float = pydantic.Field(default=0.0, ge=0, lt=1)
    objective: ObjectiveSettings = ObjectiveSettings()
    training: TrainingSettings = TrainingSettings()

    @pydantic.model_validator(mode="after")
    def _can_learn(self) -> "ControlStage":
        if self.freeze_unet and self.condition.inject != "control":
            raise ValueError(
                "freeze_unet leaves no weight that reads the concatenated condition; set condition.inject=control"
            )
        if self.drop_template > 0 and self.condition.kind == "mask":
            raise ValueError("condition.kind 'mask' has no template to drop; set drop_template=0 or another kind")
        return self


def train_diffusion(
    cases: Dataset,
    run: Path,
    stage: DiffusionStage,
    *,
    autoencoder: Path | None = None,
    init: Path | None = None,
    device: str = "cpu",
) -> Path:
    """Train the unconditional denoiser on every case that has an image; go on where an earlier call stopped.

    Args:
        cases: the training set.
        run: the model's folder; gets ``diffusion/`` and ``latents/``.
        stage: settings.
        autoencoder: run whose autoencoder is used, where not this one.
        init: run whose diffusion weights are the starting point.
        device: cpu or cuda.

    Returns:
        The last checkpoint.

    Raises:
        InputError: no autoencoder, fewer than two images, a grid that does not suit, or settings that changed.
    """
    cases = cases.with_images()
    codec = load_codec(autoencoder or run, device)
    latents = encode_dataset(codec, cases, run / LATENTS)
    latents = latents.normalized(latents.measured())
    record = diffusion_record(stage, codec, cases, latents)
    with named_weights(stage.training.seed, "diffusion"):
        module = _network(stage.denoiser, None, codec, cases.labels)
    record["init"] = None if init is None else load_weights(module, init / "diffusion")
    weights = _weights(cases, codec, stage.objective)
    objective = Objective(build_process(stage.process), stage.prediction, stage.objective, weights)
    task = DiffusionTask(module, latents, objective)
    return fit(task, stage.training, run / "diffusion", record, device=device, label="train diffusion")


def train_control(
    cases: Dataset,
    run: Path,
    stage: ControlStage,
    *,
    autoencoder: Path | None = None,
    diffusion: Path | None = None,
    init: Path | None = None,
    device: str = "cpu",
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

    Returns:
        The last checkpoint.

    Raises:
        InputError: an earlier stage is missing or belongs to another autoencoder, fewer than two pairs, a grid that
            does not suit, or settings that changed.
    """
    cases = cases.with_images().with_masks()
    codec = load_codec(autoencoder or run, device)
    checkpoint, first = read_stage(diffusion or run, "diffusion", codec)
    earlier = parse_settings(DiffusionStage, first["settings"], str(checkpoint))
    latents = encode_dataset(codec, cases, run / LATENTS).normalized(recorded_statistics(first, checkpoint))
    record = control_record(stage, codec, cases, latents, first)
    cache = CaseCache(cases, codec.scale, needs_masks=True)
    with named_weights(stage.training.seed, "control"):
        module = _network(earlier.denoiser, stage.condition, codec, cases.labels)
    record["not_inherited"] = inherit(module, load_tensors(checkpoint / "model.safetensors"), checkpoint)
    record["init"] = None if init is None else load_weights(module, init / "control")
    weights = _weights(cache.cases, codec, stage.objective)
    objective = Objective(build_process(earlier.process), earlier.prediction, stage.objective, weights)
    how = {"bidirectional": stage.bidirectional, "freeze_unet": stage.freeze_unet}
    dropout = ConditionDropout(stage.drop_template, stage.drop_mask)
    task = ControlTask(module, cache, latents, objective, **how, dropout=dropout)
    record["typical_intensities"] = task.typical_intensities()
    return fit(task, stage.training, run / "control", record, device=device, label="train control")


# ---------------------------------------------------------------------------------------------------------------
# Records: what a checkpoint says of itself. `fit` adds the training settings, `save_checkpoint` step and fingerprint.


def diffusion_record(stage: DiffusionStage, codec: Codec, cases: Dataset, latents: Latents) -> dict[str, Any]:
    """Return the record of a ``diffusion`` checkpoint.

    Keys: ``stage``, ``settings`` (of the stage), ``autoencoder`` (fingerprint), ``statistics`` (of latents),
    ``labels``, ``grid`` (shape, and spacing in mm of the first case), ``intensity``, ``cases`` (fingerprint of the
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
    structure).
    """
    denoiser = parse_settings(DenoiserSettings, first["settings"]["denoiser"], "the diffusion stage's record")
    return {
        "stage": "control",
        "settings": stage.model_dump(mode="json"),
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


def _origin(codec: Codec, cases: Dataset, latents: Latents, denoiser: DenoiserSettings) -> dict[str, Any]:
    grid = cases[0].grid
    for (mean, _), case_id in zip(latents, cases.case_ids, strict=True):
        if tuple(n * codec.compression for n in mean.shape[1:]) != grid.shape:
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
    }


def _weights(cases: Sequence[Case], codec: Codec, objective: ObjectiveSettings) -> dict[int, Tensor]:
    """Return the weights of the places of every case that has a mask; without one every place counts alike."""
    if not objective.is_weighted:
        return {}
    return {
        index: place_weight(torch.from_numpy(case.mask), case.labels, objective, codec.compression)
        for index, case in enumerate(cases)
        if case.mask is not None
    }
