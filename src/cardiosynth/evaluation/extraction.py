"""What of a case is compared between sets of cases: slices as a network sees them, and small pictures.

Cases come one by one, and what is kept of each is a few numbers per slice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pydantic
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.random import numpy_generator

AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""Plane -> axis that its slices are stacked along."""
VOLUME = "volume"
PICTURES, PLACES = "pictures", "places"
SLICES_AT_ONCE = 16


class SampleSettings(Settings):
    """How sets of cases are compared.

    Attributes:
        crop: ``image``, or ``heart``: the box of the target structures, widened by ``margin``.
        margin: share of the box's sides that is added at each end.
        most_samples: slices (or volumes) of a plane and dataset that are compared at most, the same number of every
            case, evenly spaced; of more cases than that, as many are drawn.
        shortest_side: voxels; slices with a shorter side, such as the long axis of a short-axis stack, are left out.
        picture_side: voxels along each axis of the pictures that nearest neighbors are looked up by.
        pairs: of images whose MS-SSIM is averaged for diversity.
        splits: random halves of the real cases that are compared with each other.
        neighbors: k of precision, recall, density and coverage.
        seed: of every draw.
    """

    crop: Literal["image", "heart"] = "image"
    margin: float = pydantic.Field(default=0.1, ge=0)
    most_samples: int = pydantic.Field(default=2000, ge=2)
    shortest_side: int = pydantic.Field(default=32, ge=11)
    picture_side: int = pydantic.Field(default=32, ge=2)
    pairs: int = pydantic.Field(default=100, ge=1)
    splits: int = pydantic.Field(default=10, ge=1)
    neighbors: int = pydantic.Field(default=5, ge=1)
    seed: int = 0

    @property
    def crop_in_words(self) -> str:
        """What of the images is seen."""
        if self.crop == "image":
            return "whole images"
        return f"the box of the target structures and {100 * self.margin:g} % more at each end"


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network that turns images into features.

    Attributes:
        name: what it is, e.g. ``segmenter``.
        fingerprint: of its weights.
        spatial_dims: 2 for slices of one plane after another, 3 for volumes.
        features: images in [0, 1] -> one row of features each. Images of a batch have one size.
        scale: which intensities it wants to be [0, 1]; None for those of the evaluation.
        reading: how it reads these images, in words; empty where it takes them as they are.
    """

    name: str
    fingerprint: str
    spatial_dims: Literal[2, 3]
    features: Callable[[Float[Tensor, "n 1 *grid"]], Float[Tensor, "n d"]]
    scale: IntensityScale | None = None
    reading: str = ""

    @property
    def title(self) -> str:
        """Name and fingerprint."""
        return f"{self.name} {self.fingerprint}"


Described = Mapping[str, np.ndarray]
"""What is kept of a case: rows of features by plane (or ``volume``), ``pictures`` (of axial slices where no other plane
is large enough, else of the volume), and ``places``: the slice of each picture, -1 for a volume."""


@dataclass(frozen=True, eq=False)
class View:
    """How every case of a comparison is seen.

    Attributes:
        scale: which intensities become [0, 1].
        extractor: of features; None for pictures alone.
        settings: how.
        planes: whose slices are seen, of every case alike; see :func:`planes_of`.
    """

    scale: IntensityScale
    extractor: Extractor | None
    settings: SampleSettings
    planes: tuple[str, ...]

    @property
    def flat(self) -> bool:
        """Whether the images are slices or stacks of them, rather than volumes."""
        return self.planes == ("axial",)


def describe(case: Case, view: View, per_case: int | None) -> Described:
    """Return what is compared of a case.

    Args:
        case: with an image, and a mask where the crop is the heart.
        view: how it is seen.
        per_case: slices per plane; None for all.
    """
    image = cropped(case, view.scale, view.settings)
    shown, places = _slices(image, AXES["axial"], per_case) if view.flat else (image[None, None], np.array([-1]))
    return {**_features(case, view, per_case), PICTURES: _pictures(shown, view.settings.picture_side), PLACES: places}


def _features(case: Case, view: View, per_case: int | None) -> Described:
    extractor = view.extractor
    if extractor is None:
        return {}
    image = cropped(case, extractor.scale or view.scale, view.settings)
    if extractor.spatial_dims == 2:
        return {plane: _rows(extractor, _slices(image, AXES[plane], per_case)[0]) for plane in view.planes}
    if image.ndim == 2:
        raise InputError(
            f"case {case.case_id} is a slice and {extractor.title} takes volumes; give a network for slices."
        )
    return {VOLUME: _rows(extractor, image[None, None])}


def cropped(case: Case, scale: IntensityScale, settings: SampleSettings) -> Float[np.ndarray, "*grid"]:
    """Return the part of a case's image that is compared, in [0, 1]."""
    image = case.required_image()
    # The window is that of the whole image, whatever is cut out.
    inside = scale.window_of(image).to_model(image.astype(np.float32))[0]
    box = None
    if settings.crop == "heart":
        targets = case.labels.only_targets(case.required_mask()[0]) > 0
        box = next(iter(ndimage.find_objects(targets.astype(np.uint8))), None)
    if box is None:
        return inside
    margins = [round(settings.margin * (side.stop - side.start)) for side in box]
    return inside[tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(box, margins, strict=True))]


def planes_of(shape: tuple[int, ...], settings: SampleSettings) -> tuple[str, ...]:
    """Return the planes of an image whose slices are large enough, the axial one at least."""
    if len(shape) == 2:
        return ("axial",)
    sides = {plane: min(n for i, n in enumerate(shape) if i != axis) for plane, axis in AXES.items()}
    return tuple(plane for plane in AXES if plane == "axial" or sides[plane] >= settings.shortest_side)


def _slices(image: np.ndarray, axis: int, per_case: int | None) -> tuple[Float[np.ndarray, "n 1 h w"], np.ndarray]:
    """Return slices along an axis, evenly spaced, and which they are."""
    if image.ndim == 2:
        return image[None, None], np.array([0])
    count = image.shape[axis]
    wanted = count if per_case is None else min(per_case, count)
    places = np.floor((np.arange(wanted) + 0.5) * count / wanted).astype(int)
    return np.moveaxis(np.take(image, places, axis), axis, 0)[:, None], places


def _rows(extractor: Extractor, images: Float[np.ndarray, "n 1 *grid"]) -> Float[np.ndarray, "n d"]:
    with torch.inference_mode():
        batches = torch.from_numpy(np.ascontiguousarray(images)).split(SLICES_AT_ONCE)
        return torch.cat([extractor.features(batch).float().cpu() for batch in batches]).numpy()


def _pictures(images: Float[np.ndarray, "n 1 *grid"], side: int) -> Float[np.ndarray, "n d"]:
    """Return small pictures as rows whose Euclidean distance is the root mean square difference of the pictures."""
    small = torch.nn.functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(images)), (side,) * (images.ndim - 2), mode="area"
    )
    rows = small.flatten(1).numpy()
    return rows / rows.shape[1] ** 0.5


def sampled(total: int, settings: SampleSettings) -> tuple[int, list[int]]:
    """Return how many slices each of ``total`` cases gives, and the numbers of the cases that give any."""
    if total <= settings.most_samples:
        return max(1, settings.most_samples // total), list(range(total))
    drawn = numpy_generator(settings.seed, "cases").choice(total, settings.most_samples, replace=False)
    return 1, sorted(drawn.tolist())
