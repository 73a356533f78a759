"""A tree of DICOM files as a scanner, an archive or TCIA gives it: any folders, any file names.

Files are grouped by the series they name. Of every study the series with the most slices is taken that is CT in axial
slices (or MR in any), the others are listed with the reason. There are no masks; `annotate` makes them. Licence,
number of cases and grid are those of the archive; axes, spacing and gantry tilt are kept as the positions say.
Slices at the same places (cardiac phases, repeated acquisitions) become one case each where the headers tell them
apart. What makes no volume is refused when its turn comes, with the mend: mixed patients, studies, orientations or
pixel spacings in one series, gaps, slices at the place of another.

Known defects of such trees: localizers and dose reports among the series, padding beyond air (replaced by air), exact
copies of files (passed over), one patient number for all patients after a careless removal of identities (then name
the cases by folder). Cases are called ``PATIENT-sSERIES``, both hashes, with ``-t1``, ``-t2`` where a series holds
several stacks; or ``FOLDER-sSERIES`` by the folder below the root. A hash of a short number can be guessed by trying
all numbers: it is slow on purpose, but a pseudonym, not anonymity.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from cardiosynth.core.case import Case, IntensityUnit
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.intensity import why_not_hu
from cardiosynth.core.progress import say, track
from cardiosynth.core.store import fingerprint
from cardiosynth.data.description import unit_named
from cardiosynth.data.formats.dicom import Frame, Header, pydicom_package, read_frames
from cardiosynth.data.formats.stack import num_places, read_stack, separated
from cardiosynth.data.stream import CaseStream

Names = Literal["pseudonym", "folder"]
MODALITIES: dict[str, IntensityUnit] = {"CT": "hu", "MR": "mr"}
LEAST_SLICES = {"CT": 16, "MR": 5}
"""Fewer slices hold no heart: a localizer, a single view."""
AXIAL = 0.7071
"""A normal closer to the body's long axis than to any other direction, as a cosine; a tilted gantry stays axial."""

ACQUISITION = (
    "Manufacturer",
    "ManufacturerModelName",
    "ConvolutionKernel",
    "KVP",
    "ProtocolName",
    "MagneticFieldStrength",
)
"""Scans that agree in these look alike: templates of the same acquisition are found by them."""


@dataclass(frozen=True)
class Series:
    """One series of a tree.

    Attributes:
        uid: its unique identifier.
        frames: its slices, each once.
        reason: why it is passed over, empty where it is taken.
    """

    uid: str
    frames: Sequence[Frame]
    reason: str = ""

    @property
    def header(self) -> Header:
        """What its first slice says of itself."""
        return self.frames[0].header

    def __str__(self) -> str:
        return f"series {series_number(self.uid)} in {self.frames[0].path.parent} ({len(self.frames)} slices)"


def dicom(
    root: Path,
    intensity_unit: str | None = None,
    licence: str = "",
    every_series: bool = False,
    names: str = "pseudonym",
) -> CaseStream:
    """Return the volumes of a tree, read one by one.

    Args:
        root: the tree.
        intensity_unit: ``hu`` for CT, ``mr`` for MR; None takes CT where there is any.
        licence: under which terms the images stand; recorded with every case.
        every_series: take every series that fits, not the one with the most slices of each study.
        names: what cases are called by, ``pseudonym`` (a hash of the patient's number) or ``folder``.

    Raises:
        InputError: no such folder, no series that can be used, pydicom is missing, or an unknown unit or naming.
    """
    root = Path(root)
    if names not in ("pseudonym", "folder"):
        raise InputError(f"cases cannot be named by '{names}'" + suggest(names, ["pseudonym", "folder"]))
    found = survey(root, intensity_unit, every_series)
    taken = [series for series in found if not series.reason]
    for series in found:
        if series.reason:
            say(f"{series}: passed over, {series.reason}.")
    if not taken:
        raise InputError(f"{root}: none of its {len(found)} series can be used; the reasons stand above.")
    _warn_of_one_patient(root, taken, names)
    readers = {}
    for series in taken:
        readers |= _readers(root, series, licence, "folder" if names == "folder" else "pseudonym")
    return CaseStream(readers)


def survey(root: Path, intensity_unit: str | None = None, every_series: bool = False) -> list[Series]:
    """Return every series of a tree, those that `dicom` takes without a ``reason``.

    Raises:
        InputError: no such folder, no DICOM image in it, pydicom is missing, or an unknown unit.
    """
    unit = unit_named(intensity_unit) if intensity_unit else None
    if unit == "unknown":
        raise InputError("the unit of DICOM images is hu (CT) or mr (MR); give one of them.")
    frames = _tree(Path(root))
    grouped: dict[str, list[Frame]] = {}
    for frame in frames:
        grouped.setdefault(frame.header.series, []).append(frame)
    series = [Series(uid, grouped[uid]) for uid in sorted(grouped)]
    if unit is None:
        usable = {MODALITIES[s.header.modality] for s in series if not _unfit(s, None)}
        unit = "mr" if usable == {"mr"} else "hu"
    series = [replace(s, reason=_unfit(s, unit)) for s in series]
    return series if every_series else _largest_of_each_study(series)


