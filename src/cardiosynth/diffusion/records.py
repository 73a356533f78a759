"""Records: what a checkpoint of a diffusion stage says of itself, and how it is read again.

``fit`` adds the training settings, ``save_checkpoint`` step and fingerprint.
"""

from pathlib import Path
from typing import Any

from cardiosynth import __version__
from cardiosynth.anatomy.appearance import appearances
from cardiosynth.autoencoder.codec import Codec, LatentStatistics
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.store import fingerprint, latest_checkpoint, read_json
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.preparation import recorded_preparation
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.latents import Latents
from cardiosynth.diffusion.settings import ControlStage, DiffusionStage
from cardiosynth.diffusion.unet import DenoiserSettings, TemplateUNet
from cardiosynth.training.state import load_weights


def diffusion_record(stage: DiffusionStage, codec: Codec, cases: Dataset, latents: Latents) -> dict[str, Any]:
    """Return the record of a ``diffusion`` checkpoint.

    Keys: ``stage``, ``settings`` (of the stage), ``autoencoder`` (fingerprint), ``statistics`` (of latents),
    ``labels``, ``grid`` (shape, and spacing in mm of the first case), ``preparation`` (where the dataset records it),
    ``intensity``, ``cases`` (fingerprint of the
    images), ``licences`` (of the data, the autoencoder's included), ``init``, ``code_version``.
    """
    # A run that was begun before this stage could be told of masks goes on.
    untold = {"condition", "drop_mask"} if stage.condition is None else None
    return {
        "stage": "diffusion",
        "settings": stage.model_dump(mode="json", exclude=untold),
        **latents_record(codec, cases, latents, stage.denoiser.multiple),
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
        **latents_record(codec, cases, latents, denoiser.multiple),
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
    network = build_network(
        first.denoiser, stage.condition, codec, parse_settings(LabelTable, record["labels"], origin)
    )
    load_weights(network, checkpoint)
    return network.requires_grad_(False).eval().to(device), first, record


def load_diffusion(
    run: Path, codec: Codec, device: str, *, untold: bool = False
) -> tuple[TemplateUNet, DiffusionStage, dict[str, Any]]:
    """Load the newest denoiser of a run without a control stage, strictly.

    Args:
        run: see :func:`read_stage`.
        codec: the autoencoder.
        device: cpu or cuda.
        untold: whether a network that is told of no mask is what is asked for.

    Returns:
        The network in eval mode without gradients, the stage's settings, and the record.

    Raises:
        InputError: see :func:`read_stage`, weights that do not fit, or a network that was told nothing where it should.
    """
    checkpoint, record = read_stage(run, "diffusion", codec)
    origin = str(checkpoint / "record.json")
    stage = parse_settings(DiffusionStage, record["settings"], origin)
    if stage.condition is None and not untold:
        raise InputError(
            f"{checkpoint} was told no masks and can follow none; train the control stage of {run} as well."
        )
    network = build_network(
        stage.denoiser, stage.condition, codec, parse_settings(LabelTable, record["labels"], origin)
    )
    load_weights(network, checkpoint)
    return network.requires_grad_(False).eval().to(device), stage, record


def build_network(
    denoiser: DenoiserSettings, condition: ConditionSettings | None, codec: Codec, labels: LabelTable
) -> TemplateUNet:
    """Return a denoiser for a codec's latents, untrained."""
    dims = codec.autoencoder.spatial_dims
    return TemplateUNet(codec.latent_channels, codec.compression, dims, denoiser, condition, labels)


MEANINGS = {
    "diffusion": ("process", "prediction", "denoiser.residual_leak", "denoiser.timestep_offset", "condition.encoding"),
    "control": ("condition.kind", "condition.encoding", "condition.codes", "condition.stem"),
}
"""Settings without which weights of the right shapes would mean something else."""


def begin_as(module: TemplateUNet, source: Path, stage: DiffusionStage | ControlStage) -> str:
    """Load weights to start from and return their fingerprint.

    Raises:
        InputError: there are none, they do not fit, or they were trained to mean something else.
    """
    checkpoint = latest_checkpoint(source)
    theirs, ours = read_json(checkpoint / "record.json")["settings"], stage.model_dump(mode="json")
    for setting in MEANINGS[source.name]:
        one, two = (_setting(each, setting) for each in (theirs, ours))
        if one != two:
            raise InputError(f"{checkpoint} was trained with {setting}={one}, not {two}; set {source.name}.{setting}.")
    return load_weights(module, checkpoint)


def _setting(settings: dict[str, Any], place: str) -> Any:
    """Return a setting by its place, None where a run was begun before there was one."""
    value: Any = settings
    for part in place.split("."):
        value = None if value is None else value.get(part)
    return value


def latents_record(codec: Codec, cases: Dataset, latents: Latents, multiple: int = 1) -> dict[str, Any]:
    """Return what a record of any stage that learns latents says of where they come from, once all fit together.

    Args:
        codec: the autoencoder.
        cases: the training set.
        latents: of the cases, in the same order.
        multiple: latent voxels per axis that the stage's network takes at a time.

    Raises:
        InputError: cases on different grids, or on one that does not suit.
    """
    grid = cases[0].grid
    for index, case_id in enumerate(cases.case_ids):
        if tuple(n * codec.compression for n in latents.shape(index)) != grid.shape:
            raise InputError(f"case {case_id} is not on a grid of {grid.shape} as {cases.case_ids[0]} is; run prepare.")
    step = codec.compression * multiple
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
