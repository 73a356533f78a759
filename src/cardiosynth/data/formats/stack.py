"""Frames of one series become a volume: sorted along their normal, checked, put in space.

DICOM's axes point Left, Posterior and Superior; ours point Right, Anterior and Superior, so the first two rows of an
affine change sign. The third column of the affine is the step from slice to slice as the positions say, not the normal:
with a tilted gantry the two differ, and the affine is sheared, as the scan was.
"""

from collections.abc import Sequence

import numpy as np

from cardiosynth.core.errors import InputError
from cardiosynth.data.formats.dicom import MOMENTS, Frame, read_voxels
from cardiosynth.data.formats.volume import Volume, as_image, upright

SAME_PLACE_MM = 1e-2
"""Slices closer than this lie at one place."""
UNEVEN = 0.1
"""Positions off an even grid by more than this share of the step (scanners round them to a hundredth or so)."""
GAP = 1.5
"""A step this many times the usual one has lost slices in between."""
TILTED_DEGREES = 0.1
"""A smaller angle between step and normal is rounding."""


def read_stack(frames: Sequence[Frame], name: str) -> Volume:
    """Read the frames of one volume, in any order.

    Args:
        frames: at least one; frames of one patient, orientation and voxel size at places of their own.
        name: what to call them in a message.

    Returns:
        int16 where every value is a whole number that int16 holds, else float32; (1, X, Y) for a single frame. The
        fact ``tilt_degrees`` is the angle between the step from slice to slice and the normal.

    Raises:
        InputError: frames that make no volume, or a file that cannot be read.
    """
    ordered, affine = arranged(frames, name)
    values = _voxels(ordered)
    values = values.transpose(2, 1, 0) if len(ordered) > 1 else values[0].T
    volume = as_image(upright(values, affine, True, "ImagePositionPatient"), ordered[0].path)
    tilt = _tilt_degrees(affine, ordered)
    return Volume(volume.array, volume.affine, facts={**volume.facts, "tilt_degrees": round(tilt, 3)})


def arranged(frames: Sequence[Frame], name: str) -> tuple[list[Frame], np.ndarray]:
    """Return the frames sorted along their normal, and the (4, 4) affine from (column, row, slice) to RAS+ mm.

    Raises:
        InputError: naming ``name`` and why the frames make no volume.
    """
    _check_alike(frames, name)
    distances = distances_mm(frames)
    order = np.argsort(distances, kind="stable")
    ordered, distances = [frames[i] for i in order], distances[order]
    _check_steps(ordered, distances, name)
    return ordered, _affine(ordered)


def distances_mm(frames: Sequence[Frame]) -> np.ndarray:
    """Return how far along the first frame's normal each frame lies, (n,)."""
    return np.array([frame.position_mm for frame in frames]) @ frames[0].normal


def num_places(frames: Sequence[Frame]) -> int:
    """Return at how many places along the normal there are frames."""
    return int(_places(frames).max()) + 1


def separated(frames: Sequence[Frame]) -> list[tuple[str, list[Frame]]]:
    """Divide frames that lie at the same places, such as several cardiac phases, into one stack per moment.

    Every stack has one frame at every place. Where the values agree between places they tell the moments apart;
    a trigger time that differs a little from place to place orders them: the earliest of each place is moment 1.

    Returns:
        For each stack what it is, in words (``cardiac phase 75``), and its frames, in ascending order. One stack
        without words where the frames lie at places of their own, or where nothing in the headers tells them apart.
    """
    places = _places(frames)
    if places.max() + 1 == len(frames):
        return [("", list(frames))]
    told = [(words, [dict(frame.moments).get(keyword) for frame in frames]) for keyword, words in MOMENTS.items()]
    told = [(words, values) for words, values in told if None not in values]
    ranked = [(f"{words} rank", _ranks(values, places)) for words, values in told]
    for words, moments in [*told, *ranked]:
        if stacks := _stacks(frames, moments, places):
            return [(f"{words} {_in_words(moment)}", stack) for moment, stack in stacks]
    return [("", list(frames))]


def _places(frames: Sequence[Frame]) -> np.ndarray:
    """Return the number of each frame's place along the normal, (n,), from 0."""
    distances = distances_mm(frames)
    order = np.argsort(distances, kind="stable")
    places = np.empty(len(frames), int)
    places[order] = np.r_[0, np.cumsum(np.diff(distances[order]) > SAME_PLACE_MM)]
    return places


def _ranks(values: Sequence[object], places: np.ndarray) -> list[float]:
    """Return for each frame how many of its place come before it, from 1; equal values have equal ranks."""
    earlier: dict[int, set[object]] = {}
    for value, place in zip(values, places, strict=True):
        earlier.setdefault(place, set()).add(value)
    ordered = {place: sorted(there, key=_rank) for place, there in earlier.items()}
    return [1.0 + ordered[place].index(value) for value, place in zip(values, places, strict=True)]


