"""Confidence maps beside nnU-Net's preprocessed cases: the same crop and grid as the image, one byte per voxel.

They lie in a folder of their own, ``<data_identifier>_confidence``, since nnU-Net takes every file beside its cases for
a case. What is kept is distrust, 1 - CM: nnU-Net fills up with zeros wherever it pads, and zero then means trust.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blosc2  # pyright: ignore[reportMissingImports]
import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import (  # pyright: ignore[reportMissingImports]
    bounding_box_to_slice,
)
from batchgenerators.utilities.file_and_folder_operations import load_pickle  # pyright: ignore[reportMissingImports]
from jaxtyping import Float, UInt8
from nnunetv2.preprocessing.resampling.default_resampling import (  # pyright: ignore[reportMissingImports]
    resample_data_or_seg_to_shape,
)
from nnunetv2.training.dataloading.nnunet_dataset import (  # pyright: ignore[reportMissingImports]
    comp_blosc2_params,
    nnUNetDatasetBlosc2,
)
from nnunetv2.utilities.plans_handling.plans_handler import (  # pyright: ignore[reportMissingImports]
    ConfigurationManager,
    PlansManager,
)

from cardiosynth.core.store import whole_file

LEVELS = 255
"""Distrust 1 as a byte, which is how a dataset folder keeps confidence too."""
COUNTS = "voxels_per_level"


def sidecar_folder(preprocessed: Path) -> Path:
    """Return where the maps of the cases in ``preprocessed`` lie."""
    return preprocessed.with_name(f"{preprocessed.name}_confidence")


def sidecar(preprocessed: Path, case_id: str) -> Path:
    """Return the file of one case's map, or where it would lie."""
    return sidecar_folder(preprocessed) / f"{case_id}.b2nd"


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
    _store(
        _resampled(distrust, image.shape[1:], spacing_mm, configuration), sidecar(preprocessed, case_id), configuration
    )


def _resampled(
    distrust: Float[np.ndarray, "1 x y z"],
    shape: tuple[int, ...],
    spacing_mm: list[float],
    configuration: ConfigurationManager,
) -> UInt8[np.ndarray, "1 a b c"]:
    """Return the map on a grid of ``shape``, between voxels linearly, as bytes."""
    wanted_mm = list(configuration.spacing)
    wanted_mm = spacing_mm[: len(spacing_mm) - len(wanted_mm)] + wanted_mm  # 2d keeps the spacing between slices
    linear = resample_data_or_seg_to_shape(distrust, shape, spacing_mm, wanted_mm, is_seg=False, order=1, order_z=0)
    return np.rint(np.clip(linear, 0, 1) * LEVELS).astype(np.uint8)


def _store(levels: UInt8[np.ndarray, "1 a b c"], path: Path, configuration: ConfigurationManager) -> None:
    blocks, chunks = comp_blosc2_params(levels.shape, tuple(configuration.patch_size), levels.itemsize)
    with whole_file(path) as partial:
        whole: Any = np.ascontiguousarray(levels)
        stored: Any = blosc2.asarray(whole, urlpath=str(partial), chunks=chunks, blocks=blocks)
        stored.schunk.vlmeta[COUNTS] = np.bincount(levels.ravel(), minlength=LEVELS + 1).tolist()
