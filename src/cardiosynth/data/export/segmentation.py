"""The mask of a case as DICOM-SEG: one binary segment per structure, with its name, color and code."""

import hashlib
import warnings
from typing import Any

import numpy as np

from cardiosynth import __version__
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import Label, relabel
from cardiosynth.data.export.nnunet import consecutive

SNOMED = {
    "coronary_artery": "CoronaryArtery",
    "coronary_arteries": "CoronaryArtery",
    "aorta": "Aorta",
    "ascending_aorta": "AscendingAorta",
    "descending_aorta": "DescendingAorta",
    "left_atrium": "LeftAtrium",
    "left_ventricle": "LeftVentricle",
    "right_atrium": "RightAtrium",
    "right_ventricle": "RightVentricle",
    "left_ventricular_myocardium": "LeftVentricleMyocardium",
    "pulmonary_artery": "PulmonaryArtery",
    "pulmonary_vein": "PulmonaryVein",
    "superior_vena_cava": "SuperiorVenaCava",
    "inferior_vena_cava": "InferiorVenaCava",
    "aortic_valve": "AorticValve",
    "mitral_valve": "MitralValve",
    "heart": "Heart",
    "lung": "Lung",
    "spine": "Spine",
    "liver": "Liver",
    "esophagus": "Esophagus",
    "stomach": "Stomach",
    "spleen": "Spleen",
    "trachea": "Trachea",
    "body_wall": "ChestWall",
}
"""Name in a label table -> pydicom's word for the SNOMED CT concept."""
SCHEME = "99CARDIOSYNTH"
"""Whose codes stand for structures that have no concept above."""


def segmentation(case: Case, slices: list[Any], planes: np.ndarray, instance_uid: str, series_uid: str) -> Any:
    """Return the DICOM-SEG of a case; segment numbers are those of the label table with gaps closed.

    Args:
        case: whose mask it is.
        slices: its image, as `image_series` writes it.
        planes: the mask's codes on those slices, (slices, rows, columns) uint8.
        instance_uid: unique identifier of the file.
        series_uid: unique identifier of its series.

    Raises:
        InputError: highdicom is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise InputError("DICOM-SEG needs the extra dicom; run: pip install 'cardiosynth[dicom]'") from error
    labels = consecutive(case.labels)
    numbers, _ = relabel(planes, case.labels, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on names it does not know; what it makes is tested
        made = highdicom.seg.Segmentation(
            source_images=slices,
            pixel_array=numbers,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(highdicom, label, case) for label in labels],
            series_instance_uid=series_uid,
            series_number=2,
            sop_instance_uid=instance_uid,
            instance_number=1,
            manufacturer="cardiosynth",
            manufacturer_model_name="cardiosynth",
            software_versions=__version__,
            device_serial_number="none",
            omit_empty_frames=bool(numbers.any()),
        )
    made.SyntheticData = slices[0].SyntheticData
    made.SeriesDescription = slices[0].SeriesDescription[:59] + " mask"
    return made


def _description(highdicom: Any, label: Label, case: Case) -> Any:
    how = "AUTOMATIC" if case.is_simulated else "SEMIAUTOMATIC"
    name = "cardiosynth" if case.is_simulated else "not recorded"
    family = _code(highdicom, "DCM", "ArtificialIntelligence")
    return highdicom.seg.SegmentDescription(
        segment_number=label.code,
        segment_label=label.title,
        segmented_property_category=_code(highdicom, "SCT", "AnatomicalStructure"),
        segmented_property_type=_concept(highdicom, label),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues(how),
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(name, family, __version__),
        display_color=highdicom.color.CIELabColor.from_rgb(*label.color),
    )


def _concept(highdicom: Any, label: Label) -> Any:
    if label.name in SNOMED:
        return _code(highdicom, "SCT", SNOMED[label.name])
    value = hashlib.sha256(label.name.encode()).hexdigest()[:12]
    return highdicom.sr.CodedConcept(value, SCHEME, label.title[:64])


def _code(highdicom: Any, scheme: str, keyword: str) -> Any:
    from pydicom.sr.codedict import codes

    code = getattr(getattr(codes, scheme), keyword)
    return highdicom.sr.CodedConcept(code.value, code.scheme_designator, code.meaning)
