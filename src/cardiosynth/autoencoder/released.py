"""MAISI's released CT autoencoder, as our checkpoint."""

from pathlib import Path
from typing import Any

from cardiosynth import __version__
from cardiosynth.autoencoder.networks import AutoencoderSettings, MaisiAutoencoder
from cardiosynth.autoencoder.task import STAGE, AutoencoderStage
from cardiosynth.core.intensity import IntensityScale, Window
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.store import file_sha256, save_checkpoint
from cardiosynth.training.released import read_released

NETWORK = AutoencoderSettings(
    kind="maisi", latent_channels=4, compression=4, channels=(64, 128, 256), num_res_blocks=(2, 2, 2), norm_groups=32
)
"""20.945 million parameters."""
INTENSITY = IntensityScale(window=Window(low=-1000.0, high=1000.0))
"""What it sees as 0 and 1; calcium and stents beyond 1000 HU are cut."""
KEY = "autoencoder_state_dict"
"""Name of the weights where the file holds more."""
RELEASED_STEP = 0
"""Optimizer steps that we have taken on released weights."""


def import_autoencoder(
    file: Path, run: Path, licence: str, labels: LabelTable, network: AutoencoderSettings = NETWORK
) -> Path:
    """Write released weights as the autoencoder of ``run`` and return the checkpoint.

    Args:
        file: see :func:`read_released`.
        run: gets ``autoencoder/step-0000000``.
        licence: of the weights.
        labels: of the masks that come with it; the autoencoder itself has seen none.
        network: its size.

    Raises:
        InputError: the file cannot be read, or a tensor is missing, unknown or of another shape.
    """
    weights, _ = read_released(file, KEY)
    autoencoder = MaisiAutoencoder(network)
    autoencoder.load_released(weights, file)
    record = {
        "stage": STAGE,
        "settings": AutoencoderStage(network=network).model_dump(mode="json"),
        "intensity": INTENSITY.model_dump(mode="json"),
        "labels": labels.model_dump(mode="json"),
        **released_facts(file, licence),
    }
    return save_checkpoint(run / STAGE, RELEASED_STEP, autoencoder.state_dict(), {}, record)


def released_facts(file: Path, licence: str) -> dict[str, Any]:
    """Return what every record of released weights says: ``released`` (file name and hash), ``licences``, no cases."""
    return {
        "released": {"file": file.name, "sha256": file_sha256(file)},
        # MAISI's volumes were resized to many shapes and voxel sizes.
        "grid": {"shape": None, "spacing_mm": None},
        "cases": None,
        "licences": [licence],
        "init": None,
        "code_version": __version__,
    }
