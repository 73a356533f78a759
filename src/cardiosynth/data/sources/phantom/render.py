"""From a patient and a protocol to an image and a mask on a grid, a slab of slices at a time.

Layers are painted from the chest wall inward, each over what lies below: in the image with its share of every
voxel (partial volume), in the mask where the voxel's center lies inside. A slab has the bits that it has in the
whole volume.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int16, UInt8

from cardiosynth.core.intensity import rounded_image
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.volume import Grid
from cardiosynth.data.sources.phantom.chambers import ARTERY_WALL_MM, ATRIAL_WALL_MM, RIGHT_WALL_MM, Chambers
from cardiosynth.data.sources.phantom.geometry import Array, Axes, Tube, arc_lengths, outside, union
from cardiosynth.data.sources.phantom.lattice import Lattice, lattice_around
from cardiosynth.data.sources.phantom.noise import slice_noise
from cardiosynth.data.sources.phantom.patient import Patient
from cardiosynth.data.sources.phantom.protocol import Attenuation, Protocol, draw_attenuation
from cardiosynth.data.sources.phantom.torso import Surroundings, evaluate_torso

AIR_HU = -1000.0
WATER_HU = 10.0
WALL_HU = 65.0
SLAB_VOXELS = 6_000_000
"""Voxels rendered at once: some hundred megabytes of working memory."""

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


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that rendering needs, for any slab.

    Attributes:
        grid: the voxels, axes along the patient's.
        lattice: where the layers' shapes are given.
        below: layers under the lungs' vessels.
        lung: distance to the lungs, which clips their vessels.
        above: layers over the lungs' vessels.
        patient: center lines.
        attenuation: of vessels.
        protocol: edges and noise.
        center_line: (n, 3) voxels that hold a coronary's center line.
    """

    grid: Grid
    lattice: Lattice
    below: tuple[Layer, ...]
    lung: Array
    above: tuple[Layer, ...]
    patient: Patient
    attenuation: Attenuation
    protocol: Protocol
    center_line: Array

    @property
    def edge_mm(self) -> float:
        """Width over which an edge is spread: voxel and kernel together."""
        return float(np.hypot(np.mean(self.grid.spacing_mm), self.protocol.edge_mm))


