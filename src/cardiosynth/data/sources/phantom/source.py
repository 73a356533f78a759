"""The source: phantoms as Cases, by index."""

from collections.abc import Iterator, Sequence

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.volume import Grid, centered_grid
from cardiosynth.data.sources.phantom.patient import FIELD_OF_VIEW_MM, draw_patient
from cardiosynth.data.sources.phantom.protocol import draw_protocol
from cardiosynth.data.sources.phantom.render import render
from cardiosynth.data.sources.phantom.tidy import without_cut_off_pieces

MEAN_LESIONS = 1.5
LICENCE = "CC0-1.0"
"""Of the phantoms themselves (NOTICE): no patient is behind them, and what is trained on them inherits no terms."""


def phantoms(
    count: int,
    shape: Sequence[int],
    spacing_mm: float | Sequence[float] | None = None,
    protocols: int = 8,
    seed: int = 0,
    first: int = 0,
    first_protocol: int = 0,
    mean_lesions: float = MEAN_LESIONS,
) -> Iterator[Case]:
    """Yield ``count`` phantoms, patients ``first`` to ``first + count - 1``.

    Patient ``i`` is scanned with protocol ``first_protocol + i mod protocols``. Patients nobody has seen have
    another ``first``, protocols nobody has seen another ``first_protocol``.

    Args:
        count: how many, at least 1.
        shape: voxels to the right, to the front and to the head, at least 16 each.
        spacing_mm: voxel size, one number or one per axis; None fits a cube of 120 mm around the heart.
        protocols: how many acquisition protocols take turns, at least 1.
        seed: same seed, same bits.
        first: index of the first patient.
        first_protocol: index of the first protocol.
        mean_lesions: expected number of coronary plaques per patient, 0 for healthy vessels.

    Raises:
        InputError: a number that makes no phantom.
    """
    if count < 1:
        raise InputError(f"--cases {count} makes no phantom; give at least 1.")
    if protocols < 1:
        raise InputError(f"--protocols {protocols} is not possible; give at least 1.")
    _check(shape, spacing_mm, mean_lesions)
    return (
        phantom(i, shape, spacing_mm, first_protocol + i % protocols, seed, mean_lesions)
        for i in range(first, first + count)
    )


def phantom(
    index: int,
    shape: Sequence[int],
    spacing_mm: float | Sequence[float] | None = None,
    protocol: int = 0,
    seed: int = 0,
    mean_lesions: float = MEAN_LESIONS,
) -> Case:
    """Return patient ``index`` of ``seed`` scanned with one protocol; see ``phantoms`` for the arguments.

    Returns:
        A Case with int16 image (HU), mask with the codes of ``CARDIAC_CT``, RAS+ affine, origin ``phantom``.

    Raises:
        InputError: a shape or spacing that makes no phantom.
    """
    spacing = _check(shape, spacing_mm, mean_lesions)
    patient = draw_patient(index, seed, mean_lesions)
    acquisition = draw_protocol(protocol, seed)
    grid: Grid = centered_grid(patient.center_mm, tuple(shape), spacing)
    image, mask = render(patient, acquisition, grid)
    return Case(
        case_id=f"phantom-{index:05d}",
        image=image[None],
        mask=without_cut_off_pieces(mask)[None],
        affine=grid.affine,
        origin="phantom",
        provenance={
            "source": "cardiosynth phantom",
            "licence": LICENCE,
            "seed": seed,
            "patient": index,
            "acquisition": acquisition.name,
            "protocol": acquisition.facts(),
            "lesions": [lesion.facts() for lesion in patient.coronaries.lesions],
        },
    )


SMALLEST = 16


def _check(shape: Sequence[int], spacing_mm: float | Sequence[float] | None, mean_lesions: float) -> tuple[float, ...]:
    """Return the voxel size per axis."""
    if len(shape) != 3:
        raise InputError(f"--shape {' '.join(map(str, shape))} has {len(shape)} numbers; give three: X Y Z.")
    if min(shape) < SMALLEST:
        raise InputError(f"--shape {' '.join(map(str, shape))} is too small; give at least {SMALLEST} voxels per axis.")
    if mean_lesions < 0:
        raise InputError(f"the mean number of lesions is {mean_lesions}; give 0 or more.")
    if spacing_mm is None:
        return tuple(FIELD_OF_VIEW_MM / n for n in shape)
    spacing = (spacing_mm,) * 3 if isinstance(spacing_mm, int | float) else tuple(spacing_mm)
    if len(spacing) != 3 or not all(0.05 <= s <= 20 for s in spacing):
        raise InputError(f"--spacing-mm {spacing_mm} is not possible; give one or three numbers from 0.05 to 20.")
    return tuple(float(s) for s in spacing)
