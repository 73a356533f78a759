"""What the checkpoints of segmentation networks say of themselves, and where they lie in a run."""

from pathlib import Path
from typing import Any

from cardiosynth import __version__
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.store import latest_checkpoint, read_json
from cardiosynth.data.loader import CaseCache


def stage_folder(run: Path, stage: str) -> Path:
    """Return a stage's folder of a run, or ``run`` itself where it is one, a checkpoint or a file of weights."""
    return run / stage if (run / stage).is_dir() else run


def read_stage(run: Path, stage: str) -> tuple[Path, dict[str, Any]]:
    """Return the newest checkpoint of a stage and its record.

    Args:
        run: a run, the stage's folder, or one checkpoint.
        stage: its name.

    Raises:
        InputError: no checkpoint, or one of another stage.
    """
    checkpoint = latest_checkpoint(stage_folder(Path(run), stage))
    record = read_json(checkpoint / "record.json")
    if record.get("stage") != stage:
        raise InputError(
            f"{checkpoint} is a '{record.get('stage')}', not a {stage}; name a run with a trained {stage}."
        )
    return checkpoint, record


def training_record(
    stage: str, settings: Settings, cache: CaseCache, scale: IntensityScale, init: str | None
) -> dict[str, Any]:
    """Return what a trained network's checkpoint says of itself.

    Args:
        stage: its name.
        settings: how it is trained.
        cache: what it is trained on.
        scale: how it sees intensities.
        init: fingerprint of the weights that it started from.
    """
    return {
        "stage": stage,
        "settings": settings.model_dump(mode="json"),
        "labels": cache.labels.model_dump(mode="json"),
        "intensity": scale.model_dump(mode="json"),
        "cases": list(cache.case_ids),
        "licences": sorted({str(case.provenance.get("licence", "unknown")) for case in cache.cases}),
        "init": init,
        "code_version": __version__,
    }
