"""Small cases and stages for the tests of the autoencoder."""

import numpy as np

from cardiosynth.autoencoder.losses import ReconstructionSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.core.case import Case
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.training.loop import TrainingSettings

SIZE = 16


def blob(index: int, with_mask: bool = True) -> Case:
    """Return a bright ventricle in fat with a one-voxel vessel beside it; patients differ in size."""
    x, y, z = np.meshgrid(*[np.arange(SIZE) - SIZE / 2] * 3, indexing="ij")
    mask = np.zeros((1, SIZE, SIZE, SIZE), np.uint8)
    mask[0][x**2 + y**2 + z**2 < (3 + index % 3) ** 2] = CARDIAC_CT.named("left_ventricle").code
    mask[0][(x == 6) & (y == 0)] = CARDIAC_CT.named("coronary_artery").code
    image = np.where(mask > 0, 350, -80).astype(np.int16)
    return Case(
        case_id=f"blob-{index}",
        image=image,
        mask=mask if with_mask else None,
        affine=np.eye(4),
        origin="phantom",
        provenance={"licence": "CC0-1.0"},
    )


def flat_blob(index: int) -> Case:
    """Return the middle slice of a blob."""
    case = blob(index)
    assert case.image is not None
    assert case.mask is not None
    middle = SIZE // 2
    return case.with_(case_id=f"flat-{index}", image=case.image[..., middle].copy(), mask=case.mask[..., middle].copy())


def tiny_stage(**changes) -> AutoencoderStage:
    """Return a stage that trains in a second."""
    values = {
        "network": AutoencoderSettings(channels=(8,), num_res_blocks=(1,), compression=2),
        "loss": ReconstructionSettings(),
        "crop": (8, 8, 8),
        "training": TrainingSettings(steps=3, batch_size=2, learning_rate=5e-3, precision="fp32", ema_decay=0.0),
    }
    return AutoencoderStage(**(values | changes))
