"""Small files in the layouts of published data sets, for the tests of the sources."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nrrd
import numpy as np

from cardiosynth.data.formats.nifti import write_nifti
from cardiosynth.data.sources.acdc import acdc
from cardiosynth.data.sources.asoca import asoca
from cardiosynth.data.sources.hvsmr2 import hvsmr2
from cardiosynth.data.sources.imagealcapa import imagealcapa
from cardiosynth.data.sources.imagecas import imagecas
from cardiosynth.data.sources.imagechd import imagechd
from cardiosynth.data.sources.mmwhs import mmwhs
from cardiosynth.data.stream import CaseStream

SHAPE = (6, 5, 4)
AFFINE = np.diag([-0.5, -0.5, 1.0, 1.0])


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Write (X, Y, Z) or (X, Y) as NIfTI or NRRD."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".nrrd":
        lps = np.diag([-1.0, -1, 1]) @ affine[:3]
        header = {"space": "left-posterior-superior", "space directions": lps[:, :3].T, "space origin": lps[:, 3]}
        nrrd.write(str(path), array, header, index_order="F")
    else:
        write_nifti(path, array[None], affine)
    return path


def image(path: Path, air: int = -1000, affine: np.ndarray = AFFINE) -> Path:
    """Write air with a little tissue."""
    array = np.full(SHAPE, air, np.int16)
    array[2:4, 1:3, 1] = air + 1050
    return write(path, array, affine)


def mask(path: Path, *codes: int, affine: np.ndarray = AFFINE) -> Path:
    """Write a mask with one voxel of each code."""
    array = np.zeros(SHAPE, np.uint16 if max(codes) > 255 else np.uint8)
    array[: len(codes), 2, 1] = codes
    return write(path, array, affine)


@dataclass(frozen=True)
class Layout:
    """A data set as downloaded.

    Attributes:
        source: reads it.
        names: where image and mask of case number i = 1, 2 lie.
        code: one that masks have.
        unexpected: one that no mask may have.
        air: stored value of air.
    """

    source: Callable[[Path], CaseStream]
    names: Callable[[int], tuple[str, str]]
    code: int = 1
    unexpected: int = 9
    air: int = -1000

    def pair(self, root: Path, number: int) -> tuple[Path, Path]:
        """Return where image and mask lie."""
        image_name, mask_name = self.names(number)
        return root / image_name, root / mask_name

    def write(self, root: Path) -> Path:
        """Write two cases."""
        for number in (1, 2):
            image_path, mask_path = self.pair(root, number)
            image(image_path, self.air)
            mask(mask_path, self.code)
        return root


LAYOUTS = {
    "imagecas": Layout(imagecas, lambda i: (f"1-200/{i}.img.nii.gz", f"1-200/{i}.label.nii.gz")),
    "imagecas, earlier": Layout(imagecas, lambda i: (f"1001697{i}/img.nii.gz", f"1001697{i}/label.nii.gz")),
    "imagechd": Layout(
        imagechd, lambda i: (f"set/ct_100{i}_image.nii.gz", f"set/ct_100{i}_label.nii.gz"), unexpected=300, air=24
    ),
    "imagealcapa": Layout(imagealcapa, lambda i: (f"{i}_image.nii.gz", f"{i}_label.nii.gz"), air=24),
    "asoca": Layout(asoca, lambda i: (f"Normal/CTCA/Normal_{i}.nrrd", f"Normal/Annotations/Normal_{i}.nrrd")),
    "mmwhs_ct": Layout(
        partial(mmwhs, modality="ct"),
        lambda i: (f"ct_train/ct_train_100{i}_image.nii.gz", f"ct_train/ct_train_100{i}_label.nii.gz"),
        code=205,
        unexpected=7,
    ),
    "mmwhs_mr": Layout(
        partial(mmwhs, modality="mr"),
        lambda i: (f"mr_train/mr_train_100{i}_image.nii.gz", f"mr_train/mr_train_100{i}_label.nii.gz"),
        code=850,
        unexpected=422,
        air=0,
    ),
    "hvsmr2": Layout(
        hvsmr2, lambda i: (f"cropped/pat{i}_cropped_norm.nii.gz", f"cropped/pat{i}_cropped_seg.nii.gz"), air=0
    ),
    "acdc": Layout(
        acdc,
        lambda i: (f"patient00{i}/patient00{i}_frame01.nii.gz", f"patient00{i}/patient00{i}_frame01_gt.nii.gz"),
        air=0,
    ),
}
"""Name of a layout -> how to write and read it."""
