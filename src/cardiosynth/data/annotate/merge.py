"""Masks of several origins painted into one, structure by structure, from the lowest rank to the highest.

The rank of a structure is looked up by its name. Where two structures claim a voxel the higher one has it, and the
voxels that the lower one lost are counted. Structures of one name are united.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import Role, normalized_name
from cardiosynth.core.volume import Grid, resample_mask
from cardiosynth.data.formats.volume import Volume

Ranking = tuple[tuple[str, ...], ...]
"""Names of structures, lowest level first; on one level whoever is painted later has the voxel."""

OTHER: Mapping[Role, str] = {"surrounding": "other surroundings", "target": "other targets"}
"""What stands in a ranking for every structure of a role that it does not name."""

RANKING: Ranking = (
    ("body_wall", "mediastinal_fat", "mediastinum", "thoracic_cavity", "abdominal_cavity"),
    (OTHER["surrounding"],),
    ("heart", "pericardium"),
    ("aorta", "ascending_aorta", "descending_aorta"),
    (
        "left_atrium", "left_ventricle", "right_atrium", "right_ventricle", "left_ventricular_myocardium",
        "pulmonary_artery", OTHER["target"],
    ),
    ("coronary_artery", "left_coronary_artery", "right_coronary_artery"),
)  # fmt: skip
"""Lowest first. What fills space lies below what is drawn in it: the body's rest, organs and bones, what remains of
the heart, the aorta, the chambers with the pulmonary artery, the coronary arteries."""


def checked_ranking(levels: Ranking) -> Ranking:
    """Return ``levels`` with the names as label tables spell them.

    Raises:
        ValueError: a name stands in it twice, or it does not say where the structures belong that it does not name.
    """
    ranking = tuple(tuple(x if x in OTHER.values() else normalized_name(x) for x in level) for level in levels)
    double = sorted(name for name, count in Counter(name for level in ranking for name in level).items() if count > 1)
    if double:
        raise ValueError(f"{', '.join(double)} stands in it more than once")
    missing = [f"'{word}'" for word in OTHER.values() if not any(word in level for level in ranking)]
    if missing:
        raise ValueError(f"it does not say where {' and '.join(missing)} belong")
    return ranking


def level_of(name: str, role: Role, ranking: Ranking) -> int:
    """Return the rank of a structure, 0 for the lowest."""
    for wanted in (name, OTHER[role]):
        for index, level in enumerate(ranking):
            if wanted in level:
                return index
    raise AssertionError(name)


@dataclass(frozen=True)
class Piece:
    """One label map that takes part.

    Attributes:
        provider: who gives it.
        names: its codes and what they are called in the result; several codes may share a name, others are left out.
        load: reads it.
    """

    provider: str
    names: Mapping[int, str]
    load: Callable[[], Volume]


@dataclass
class Merged:
    """A mask painted from several.

    Attributes:
        mask: (1, *grid) uint8.
        voxels: provider -> structure -> voxels that it claimed.
        overwritten: (lower, higher) -> voxels that the lower structure lost to the higher.
        resampled: providers some of whose masks stood on another grid.
    """

    mask: np.ndarray
    voxels: dict[str, Counter[str]] = field(default_factory=dict)
    overwritten: Counter[tuple[str, str]] = field(default_factory=Counter)
    resampled: set[str] = field(default_factory=set)


def merge(pieces: Sequence[Piece], grid: Grid, codes: Mapping[str, int], level: Callable[[str], int]) -> Merged:
    """Paint ``pieces`` onto one grid.

    Args:
        pieces: what is painted; on one level a later piece has the voxel.
        grid: of the image. A piece on another is resampled label by label.
        codes: name -> code in the result, for every name that the pieces use.
        level: rank of a structure by its name.

    Raises:
        InputError: a piece cannot be read or has another number of axes.
    """
    merged = Merged(np.zeros((1, *grid.shape), np.uint8))
    strokes = sorted({(level(name), index) for index, piece in enumerate(pieces) for name in piece.names.values()})
    times = Counter(index for _, index in strokes)
    kept: dict[int, np.ndarray] = {}  # of pieces that are needed on several levels
    for rank, index in strokes:
        piece = pieces[index]
        mask = kept.pop(index) if index in kept else _on_grid(piece, grid, merged)
        times[index] -= 1
        if times[index]:
            kept[index] = mask
        for name in dict.fromkeys(name for name in piece.names.values() if level(name) == rank):
            own = [code for code, called in piece.names.items() if called == name]
            _paint(merged, np.isin(mask, np.array(own, np.uint8)), piece.provider, name, codes)
    return merged


def _on_grid(piece: Piece, grid: Grid, merged: Merged) -> np.ndarray:
    volume = piece.load()
    if len(volume.grid.shape) != len(grid.shape):
        raise InputError(
            f"{piece.provider} gives a mask of {len(volume.grid.shape)} axes for an image of {len(grid.shape)}; give "
            "slices for slices and volumes for volumes."
        )
    if volume.grid.same_as(grid):
        return volume.array
    merged.resampled.add(piece.provider)
    return resample_mask(volume.array, volume.grid, grid)


def _paint(merged: Merged, region: np.ndarray, provider: str, name: str, codes: Mapping[str, int]) -> None:
    names = {code: name for name, code in codes.items()}
    lost = np.bincount(merged.mask[region], minlength=256)
    merged.voxels.setdefault(provider, Counter())[name] += int(lost.sum())
    for code in np.flatnonzero(lost[1:]) + 1:
        if code != codes[name]:
            merged.overwritten[names[int(code)], name] += int(lost[code])
    merged.mask[region] = codes[name]
