"""Cases that adversarial peers learn in seconds, and their smallest sizes."""

from pathlib import Path

import numpy as np
import torch

from cardiosynth.baselines import cycle_gan, dcgan, ha_gan, pix2pix, spade
from cardiosynth.baselines.adversarial import AdversarialGenerator, AdversarialStage
from cardiosynth.baselines.method import Method, Terms
from cardiosynth.core.case import Case
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.random import numpy_generator
from cardiosynth.data.dataset import Dataset, write_dataset

SHAPES: dict[str, tuple[int, ...]] = {
    "spade": (24, 24), "pix2pix-3d": (16, 16, 16), "dcgan": (16, 16), "cyclegan": (16, 16), "ha-gan": (32, 32, 32),
}  # fmt: skip
"""The smallest grids that the tiny sizes take."""
METHODS: dict[str, Method] = {
    module.METHOD.name: module.METHOD for module in (spade, pix2pix, dcgan, cycle_gan, ha_gan)
}


def box(index: int, shape: tuple[int, ...], **changes) -> Case:
    """Return a case with a bright ventricle low or high along the first axis, and lung at that axis's end."""
    mask, side = np.zeros((1, *shape), np.uint8), shape[0]
    start = side // 8 + (index % 2) * side // 2
    mask[(0, slice(start, start + side // 4), *(slice(n // 4, 3 * n // 4) for n in shape[1:]))] = 4
    mask[0, -side // 8 :] = 9
    noise = numpy_generator(0, "box", index).normal(0, 5, mask.shape)
    image = (np.where(mask == 4, 400, np.where(mask == 9, -500, 0)) + noise).astype(np.int16)
    values = {
        "case_id": f"box-{index}", "image": image, "mask": mask, "affine": np.diag([2.0, 2, 2, 1]), "origin": "phantom",
        "provenance": {"licence": "CC0-1.0"},
    }  # fmt: skip
    return Case(**{**values, **changes})


def boxes(root: Path, shape: tuple[int, ...], count: int = 2) -> Dataset:
    """Write and open a data set of boxes."""
    return write_dataset((box(index, shape) for index in range(count)), root)


def stage_of(name: str, **training) -> AdversarialStage:
    """Return a method's tiny stage on its smallest grid."""
    built = METHODS[name].build("tiny", Terms(shape=SHAPES[name], intensity=IntensityScale()))
    assert isinstance(built, AdversarialGenerator)
    changed = built.stage.training.model_copy(update={"checkpoint_every": 1, "log_every": 1, **training})
    return built.stage.model_copy(update={"training": changed})


def signed(cases: Dataset) -> torch.Tensor:
    """Return the images in [-1, 1]."""
    images = np.stack([case.required_image() for case in cases]).astype(np.float32)
    return torch.from_numpy(2 * IntensityScale().window.to_model(images) - 1)


def mean_error_hu(generator: AdversarialGenerator, cases: Dataset) -> float:
    """Return the mean absolute error of what is made for the masks of ``cases``."""
    made = [generator.generate(case, case, 0).required_image().astype(np.float32) for case in cases]
    pairs = zip(made, cases, strict=True)
    return float(np.mean([np.abs(image - case.required_image()).mean() for image, case in pairs]))


def histogram_distance_hu(generator: AdversarialGenerator, cases: Dataset, seeds: int = 4) -> float:
    """Return the mean distance of sorted intensities (Wasserstein's of order 1) of images made and images given."""
    made = [generator.generate(case, case, seed).required_image() for seed in range(seeds) for case in cases]
    given = [case.required_image() for case in cases] * seeds
    ours, theirs = (np.sort(np.concatenate([x.ravel() for x in images]).astype(float)) for images in (made, given))
    return float(np.abs(ours - theirs).mean())