def _tree(root: Path) -> list[Frame]:
    """Return the frames of all images below ``root``, each once, and tell what was passed over."""
    pydicom_package()
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the folder that holds the DICOM files.")
    paths = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    headers: dict[Header, Header] = {}
    frames: dict[tuple[str, int], Frame] = {}
    reasons: dict[str, list[Path]] = {}
    for path in track(paths, "headers", len(paths)):
        found, reason = read_frames(path)
        for frame in found:
            if (frame.instance, frame.index) in frames:
                reason = "a copy of another"
                continue
            header = headers.setdefault(frame.header, frame.header)
            frames[frame.instance, frame.index] = replace(frame, header=header)
        if reason:
            reasons.setdefault(reason, []).append(path)
    for reason, passed in sorted(reasons.items()):
        say(f"{root}: {len(passed)} files passed over, {reason}, e.g. {passed[0].relative_to(root)}.")
    if not frames:
        raise InputError(f"{root} holds no DICOM image; give the folder that holds the files.")
    return list(frames.values())


def _unfit(series: Series, unit: IntensityUnit | None) -> str:
    """Return why a series is no volume of this unit (None: of any), an empty text where it is one."""
    header, places = series.header, num_places(series.frames)
    if header.modality not in MODALITIES:
        return f"its modality is {header.modality}"
    if unit and MODALITIES[header.modality] != unit:
        return f"its modality is {header.modality}; state the unit {MODALITIES[header.modality]} for it"
    if "LOCALIZER" in header.image_type:
        return "it is a localizer"
    if places < LEAST_SLICES[header.modality]:
        return f"it has slices at {places} places, fewer than {LEAST_SLICES[header.modality]}"
    if header.modality == "CT" and abs(series.frames[0].normal[2]) < AXIAL:
        return "it is not axial"
    return ""


def _largest_of_each_study(series: list[Series]) -> list[Series]:
    best: dict[str, Series] = {}
    for one in series:
        there = best.get(one.header.study)
        if not one.reason and (there is None or num_places(one.frames) > num_places(there.frames)):
            best[one.header.study] = one
    return [
        one
        if one.reason or best[one.header.study] is one
        else replace(one, reason=f"series {series_number(best[one.header.study].uid)} of its study has as many or more")
        for one in series
    ]


def _warn_of_one_patient(root: Path, taken: Sequence[Series], names: Names | str) -> None:
    studies = {series.header.study for series in taken}
    patients = {series.header.patient for series in taken}
    if names == "pseudonym" and len(patients) == 1 and len(studies) > 1:
        say(f"{root}: {len(studies)} studies give one patient number; if they are of several, name cases by folder.")


def _readers(root: Path, series: Series, licence: str, names: Names) -> dict[str, Any]:
    stacks = separated(series.frames)
    owner = _owner(root, series, names)
    facts = _facts(series, owner, licence)
    case_id = f"{owner}-s{series_number(series.uid)}"
    if len(stacks) == 1:
        return {case_id: partial(_read, case_id, stacks[0][1], str(series), facts)}
    say(f"{series}: {len(stacks)} stacks at the same places become a case each, by {stacks[0][0].rsplit(' ', 1)[0]}.")
    readers = {}
    for number, (moment, frames) in enumerate(stacks, start=1):
        name = f"{case_id}-t{number}"
        readers[name] = partial(_read, name, frames, f"{series}, {moment}", {**facts, "moment": moment})
    return readers


def _owner(root: Path, series: Series, names: Names) -> str:
    if names == "pseudonym":
        return pseudonym(series.header.patient)
    below = series.frames[0].path.relative_to(root).parts
    return re.sub(r"[^\w.-]+", "-", below[0] if len(below) > 1 else root.name)


@cache
def pseudonym(patient: str) -> str:
    """Return the name that stands for a patient: equal for equal numbers, slow to try out."""
    digest = hashlib.scrypt(patient.encode(), salt=b"cardiosynth patient", n=2**14, r=8, p=1, dklen=5)
    return f"P{digest.hex()}"


def series_number(uid: str) -> str:
    """Return the six digits that stand for a series."""
    return f"{int(hashlib.sha256(uid.encode()).hexdigest(), 16) % 10**6:06d}"


def _facts(series: Series, owner: str, licence: str) -> dict[str, Any]:
    """Return what is recorded of a series: nothing that names a patient, a place or a date."""
    header, scanner = series.header, dict(series.header.scanner)
    kernel = scanner.get("ConvolutionKernel", "")
    facts = {
        "source": "DICOM tree",
        "patient": owner,
        "series": fingerprint(series.uid),
        "acquisition": fingerprint([header.modality, *(scanner.get(key) for key in ACQUISITION)])[:8],
        "modality": header.modality,
        "manufacturer": scanner.get("Manufacturer", ""),
        "model": scanner.get("ManufacturerModelName", ""),
        "kernel": "/".join(kernel) if isinstance(kernel, tuple) else kernel,
        "kvp": scanner.get("KVP"),
        "slice_thickness_mm": scanner.get("SliceThickness"),
        "contrast_agent": "ContrastBolusAgent" in scanner,
    }
    return {**facts, **({"licence": licence} if licence else {})}


def _read(case_id: str, frames: Sequence[Frame], name: str, facts: dict[str, Any]) -> Case:
    volume = read_stack(frames, name)
    header = frames[0].header
    unit = MODALITIES[header.modality]
    if unit == "hu" and (reason := why_not_hu(volume.array)):
        raise InputError(f"{name}: {reason}; its rescale intercept is missing, export it again.")
    if tilt := volume.facts["tilt_degrees"]:
        say(f"{name}: the gantry was tilted by {tilt:.1f} degrees; the sheared grid is kept, `prepare` straightens it.")
        facts = {**facts, "gantry_tilt_degrees": tilt}
    stored_as = {key: volume.facts[key] for key in ("axis_codes", "affine_from", "sheared")}
    return Case(
        case_id=case_id,
        image=volume.array,
        affine=volume.affine,
        intensity_unit=unit,
        origin="synthetic" if header.synthetic else "real",
        provenance={**facts, "stored_as": stored_as},
    )
