"""What is painted, in which order, with which attenuation and label: from the skin inward to the blood."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.data.sources.phantom.chambers import ARTERY_WALL_MM, ATRIAL_WALL_MM, RIGHT_WALL_MM, Chambers
from cardiosynth.data.sources.phantom.geometry import Array, outside, union
from cardiosynth.data.sources.phantom.patient import Patient
from cardiosynth.data.sources.phantom.protocol import Attenuation
from cardiosynth.data.sources.phantom.torso import Surroundings

AIR_HU = -1000.0
WALL_HU = 65.0

CODE = {label.name: label.code for label in CARDIAC_CT}
UNNAMED = 0
"""Walls, stomach, airways' walls: tissue for which the label table has no name."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One structure to paint.

    Attributes:
        shape: signed distance on the lattice.
        hu: its attenuation, one number or a value at each lattice point.
        label: code for the mask, None to leave the mask as it is.
    """

    shape: Array
    hu: float | Array
    label: int | None


class Layers:
    """Lists the layers of one scene, from the skin to the blood."""

    def __init__(self, patient: Patient, chambers: Chambers, around: Surroundings, hu: Attenuation):
        self.patient, self.chambers, self.around, self.hu = patient, chambers, around, hu
        axes = chambers.lattice.axes
        roughness = patient.roughness
        self.grain = roughness.field("tissue grain", 7.0, axes)
        self.clouds = roughness.field("tissue clouds", 20.0, axes)
        self.trabeculae = roughness.field("trabeculae", 4.5, axes)

    def chest(self) -> Iterable[Layer]:
        """Skin, muscle, the cavity's fat, lungs."""
        around, hu = self.around, self.hu
        yield Layer(around.body, hu.fat + 8 * self.clouds, CODE["body_wall"])
        yield Layer(np.maximum(around.muscle, around.body + 6), hu.muscle + 10 * self.grain, CODE["body_wall"])
        yield Layer(around.cavity - 1, hu.fat + 18 + 14 * self.grain, CODE["mediastinal_fat"])
        yield Layer(around.lung, self._lung_hu(), CODE["lung"])

    def _lung_hu(self) -> Array:
        """Denser toward the back, where blood settles in a patient who lies on it."""
        y = self.chambers.lattice.axes[1].astype(np.float32)[None, :, None]
        return self.hu.lung - np.float32(0.25) * (y + 10) + 16 * self.clouds + 12 * self.grain

    def bones_and_organs(self) -> Iterable[Layer]:
        """Organs under the diaphragm, fat around the heart, bones, esophagus, airways."""
        around, hu = self.around, self.hu
        rim = self.chambers.fat_rim
        yield Layer(around.stomach, hu.muscle + 15 * self.clouds, UNNAMED)
        yield Layer(around.liver, hu.liver + 8 * self.clouds + 4 * self.grain, CODE["liver"])
        yield Layer(np.maximum(rim - 0.5, around.cavity), 20.0, CODE["mediastinal_fat"])
        yield Layer(np.maximum(rim + 0.6, around.cavity), hu.fat + 7 * self.grain, CODE["mediastinal_fat"])
        for bone, cortex_mm, name in (
            (around.ribs, 2.0, "ribs_and_sternum"),
            (around.sternum, 1.8, "ribs_and_sternum"),
            (around.spine, 1.6, "spine"),
        ):
            yield Layer(bone, hu.cortex, CODE[name])
            yield Layer(bone + cortex_mm, hu.marrow + 30 * self.grain, None)
        yield Layer(around.disc, 85.0, CODE["spine"])
        yield Layer(around.canal, 25.0, UNNAMED)
        yield Layer(around.esophagus, 45.0, CODE["esophagus"])
        if self.patient.torso.esophagus_has_air:
            yield Layer(around.esophagus + 4.0, -300.0, None)
        yield Layer(around.airway - 1.4, 30.0, UNNAMED)
        yield Layer(around.airway, AIR_HU + 15, UNNAMED)

    def walls(self) -> Iterable[Layer]:
        """Walls of vessels and chambers, all before any blood: where two blood pools meet there is no wall."""
        chambers = self.chambers
        yield Layer(chambers.descending_aorta - 1.3, WALL_HU, UNNAMED)
        yield Layer(union(self._veins(), chambers.branches) - 1.0, WALL_HU, UNNAMED)
        yield Layer(union(chambers.left_atrium, chambers.right_atrium) - ATRIAL_WALL_MM, WALL_HU, UNNAMED)
        yield Layer(union(chambers.pulmonary, chambers.aorta) - ARTERY_WALL_MM, WALL_HU, UNNAMED)
        yield Layer(chambers.right_ventricle - RIGHT_WALL_MM, 0.95 * self.hu.myocardium, UNNAMED)
        muscle = self.hu.myocardium + 6 * self.grain
        yield Layer(chambers.myocardium, muscle, CODE["left_ventricular_myocardium"])

    def _veins(self) -> Array:
        return union(self.chambers.superior_cava, self.chambers.inferior_cava)

    def vessels(self) -> Iterable[Layer]:
        """Blood in the vessels that are not targets."""
        chambers, hu = self.chambers, self.hu
        yield Layer(chambers.branches, 0.5 * (hu.pulmonary + hu.left_atrium), CODE["great_veins"])
        yield Layer(chambers.descending_aorta, hu.aorta, CODE["descending_aorta"])
        yield Layer(chambers.inferior_cava, hu.inferior_cava + 20 * self.clouds, CODE["great_veins"])
        mixing = 60.0 if hu.superior_cava > 300 else 15.0
        yield Layer(chambers.superior_cava, hu.superior_cava + mixing * self.grain, CODE["great_veins"])

    def chambers_and_arteries(self) -> Iterable[Layer]:
        """Blood in every chamber and great artery, and what stands in it."""
        chambers, hu = self.chambers, self.hu
        # Open valves: outflow tract and artery are one lumen in the image before each gets its own label.
        yield Layer(union(chambers.left_ventricle, chambers.aorta), hu.aorta, None)
        yield Layer(union(chambers.right_ventricle, chambers.pulmonary), hu.right_ventricle, None)
        yield Layer(chambers.left_atrium, hu.left_atrium + 4 * self.clouds, CODE["left_atrium"])
        mixing = 35.0 if hu.right_atrium < 0.8 * hu.left_ventricle else 10.0
        yield Layer(chambers.right_atrium, hu.right_atrium + mixing * self.clouds, CODE["right_atrium"])
        blood = hu.right_ventricle + 10 * self.clouds + 8 * self.grain
        yield Layer(chambers.right_ventricle, blood, CODE["right_ventricle"])
        yield Layer(chambers.pulmonary, hu.pulmonary + 6 * self.clouds, CODE["pulmonary_artery"])
        yield Layer(chambers.left_ventricle, hu.left_ventricle + 5 * self.clouds, CODE["left_ventricle"])
        yield Layer(chambers.aorta, hu.aorta + 3 * self.clouds, CODE["ascending_aorta"])
        # Papillary muscles and trabeculae stay in the blood pool's label, as clinical contours have it.
        yield Layer(chambers.papillary, hu.myocardium, None)
        yield Layer(self._trabeculae(chambers.right_ventricle, 5.0, 0.55), 1.15 * hu.myocardium, None)
        yield Layer(self._trabeculae(self._apical_cavity(), 3.0, 0.45), hu.myocardium, None)

    def _trabeculae(self, chamber: Array, depth_mm: float, threshold: float) -> Array:
        """Strands along the wall of a chamber, ``depth_mm`` deep."""
        return np.maximum(outside(chamber, (chamber, -depth_mm)), 3 * (threshold - self.trabeculae))

    def _apical_cavity(self) -> Array:
        """The left ventricle's cavity beyond its middle, where the wall is not smooth."""
        ventricle, frame = self.patient.heart.left_ventricle, self.patient.heart.frame
        middle = float(frame.long_axis @ ventricle.outer.center_mm)
        x, y, z = (
            (part * axis).astype(np.float32)
            for part, axis in zip(frame.long_axis, self.chambers.lattice.axes, strict=True)
        )
        ahead = x[:, None, None] + y[None, :, None] + z[None, None, :] - np.float32(middle)
        return np.maximum(self.chambers.left_ventricle, -ahead)
