"""The heart's shapes evaluated on the lattice: chambers that do not overlap, walls, and the surfaces around them."""

from dataclasses import dataclass, fields

import numpy as np

from cardiosynth.data.sources.phantom.geometry import (
    Array,
    Axes,
    Tube,
    outside,
    smooth_intersection,
    smooth_union,
    union,
)
from cardiosynth.data.sources.phantom.heart import Atrium, Heart
from cardiosynth.data.sources.phantom.lattice import Lattice, Roughness

RIGHT_WALL_MM = 3.0
ATRIAL_WALL_MM = 2.0
ARTERY_WALL_MM = 1.5


@dataclass(frozen=True, eq=False)
class Chambers:
    """Signed distances (mm, negative inside) on one lattice.

    Attributes:
        lattice: where they are given.
        left_ventricle: blood pool with the outflow tract, papillary muscles included.
        myocardium: the left ventricle's outside; less the blood pool it is the muscle.
        papillary: papillary muscles, within the blood pool.
        right_ventricle: blood pool up to the pulmonary valve.
        left_atrium: blood pool with appendage and the mouths of the veins.
        right_atrium: blood pool with appendage.
        aorta: root and ascending aorta.
        pulmonary: trunk and both pulmonary arteries.
        descending_aorta: descending aorta.
        superior_cava: superior vena cava.
        inferior_cava: inferior vena cava and coronary sinus.
        branches: lobar arteries and outer pulmonary veins.
        surface: the epicardium, on which the coronaries run.
        fat_rim: the smooth envelope of heart and fat under the pericardium.
    """

    lattice: Lattice
    left_ventricle: Array
    myocardium: Array
    papillary: Array
    right_ventricle: Array
    left_atrium: Array
    right_atrium: Array
    aorta: Array
    pulmonary: Array
    descending_aorta: Array
    superior_cava: Array
    inferior_cava: Array
    branches: Array
    surface: Array
    fat_rim: Array

    def __post_init__(self):
        for field in fields(self)[1:]:
            assert getattr(self, field.name).shape == self.lattice.shape, field.name


def evaluate_heart(heart: Heart, fat_mm: float, lattice: Lattice, roughness: Roughness) -> Chambers:
    """Evaluate the heart of one patient.

    Args:
        heart: its shapes.
        fat_mm: how far the pericardium stands off from the grooves' envelope.
        lattice: where to evaluate.
        roughness: what makes the surfaces less than perfect.
    """
    axes = lattice.axes
    coarse, fine = roughness.field("walls", 11.0, axes), roughness.field("cavities", 8.0, axes)
    vessels = heart.vessels
    outer, cavity, papillary = _left_ventricle(heart, axes, coarse, fine)
    aorta = _aorta(heart, axes)
    pulmonary = _tubes(vessels.pulmonary, axes)
    descending = vessels.descending_aorta.distance(axes)
    cavity = outside(cavity, (aorta, 0.0))
    right = _right_ventricle(heart, axes) + coarse
    right = outside(right, (outer, 1.0), (aorta, 2.0), (pulmonary, 0.0))
    # Gaps in mm leave room for the walls; where a grid cannot show them the chambers still do not overlap.
    left_atrium = _atrium(heart.left_atrium, axes) + 0.8 * fine
    left_atrium = outside(left_atrium, (outer, 1.2), (cavity, 1.2), (aorta, 2.2), (pulmonary, 2.2), (descending, 2.5))
    right_atrium = _atrium(heart.right_atrium, axes) + 0.9 * coarse
    right_atrium = outside(right_atrium, (right, 1.5), (left_atrium, 2.2), (aorta, 2.2), (outer, 1.5), (pulmonary, 2.0))
    hull = (outer, right, right_atrium, left_atrium, union(aorta, pulmonary))
    superior_cava = vessels.superior_cava.distance(axes)
    rim = _fat_rim(*hull, superior_cava) - fat_mm + 1.5 * roughness.field("pericardium", 18.0, axes)
    return Chambers(
        lattice=lattice,
        left_ventricle=cavity,
        myocardium=outer,
        papillary=papillary,
        right_ventricle=right,
        left_atrium=left_atrium,
        right_atrium=right_atrium,
        aorta=aorta,
        pulmonary=pulmonary,
        descending_aorta=descending,
        superior_cava=superior_cava,
        inferior_cava=union(vessels.inferior_cava.distance(axes), vessels.coronary_sinus.distance(axes)),
        branches=_tubes(vessels.branches, axes),
        surface=_surface(*hull),
        fat_rim=rim,
    )


def _left_ventricle(heart: Heart, axes: Axes, coarse: Array, fine: Array) -> tuple[Array, Array, Array]:
    ventricle = heart.left_ventricle
    base = ventricle.base.distance(axes)
    outer = smooth_intersection(ventricle.outer.distance(axes) + 0.5 * coarse, base - 1.0, 3.0)
    cavity = smooth_intersection(ventricle.cavity.distance(axes) + 1.1 * fine, base, 3.0)
    cavity = smooth_union(cavity, ventricle.outflow.distance(axes), 4.0)
    return outer, cavity, np.maximum(_tubes(ventricle.papillary, axes), cavity)


def _aorta(heart: Heart, axes: Axes) -> Array:
    aorta = heart.vessels.ascending_aorta.distance(axes)
    for lobe in heart.vessels.sinuses:
        aorta = smooth_union(aorta, lobe.distance(axes), 3.0)
    return aorta


def _right_ventricle(heart: Heart, axes: Axes) -> Array:
    ventricle = heart.right_ventricle
    return smooth_union(ventricle.body.distance(axes), ventricle.outflow.distance(axes), 6.0)


def _atrium(atrium: Atrium, axes: Axes) -> Array:
    first, second = atrium.parts
    chamber = smooth_union(first.distance(axes), second.distance(axes), 8.0)
    chamber = smooth_union(chamber, atrium.appendage.distance(axes), 5.0)
    for vein in atrium.veins:
        chamber = smooth_union(chamber, vein.distance(axes), 5.0)
    return chamber


def _surface(outer: Array, right: Array, right_atrium: Array, left_atrium: Array, arteries: Array) -> Array:
    surface = smooth_union(outer, right - RIGHT_WALL_MM, 4.0)
    surface = smooth_union(surface, right_atrium - ATRIAL_WALL_MM, 4.0)
    surface = smooth_union(surface, left_atrium - ATRIAL_WALL_MM, 4.0)
    return np.minimum(surface, arteries - ARTERY_WALL_MM)


def _fat_rim(
    outer: Array, right: Array, right_atrium: Array, left_atrium: Array, arteries: Array, cava: Array
) -> Array:
    """The convex-looking outline that fat gives the heart: the same shapes, blended over centimeters."""
    ventricles = smooth_union(outer, right - RIGHT_WALL_MM, 22.0)
    atria = smooth_union(right_atrium - ATRIAL_WALL_MM, left_atrium - ATRIAL_WALL_MM, 22.0)
    trunks = smooth_union(arteries - ARTERY_WALL_MM, cava, 12.0)
    return smooth_union(smooth_union(ventricles, atria, 26.0), trunks, 18.0)


def _tubes(tubes: tuple[Tube, ...], axes: Axes) -> Array:
    return union(*(tube.distance(axes) for tube in tubes))
