"""One patient: anatomy without a grid."""

from dataclasses import dataclass

import numpy as np

from cardiosynth.data.sources.phantom.chambers import Chambers, evaluate_heart
from cardiosynth.data.sources.phantom.coronaries import CoronaryTree, draw_coronaries
from cardiosynth.data.sources.phantom.geometry import Array
from cardiosynth.data.sources.phantom.heart import Heart, draw_heart
from cardiosynth.data.sources.phantom.lattice import Lattice, Roughness, lattice_around
from cardiosynth.data.sources.phantom.torso import Torso, draw_torso
from cardiosynth.data.sources.phantom.variation import Variation

FIELD_OF_VIEW_MM = 120.0
"""Side of the default field of view: holds both coronary trees and the ventricles of every patient."""
MARGIN_MM = 3.0
HEART_REACH_MM = 72.0
"""Half the side of the box in which the coronaries are laid out."""


@dataclass(frozen=True, eq=False)
class Patient:
    """A patient.

    Attributes:
        variation: the source of its draws.
        roughness: the source of its surfaces' noise.
        heart: the shapes of heart and vessels.
        torso: the shapes around them.
        coronaries: center lines, radii and lesions.
        center_mm: (3,) center of the heart-centered field of view, RAS+.
    """

    variation: Variation
    roughness: Roughness
    heart: Heart
    torso: Torso
    coronaries: CoronaryTree
    center_mm: Array

    def chambers(self, lattice: Lattice) -> Chambers:
        """Evaluate heart and vessels on a lattice."""
        return evaluate_heart(self.heart, self.torso.pericardial_fat_mm, lattice, self.roughness)


def draw_patient(index: int, seed: int, mean_lesions: float) -> Patient:
    """Draw patient ``index`` of a seed."""
    variation, roughness = Variation(seed, index), Roughness(seed, index)
    heart = draw_heart(variation)
    torso = draw_torso(variation, heart)
    middle = heart.frame.place(HEART_MIDDLE)
    lattice = lattice_around(middle - HEART_REACH_MM, middle + HEART_REACH_MM)
    chambers = evaluate_heart(heart, torso.pericardial_fat_mm, lattice, roughness)
    coronaries = draw_coronaries(
        heart, chambers, variation.draws("coronaries"), variation.draws("lesions"), mean_lesions
    )
    return Patient(variation, roughness, heart, torso, coronaries, _field_center(middle, coronaries))


HEART_MIDDLE = (-6, 6, 2)
"""The middle of the whole average heart with its great vessels, in mm from the base."""


def _field_center(middle: Array, coronaries: CoronaryTree) -> Array:
    """Return the point nearest to the heart's middle around which the field of view holds both trees."""
    points = coronaries.points_mm
    half = FIELD_OF_VIEW_MM / 2 - MARGIN_MM
    return np.clip(middle, points.max(0) - half, points.min(0) + half)
