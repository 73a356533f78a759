"""Which source reads which kind of folder."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cardiosynth.core.errors import InputError, suggest
from cardiosynth.data.sources.acdc import acdc
from cardiosynth.data.sources.asoca import asoca
from cardiosynth.data.sources.dicom import dicom
from cardiosynth.data.sources.folder import folder
from cardiosynth.data.sources.hdf5 import hdf5
from cardiosynth.data.sources.hvsmr2 import hvsmr2
from cardiosynth.data.sources.imagealcapa import imagealcapa
from cardiosynth.data.sources.imagecas import imagecas
from cardiosynth.data.sources.imagechd import imagechd
from cardiosynth.data.sources.mmwhs import mmwhs
from cardiosynth.data.sources.nnunet import nnunet
from cardiosynth.data.sources.per_structure import per_structure
from cardiosynth.data.sources.slices import slices
from cardiosynth.data.stream import CaseStream


@dataclass(frozen=True)
class Source:
    """A kind of folder that `prepare` reads.

    Attributes:
        read: takes the folder and, by name, the arguments of ``options``; lists the cases without reading them.
        what: what the folder is, for people.
        options: those of ``--labels``, ``--unit`` and ``--licence`` that tell what the folder itself does not.
    """

    read: Callable[..., CaseStream]
    what: str
    options: tuple[str, ...] = ()


ALL = ("--labels", "--unit", "--licence")
ARGUMENTS = {"--labels": "labels", "--unit": "intensity_unit", "--licence": "licence"}
"""Option of the command line -> argument of a source's function."""

SOURCES: dict[str, Source] = {
    "folder": Source(folder, "pairs in images/ and labels/, or side by side; NIfTI or NRRD", ALL),
    "nnunet": Source(nnunet, "an nnU-Net raw folder", ("--unit",)),
    "per_structure": Source(per_structure, "CASE/ct.nii.gz with CASE/segmentations/STRUCTURE.nii.gz", ALL),
    "slices": Source(slices, "images/ and masks/ with PNG slices", ALL),
    "dicom": Source(dicom, "a tree of DICOM files", ("--unit", "--licence")),
    "dicom_by_folder": Source(
        partial(dicom, names="folder"), "the same, cases named by the first folder", ("--unit", "--licence")
    ),
    "hdf5": Source(hdf5, "CASE.h5 with the datasets image and label", ALL),
    "acdc": Source(acdc, "ACDC, short-axis MR"),
    "asoca": Source(asoca, "ASOCA, coronary CT"),
    "hvsmr2": Source(hvsmr2, "HVSMR-2.0, 3D MR of congenital heart disease"),
    "imagealcapa": Source(imagealcapa, "ImageALCAPA, CT", ("--labels",)),
    "imagecas": Source(imagecas, "ImageCAS, coronary CT"),
    "imagechd": Source(imagechd, "ImageCHD or CHD68, CT of congenital heart disease"),
    "mmwhs_ct": Source(partial(mmwhs, modality="ct"), "MM-WHS 2017, CT"),
    "mmwhs_mr": Source(partial(mmwhs, modality="mr"), "MM-WHS 2017, MR"),
}
"""Kinds of folders."""


def read_source(kind: str, root: Path, labels: Path | None, unit: str | None, licence: str = "") -> CaseStream:
    """Return the cases of a folder as downloaded, listed and not yet read.

    Raises:
        InputError: an unknown kind, an option that this kind does not take, or another folder than the kind wants.
    """
    if kind not in SOURCES:
        raise InputError(f"there is no kind of source '{kind}'" + suggest(kind, sorted(SOURCES)))
    given = {"--labels": labels, "--unit": unit, "--licence": licence}
    given = {option: value for option, value in given.items() if value}
    refused = sorted(given.keys() - set(SOURCES[kind].options))
    if refused:
        raise InputError(f"prepare {kind} finds in {root} what {refused[0]} would say; leave {refused[0]} out.")
    return SOURCES[kind].read(root, **{ARGUMENTS[option]: value for option, value in given.items()})