def render(
    patient: Patient, protocol: Protocol, grid: Grid, slab_voxels: int = SLAB_VOXELS
) -> tuple[Int16[np.ndarray, "x y z"], UInt8[np.ndarray, "x y z"]]:
    """Return image (HU) and mask of a patient on a grid whose axes are the patient's (RAS+).

    Args:
        patient: anatomy.
        protocol: acquisition.
        grid: straight RAS+ grid.
        slab_voxels: voxels rendered at once; any number gives the same bits.
    """
    scene = _scene(patient, protocol, grid)
    image, mask = np.empty(grid.shape, np.int16), np.empty(grid.shape, np.uint8)
    width, depth, height = grid.shape
    thickness = max(1, slab_voxels // (width * depth))
    for start in range(0, height, thickness):
        slices = range(start, min(start + thickness, height))
        part = np.s_[:, :, slices.start : slices.stop]
        image[part], mask[part] = _slab(scene, slices)
    return image, mask


def _scene(patient: Patient, protocol: Protocol, grid: Grid) -> Scene:
    x, y, z = grid_axes(grid)
    lattice = lattice_around(np.array([x[0], y[0], z[0]]), np.array([x[-1], y[-1], z[-1]]))
    chambers = patient.chambers(lattice)
    around = evaluate_torso(patient.torso, chambers.fat_rim, chambers.descending_aorta, lattice, patient.roughness)
    attenuation = draw_attenuation(protocol, patient.variation.draws("attenuation"))
    paint = _Layers(patient, chambers, around, attenuation)
    return Scene(
        grid=grid,
        lattice=lattice,
        below=tuple(paint.chest()),
        lung=around.lung,
        above=(*paint.bones_and_organs(), *paint.vessels(), *paint.heart()),
        patient=patient,
        attenuation=attenuation,
        protocol=protocol,
        center_line=_center_line_voxels(patient, grid),
    )


def grid_axes(grid: Grid) -> Axes:
    """Return the coordinates (mm) of a straight RAS+ grid along each axis."""
    x, y, z = (
        grid.affine[axis, 3] + grid.affine[axis, axis] * np.arange(count) for axis, count in enumerate(grid.shape)
    )
    return x, y, z


class _Layers:
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

    def vessels(self) -> Iterable[Layer]:
        """Vessels that are not targets, each within its wall."""
        chambers, hu = self.chambers, self.hu
        veins = union(chambers.superior_cava, chambers.inferior_cava)
        yield Layer(chambers.descending_aorta - 1.3, WALL_HU, UNNAMED)
        yield Layer(union(veins, chambers.branches) - 1.0, WALL_HU, UNNAMED)
        yield Layer(chambers.branches, 0.5 * (hu.pulmonary + hu.left_atrium), CODE["great_veins"])
        yield Layer(chambers.descending_aorta, hu.aorta, CODE["descending_aorta"])
        yield Layer(chambers.inferior_cava, hu.inferior_cava + 20 * self.clouds, CODE["great_veins"])
        mixing = 60.0 if hu.superior_cava > 300 else 15.0
        yield Layer(chambers.superior_cava, hu.superior_cava + mixing * self.grain, CODE["great_veins"])

    def heart(self) -> Iterable[Layer]:
        """Walls, muscle, then the blood in every chamber and great artery."""
        chambers, hu = self.chambers, self.hu
        yield Layer(chambers.left_atrium - ATRIAL_WALL_MM, WALL_HU, UNNAMED)
        yield Layer(chambers.right_atrium - ATRIAL_WALL_MM, WALL_HU, UNNAMED)
        yield Layer(union(chambers.pulmonary, chambers.aorta) - ARTERY_WALL_MM, WALL_HU, UNNAMED)
        yield Layer(chambers.right_ventricle - RIGHT_WALL_MM, 0.95 * hu.myocardium, UNNAMED)
        muscle = hu.myocardium + 6 * self.grain
        yield Layer(chambers.myocardium, muscle, CODE["left_ventricular_myocardium"])
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


class _Canvas:
    """Image and mask of one slab."""

    def __init__(self, axes: Axes, lattice: Lattice, edge_mm: float):
        shape = tuple(len(axis) for axis in axes)
        self.axes, self.lattice, self.edge_mm = axes, lattice, edge_mm
        self.image = np.full(shape, AIR_HU, np.float32)
        self.mask = np.zeros(shape, np.uint8)

    def paint(self, layer: Layer) -> None:
        """Paint a layer over what is there."""
        part = self.lattice.box(layer.shape < self.edge_mm / 2, self.axes)
        if part is None:
            return
        axes = tuple(axis[piece] for axis, piece in zip(self.axes, part, strict=True))
        distance = self.lattice.sampled(layer.shape, axes)  # pyright: ignore[reportArgumentType]
        if layer.label is not None:
            self.mask[part][distance < 0] = layer.label
        hu = layer.hu
        value = self.lattice.sampled(hu, axes) if isinstance(hu, np.ndarray) else np.float32(hu)  # pyright: ignore[reportArgumentType]
        self.blend(part, _share(distance, self.edge_mm), value)

    def blend(self, part: tuple[slice, ...], share: Array, value: Array | np.float32) -> None:
        """Move the image toward ``value`` by ``share``."""
        image = self.image[part]
        change = value - image
        change *= share
        image += change


def _share(distance: Array, edge_mm: float) -> Array:
    """Share of a voxel within a shape whose surface is ``distance`` away. Works in place."""
    distance *= np.float32(-1 / edge_mm)
    distance += np.float32(0.5)
    return np.clip(distance, 0, 1, out=distance)


def _slab(scene: Scene, slices: range) -> tuple[Array, Array]:
    x, y, z = grid_axes(scene.grid)
    axes = (x, y, z[slices.start : slices.stop])
    canvas = _Canvas(axes, scene.lattice, scene.edge_mm)
    for layer in scene.below:
        canvas.paint(layer)
    _paint_lung_vessels(canvas, scene)
    for layer in scene.above:
        canvas.paint(layer)
    _paint_coronaries(canvas, scene, slices)
    noise = slice_noise(
        scene.protocol, scene.patient.variation.seed, scene.patient.variation.patient,
        scene.grid.shape[:2], slices, scene.grid.spacing_mm,
    )  # fmt: skip
    return rounded_image(np.maximum(canvas.image + noise, -1024)), canvas.mask


WHOLE = (slice(None), slice(None), slice(None))


def _paint_lung_vessels(canvas: _Canvas, scene: Scene) -> None:
    share = np.zeros(canvas.image.shape, np.float32)
    for tube in scene.patient.torso.lung_vessels:
        tube.coverage(canvas.axes, canvas.edge_mm, share)
    share *= _share(canvas.lattice.sampled(scene.lung, canvas.axes), canvas.edge_mm)
    canvas.blend(WHOLE, share, np.float32(0.7 * scene.attenuation.pulmonary))


def _paint_coronaries(canvas: _Canvas, scene: Scene, slices: range) -> None:
    """Paint lumen, then calcium; label what lies in a lumen or deposit and every voxel of a center line."""
    tree, code = scene.patient.coronaries, CODE["coronary_artery"]
    lumens = [branch.tube for branch in tree.branches]
    _paint_tubes(canvas, lumens, scene.attenuation.coronary, code)
    for lesion in tree.lesions:
        if lesion.calcium is not None:
            _paint_tubes(canvas, [lesion.calcium], lesion.calcium_hu, code)
    x, y, z = scene.center_line[:, (scene.center_line[2] >= slices.start) & (scene.center_line[2] < slices.stop)]
    canvas.mask[x, y, z - slices.start] = code


def _paint_tubes(canvas: _Canvas, tubes: list[Tube], hu: float, label: int) -> None:
    share = np.zeros(canvas.image.shape, np.float32)
    for tube in tubes:
        tube.coverage(canvas.axes, canvas.edge_mm, share)
        tube.fill(canvas.axes, canvas.mask, label)
    canvas.blend(WHOLE, share, np.float32(hu))


def _center_line_voxels(patient: Patient, grid: Grid) -> Array:
    """Return the voxels (3, n) that center lines pass; one after another they touch, so that a tree is connected."""
    voxels = [_passed_voxels(branch.tube.points_mm, grid) for branch in patient.coronaries.branches]
    index = np.unique(np.concatenate(voxels), axis=0)
    inside = ((index >= 0) & (index < np.array(grid.shape))).all(1)
    return index[inside].T


def _passed_voxels(points_mm: Float[Array, "n 3"], grid: Grid) -> Array:
    lengths = arc_lengths(points_mm)
    count = int(np.ceil(lengths[-1] / (0.3 * min(grid.spacing_mm)))) + 1
    along = np.linspace(0, lengths[-1], count)
    dense = np.stack([np.interp(along, lengths, points_mm[:, axis]) for axis in range(3)], 1)
    index = (dense - grid.affine[:3, 3]) / np.diag(grid.affine)[:3]
    return np.rint(index).astype(int)
