"""Confidence maps beside nnU-Net's preprocessed cases: the same crop and grid as the image, one byte per voxel.

They lie in a folder of their own, ``<data_identifier>_confidence``, since nnU-Net takes every file beside its cases for
a case. What is kept is distrust, 1 - CM: nnU-Net fills up with zeros wherever it pads, and zero then means trust. Files
are NumPy's: every batch opens some and reads a window, which takes a third of the time that compressed files take.

The label of a voxel without any confidence must change nothing that is learned. So a voxel that it went into when
nnU-Net resampled the labels has no confidence either, and patches are centered on labels with some confidence only.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import blosc2  # pyright: ignore[reportMissingImports]
import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import (  # pyright: ignore[reportMissingImports]
    bounding_box_to_slice,
)
from batchgenerators.utilities.file_and_folder_operations import load_pickle  # pyright: ignore[reportMissingImports]
from jaxtyping import Float, Integer, UInt8
from nnunetv2.preprocessing.preprocessors.default_preprocessor import (  # pyright: ignore[reportMissingImports]
    DefaultPreprocessor,
)
from nnunetv2.training.dataloading.nnunet_dataset import (  # pyright: ignore[reportMissingImports]
    nnUNetDatasetBlosc2,
)
from nnunetv2.utilities.plans_handling.plans_handler import (  # pyright: ignore[reportMissingImports]
    ConfigurationManager,
    PlansManager,
)

from cardiosynth.core.store import whole_file

LEVELS = 255
"""Distrust 1 as a byte, which is how a dataset folder keeps confidence too."""
NO_LABEL = -2
"""For voxels that patches are not centered on; nnU-Net itself has -1, for what lies beyond the image."""


def sidecar_folder(preprocessed: Path) -> Path:
    """Return where the maps of the cases in ``preprocessed`` lie."""
    return preprocessed.with_name(f"{preprocessed.name}_confidence")


def sidecar(preprocessed: Path, case_id: str) -> Path:
    """Return the file of one case's map (1, x, y, z) in bytes, or where it would lie."""
    return sidecar_folder(preprocessed) / f"{case_id}_levels.npy"


def centers_file(preprocessed: Path, case_id: str) -> Path:
    """Return the file of the voxels that patches of one case may be centered on, class after class.

    Its first rows, one per class, begin with how many voxels the class has.
    """
    return sidecar_folder(preprocessed) / f"{case_id}_centers.npy"


def counts_file(preprocessed: Path, case_id: str) -> Path:
    """Return the file of how many voxels of one case's map have each level."""
    return sidecar_folder(preprocessed) / f"{case_id}_counts.npy"


def missing_sidecars(raw: Path, preprocessed: Path, file_ending: str) -> Iterator[tuple[str, Path]]:
    """Yield (case, map) for preprocessed cases whose map is not there yet, or older than the map or the case.

    Args:
        raw: the raw dataset's folder, with ``confidenceTr``.
        preprocessed: the folder of the cases.
        file_ending: of the raw files.
    """
    for case_id in sorted(nnUNetDatasetBlosc2.get_identifiers(str(preprocessed))):
        source, made = raw / "confidenceTr" / f"{case_id}{file_ending}", sidecar(preprocessed, case_id)
        parents = (source, preprocessed / f"{case_id}.pkl")
        if source.exists() and not (made.exists() and made.stat().st_mtime >= max(p.stat().st_mtime for p in parents)):
            yield case_id, source


def write_sidecar(
    source: Path, case_id: str, preprocessed: Path, plans: PlansManager, configuration: ConfigurationManager
) -> None:
    """Bring one confidence map onto the grid of its preprocessed case and write it.

    Args:
        source: the raw map, values in [0, 1].
        case_id: its case, preprocessed already.
        preprocessed: the folder of the cases.
        plans: as the case was preprocessed.
        configuration: likewise.
    """
    confidence, _ = plans.image_reader_writer_class().read_images([str(source)])
    properties = load_pickle(str(preprocessed / f"{case_id}.pkl"))
    distrust = 1 - np.clip(confidence.astype(np.float32), 0, 1)
    distrust = distrust.transpose([0, *(axis + 1 for axis in plans.transpose_forward)])
    distrust = distrust[(slice(None), *bounding_box_to_slice(properties["bbox_used_for_cropping"]))]
    image: Any = blosc2.open(urlpath=str(preprocessed / f"{case_id}.b2nd"), mode="r")
    spacing_mm = [properties["spacing"][axis] for axis in plans.transpose_forward]
    levels = _resampled(distrust, image.shape[1:], spacing_mm, configuration)
    segmentation: Any = blosc2.open(urlpath=str(preprocessed / f"{case_id}_seg.b2nd"), mode="r")
    centers = _centers(segmentation[:], levels, properties["class_locations"])
    _save(centers, centers_file(preprocessed, case_id))
    _save(np.bincount(levels.ravel(), minlength=LEVELS + 1), counts_file(preprocessed, case_id))
    _save(levels, sidecar(preprocessed, case_id))  # last, as the mark of all three


def _resampled(
    distrust: Float[np.ndarray, "1 x y z"],
    shape: tuple[int, ...],
    spacing_mm: list[float],
    configuration: ConfigurationManager,
) -> UInt8[np.ndarray, "1 a b c"]:
    """Return the map on a grid of ``shape``, as bytes; it is resampled as the plans have labels resampled."""
    wanted_mm = list(configuration.spacing)
    wanted_mm = spacing_mm[: len(spacing_mm) - len(wanted_mm)] + wanted_mm  # 2d keeps the spacing between slices
    both = np.concatenate((distrust, distrust >= 1)).astype(np.float32)
    resampled: Any = configuration.resampling_fn_seg
    linear, reached = resampled(both, shape, spacing_mm, wanted_mm, is_seg=False)
    return np.where(reached > 0, LEVELS, np.rint(np.clip(linear, 0, 1) * LEVELS)).astype(np.uint8)[None]


def _centers(
    segmentation: Integer[np.ndarray, "1 a b c"], levels: UInt8[np.ndarray, "1 a b c"], found: Mapping[Any, Any]
) -> Integer[np.ndarray, "_ 4"]:
    """Return what `centers_file` holds: what nnU-Net ``found``, unless there are voxels without confidence.

    It draws centers from all labels, so even those that are left when the rest is taken out depend on the rest.
    """
    if (levels == LEVELS).any():
        counting = np.where(levels < LEVELS, segmentation, NO_LABEL)
        found = DefaultPreprocessor._sample_foreground_locations(counting, list(found))
    parts = [np.asarray(part, np.int32).reshape(-1, segmentation.ndim) for part in found.values()]
    numbers = np.zeros((len(parts), segmentation.ndim), np.int32)
    numbers[:, 0] = [len(part) for part in parts]
    return np.concatenate([numbers, *parts])


def _save(array: np.ndarray, path: Path) -> None:
    with whole_file(path) as partial, partial.open("wb") as file:
        np.save(file, array)