def _stacks(
    frames: Sequence[Frame], moments: Sequence[object], places: np.ndarray
) -> list[tuple[object, list[Frame]]] | None:
    """Return moment and frames in ascending order, None where a moment does not have one frame at every place."""
    stacks: dict[object, list[int]] = {}
    for index, moment in enumerate(moments):
        stacks.setdefault(moment, []).append(index)
    if any(sorted(places[stack]) != list(range(places.max() + 1)) for stack in stacks.values()):
        return None
    return [(moment, [frames[i] for i in stacks[moment]]) for moment in sorted(stacks, key=_rank)]


def _rank(value: object) -> tuple[float, str]:
    return (value, "") if isinstance(value, float) else (0.0, str(value))


def _in_words(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "/".join(value) if isinstance(value, tuple) else str(value)


def _check_alike(frames: Sequence[Frame], name: str) -> None:
    first = frames[0]
    mixed = {
        "patients": lambda f: f.header.patient == first.header.patient,
        "studies": lambda f: f.header.study == first.header.study,
        "matrix sizes": lambda f: f.shape == first.shape,
        "pixel spacings": lambda f: np.allclose(f.spacing_mm, first.spacing_mm, rtol=1e-3),
        "orientations": lambda f: np.allclose(f.orientation, first.orientation, atol=1e-3),
    }
    for what, agrees in mixed.items():
        others = [frame for frame in frames if not agrees(frame)]
        if others:
            raise InputError(
                f"{name} mixes {what}: {len(others)} of {len(frames)} slices differ from {first.path.name}, e.g. "
                f"{others[0].path}; move them to a folder of their own and give them a series of their own."
            )
    photometric = first.header.photometric
    if photometric != "MONOCHROME2":
        raise InputError(
            f"{name} is {photometric}, where it is not certain that greater values are brighter; export it as "
            "MONOCHROME2."
        )
    if first.header.modality == "CT" and first.header.rescale_type not in ("", "HU", "US"):
        raise InputError(f"{name} holds '{first.header.rescale_type}', not HU; choose a series in HU.")


def _check_steps(ordered: Sequence[Frame], distances: np.ndarray, name: str) -> None:
    if len(ordered) == 1:
        return
    steps = np.diff(distances)
    if steps.min() <= SAME_PLACE_MM:
        count = int((steps <= SAME_PLACE_MM).sum())
        at = int(steps.argmin())
        raise InputError(
            f"{name} has {count} slices at the place of another, e.g. {ordered[at].path} and {ordered[at + 1].path}, "
            "and nothing in the headers tells them apart (phase, time, acquisition); keep one of each."
        )
    usual = float(np.median(steps))
    if steps.max() > GAP * usual:
        at = int(steps.argmax())
        missing = sum(round(step / usual) - 1 for step in steps if step > GAP * usual)
        raise InputError(
            f"{name} has a gap, {missing} slices are missing: {ordered[at].path} and {ordered[at + 1].path} are "
            f"{steps[at]:g} mm apart where {usual:g} mm is usual; copy the series again, or remove one side of the gap."
        )
    positions = np.array([frame.position_mm for frame in ordered])
    even = np.linspace(positions[0], positions[-1], len(positions))
    off = np.linalg.norm(positions - even, axis=1)
    if off.max() > UNEVEN * usual:
        at = int(off.argmax())
        raise InputError(
            f"{name} is unevenly spaced: {ordered[at].path} lies {off[at]:.2f} mm off an even grid of {usual:g} mm; "
            "have it reconstructed at even steps."
        )


def _voxels(ordered: Sequence[Frame]) -> np.ndarray:
    """Return the values (slices, rows, columns), int16 as long as they are whole numbers that fit, else float32."""
    values = np.empty((len(ordered), *ordered[0].shape), np.int16)
    for index, frame in enumerate(ordered):
        one = read_voxels(frame)
        if values.dtype == np.int16 and (one.dtype.kind == "f" or one.min() < -32768 or one.max() > 32767):
            values = values.astype(np.float32)
        values[index] = one
    return values


def _affine(ordered: Sequence[Frame]) -> np.ndarray:
    first, last = ordered[0], ordered[-1]
    row_mm, column_mm = first.spacing_mm
    if len(ordered) > 1:
        step = (np.array(last.position_mm) - first.position_mm) / (len(ordered) - 1)
    else:
        step = first.normal * float(dict(first.header.scanner).get("SliceThickness", 0) or 1)
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * column_mm
    affine[:3, 1] = np.array(first.orientation[3:]) * row_mm
    affine[:3, 2] = step
    affine[:3, 3] = first.position_mm
    if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{first.path}: its orientation or voxel size is not usable; export the series again.")
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _tilt_degrees(affine: np.ndarray, ordered: Sequence[Frame]) -> float:
    step = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    angle = float(np.degrees(np.arccos(min(1.0, abs(float(step @ (ordered[0].normal * (-1, -1, 1))))))))
    return angle if angle > TILTED_DEGREES else 0.0
