"""What surrounds the heart: chest wall, lungs with vessels and airways, ribs, sternum, spine, liver, esophagus."""

from dataclasses import dataclass

import numpy as np

from cardiosynth.data.sources.phantom.geometry import (
    Array,
    Axes,
    Ellipsoid,
    Tube,
    open_mesh,
    outside,
    smooth_tube,
    smooth_union,
    union,
    unit,
    upright_ellipsoid,
)
from cardiosynth.data.sources.phantom.heart import Heart
from cardiosynth.data.sources.phantom.lattice import Lattice, Roughness
from cardiosynth.data.sources.phantom.variation import Draws, Variation

VERTEBRA_MM = 26.0
RIB_MM = 25.0


@dataclass(frozen=True, eq=False)
class Torso:
    """The shapes of one patient's chest.

    Attributes:
        midline_mm: x of sternum and spine.
        middle_mm: y halfway between sternum and spine.
        width_mm: half the chest cavity's width.
        depth_mm: half its depth.
        spine_mm: y of the vertebral bodies' centers.
        liver: under the right half of the diaphragm.
        stomach: under the left half.
        mediastinum: soft tissue between the lungs, besides the heart.
        fat_pads: fat in front of the heart and at the apex.
        esophagus: in front of the spine.
        esophagus_has_air: whether its lumen holds gas.
        airways: trachea and main bronchi.
        lung_vessels: arteries and veins in both lungs.
        pericardial_fat_mm: how thick the fat under the pericardium is.
    """

    midline_mm: float
    middle_mm: float
    width_mm: float
    depth_mm: float
    spine_mm: float
    liver: Ellipsoid
    stomach: Ellipsoid
    mediastinum: tuple[Ellipsoid, ...]
    fat_pads: tuple[Ellipsoid, ...]
    esophagus: Tube
    esophagus_has_air: bool
    airways: tuple[Tube, ...]
    lung_vessels: tuple[Tube, ...]
    pericardial_fat_mm: float


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Signed distances (mm, negative inside) on one lattice; see ``Torso`` for the parts."""

    body: Array
    muscle: Array
    cavity: Array
    lung: Array
    ribs: Array
    sternum: Array
    spine: Array
    disc: Array
    canal: Array
    liver: Array
    stomach: Array
    esophagus: Array
    airway: Array


def draw_torso(variation: Variation, heart: Heart) -> Torso:
    """Draw the chest around a heart."""
    draws = variation.draws("torso")
    base = heart.frame.base_mm
    size = draws.uniform(0.94, 1.08)
    x, y, z = base[0] + 6 + draws.normal(2), base[1] - 10 + draws.normal(3), base[2]
    apex_pad = heart.left_ventricle.outer.center_mm + np.array([-14, 4, -28])
    return Torso(
        midline_mm=x,
        middle_mm=y,
        width_mm=132 * size,
        depth_mm=90 * size,
        spine_mm=base[1] - 73 + draws.normal(2),
        liver=upright_ellipsoid(
            [x + 62 + draws.normal(5), y, z - 98 + draws.normal(5)], [104, 96, draws.uniform(52, 66)]
        ),
        stomach=upright_ellipsoid(
            [x - 72 + draws.normal(5), y - 14, z - 102 + draws.normal(5)], [78, 84, draws.uniform(44, 58)]
        ),
        mediastinum=(
            upright_ellipsoid([x - 1, y - 26, z + 40], [42, 62, 95]),
            upright_ellipsoid([x - 2, y - 46, z - 20], [26, 40, 120]),
        ),
        fat_pads=(
            upright_ellipsoid(
                [x - 8 + draws.normal(4), y + 66, z - 14], [draws.uniform(34, 48), draws.uniform(34, 44), 80]
            ),
            upright_ellipsoid(apex_pad, [draws.uniform(34, 44), draws.uniform(30, 40), 26]),
        ),
        esophagus=_esophagus(x, base, draws),
        esophagus_has_air=draws.uniform(0, 1) < 0.35,
        airways=_airways(heart, x),
        lung_vessels=_lung_vessels(heart, variation.draws("lung vessels")),
        pericardial_fat_mm=draws.uniform(2.5, 7.0),
    )


def _esophagus(midline: float, base: Array, draws: Draws) -> Tube:
    y = base[1] - 54 + draws.normal(1)
    path = [[midline - 6, y - 4, base[2] + 90], [midline - 4, y, base[2] + 30],
            [midline - 8, y, base[2] - 10], [midline - 14, y + 6, base[2] - 90]]  # fmt: skip
    return smooth_tube(path, [draws.uniform(5.0, 7.5)] * 2, 3.0)


def _airways(heart: Heart, midline: float) -> tuple[Tube, ...]:
    place = heart.frame.place
    carina = np.array([midline, *place((0, -34, 62))[1:]])
    left, right = place((-44, -36, 30)), place((40, -36, 34))

    def beside(point: Array, *offset: float) -> Array:
        return point + np.array(offset)

    trachea = [beside(carina, 0, 2, 60), beside(carina, 0, 1, 25), carina]
    left_bronchus = [carina, beside((carina + left) / 2, 0, 0, -3), left, beside(left, -6, -8, -30)]
    right_bronchus = [carina, beside((carina + right) / 2, 0, 0, -1), right, beside(right, 10, -8, -32)]
    return (
        smooth_tube(trachea, [8.5, 8.5]),
        smooth_tube(left_bronchus, [6.0, 5.5, 4.5, 3.0]),
        smooth_tube(right_bronchus, [6.5, 6.0, 5.0, 3.2]),
    )


LUNG_TREES = 9
GENERATIONS = 4
THINNEST_MM = 0.45


def _lung_vessels(heart: Heart, draws: Draws) -> tuple[Tube, ...]:
    """Trees that fan out from the ends of the pulmonary arteries and veins."""
    tubes: list[Tube] = []
    for stem in heart.vessels.branches:
        root = stem.points_mm[-1]
        side = np.sign(root[0] - heart.frame.base_mm[0])
        for _ in range(LUNG_TREES):
            heading = unit([side * draws.uniform(0.1, 1.0), draws.rng.normal() * 0.8, draws.rng.normal() * 0.9])
            _grow(tubes, root, heading, draws.uniform(1.6, 3.2), GENERATIONS, draws)
    return tuple(tubes)


def _grow(tubes: list[Tube], start: Array, heading: Array, radius: float, left: int, draws: Draws) -> None:
    """Add a vessel and its two children, which are thinner, shorter and turn away."""
    length, points = draws.uniform(15.0, 34.0) * 0.85 ** (GENERATIONS - left), [start]
    for _ in range(3):
        heading = unit(heading + 0.22 * draws.rng.normal(size=3))
        points.append(points[-1] + heading * length / 3)
    tubes.append(Tube(np.stack(points), np.linspace(radius, 0.75 * radius, len(points))))
    if left == 0 or radius < THINNEST_MM:
        return
    for _ in range(2):
        turned = unit(heading + 0.65 * draws.rng.normal(size=3))
        _grow(tubes, points[-1], turned, radius * draws.uniform(0.5, 0.8), left - 1, draws)


def evaluate_torso(
    torso: Torso, fat_rim: Array, descending_aorta: Array, lattice: Lattice, roughness: Roughness
) -> Surroundings:
    """Evaluate the chest of one patient on a lattice.

    Args:
        torso: its shapes.
        fat_rim: distance to the pericardium.
        descending_aorta: distance to the descending aorta.
        lattice: where to evaluate.
        roughness: what makes the surfaces less than perfect.
    """
    axes = lattice.axes
    cavity = _ellipse(axes, torso, 0.0, 0.0)
    spine, disc, canal = _spine(torso, axes)
    liver = torso.liver.distance(axes) + roughness.field("liver", 25.0, axes)
    stomach = torso.stomach.distance(axes) + 1.5 * roughness.field("stomach", 20.0, axes)
    airway = union(*(tube.distance(axes) for tube in torso.airways))
    mediastinum = _mediastinum(torso, fat_rim, axes) + 2.0 * roughness.field("mediastinum", 20.0, axes)
    lung = outside(
        cavity + 2, (mediastinum, 0.0), (fat_rim, 1.0), (liver, -2.0), (stomach, -2.0),
        (descending_aorta, 1.5), (spine, 2.0), (disc, 2.0), (airway, 2.0),
    )  # fmt: skip
    return Surroundings(
        body=_ellipse(axes, torso, 32.0, 24.0),
        muscle=cavity - 12 - 3 * roughness.field("muscle", 25.0, axes),
        cavity=cavity,
        lung=lung,
        ribs=_ribs(torso, cavity, axes),
        sternum=_box(axes, (torso.midline_mm, torso.middle_mm + torso.depth_mm + 3, 0.0), (17.0, 5.5, FAR_Z)),
        spine=spine,
        disc=disc,
        canal=canal,
        liver=np.maximum(liver, cavity + 1),
        stomach=np.maximum(stomach, cavity + 1),
        esophagus=torso.esophagus.distance(axes),
        airway=airway,
    )


FAR_Z = 1e4
"""Half-height of what runs through the whole chest, in mm."""


def _ellipse(axes: Axes, torso: Torso, more_width: float, more_depth: float) -> Array:
    x, y, z = open_mesh(axes)
    width, depth = torso.width_mm + more_width, torso.depth_mm + more_depth
    level = np.sqrt(((x - torso.midline_mm) / width) ** 2 + ((y - torso.middle_mm) / depth) ** 2)
    return ((level - 1) * depth + 0 * z).astype(np.float32)


def _box(axes: Axes, center: tuple[float, ...], half: tuple[float, ...]) -> Array:
    x, y, z = (np.abs(m - c) - h for m, c, h in zip(open_mesh(axes), center, half, strict=True))
    return np.maximum(np.maximum(x, y), z).astype(np.float32)


def _mediastinum(torso: Torso, fat_rim: Array, axes: Axes) -> Array:
    middle = union(*(part.distance(axes) for part in torso.mediastinum))
    x, y, z = open_mesh(axes)
    beside_spine = np.sqrt((x - torso.midline_mm) ** 2 + (y - torso.spine_mm) ** 2) - 21 + 0 * z
    front, apex = (pad.distance(axes) for pad in torso.fat_pads)
    pads = smooth_union(smooth_union(front, apex, 15.0), fat_rim - 1, 12.0)
    return smooth_union(np.minimum(middle, beside_spine), pads, 10.0).astype(np.float32)


def _spine(torso: Torso, axes: Axes) -> tuple[Array, Array, Array]:
    """Vertebrae with a waist, arches and processes; the discs between them; the canal."""
    x, y, z = open_mesh(axes)
    x, y = x - torso.midline_mm, y - torso.spine_mm
    level = np.abs(np.mod(z, VERTEBRA_MM) - VERTEBRA_MM / 2)
    half = VERTEBRA_MM / 2 - 2.5
    waist = 1.8 * np.clip(1 - level / half, 0, 1)
    column = np.sqrt((x / 1.2) ** 2 + y**2) - 15.5
    body = np.maximum(column + waist, level - half)
    disc = np.maximum(column + 0.8, half + 0.3 - level)
    canal = np.sqrt((x / 1.2) ** 2 + (y + 24) ** 2) - 8 + 0 * z
    arch = np.maximum(np.abs(canal - 3) - 2.5, level - 8)
    spinous = np.maximum(np.maximum(np.abs(x) - 3, np.abs(y + 45) - 12), level - 7)
    transverse = np.maximum(np.maximum(np.abs(np.abs(x) - 24) - 14, np.abs(y + 20 + 0.2 * np.abs(x)) - 4), level - 5)
    spine = union(body, arch, spinous, transverse)
    spine = np.maximum(spine, -canal)
    return spine.astype(np.float32), disc.astype(np.float32), canal.astype(np.float32)


def _ribs(torso: Torso, cavity: Array, axes: Axes) -> Array:
    """Oblique bands in the chest wall, falling from the spine to the front."""
    x, y, z = open_mesh(axes)
    slope = z + 0.55 * (y - torso.middle_mm) + 0.12 * np.abs(x - torso.midline_mm)
    band = np.abs(np.mod(slope, RIB_MM) - RIB_MM / 2) - 5.0
    rib = np.maximum(np.abs(cavity - 5.5) - 3.6, band)
    return np.maximum(rib, 20 - np.abs(x - torso.midline_mm)).astype(np.float32)
