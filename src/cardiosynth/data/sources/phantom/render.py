"""From a patient and a protocol to an image and a mask on a grid, a slab of slices at a time.

Layers are painted from the chest wall inward, each over what lies below: in the image with its share of every
voxel (partial volume), in the mask where the voxel's center lies inside. A slab has the bits that it has in the
whole volume.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int16, UInt8

from cardiosynth.core.intensity import rounded_image
from cardiosynth.core.volume import Grid
from cardiosynth.data.sources.phantom.geometry import Array, Axes, Tube, arc_lengths
from cardiosynth.data.sources.phantom.lattice import Lattice, lattice_around
from cardiosynth.data.sources.phantom.layers import AIR_HU, CODE, Layer, Layers
from cardiosynth.data.sources.phantom.noise import slice_noise
from cardiosynth.data.sources.phantom.patient import Patient
from cardiosynth.data.sources.phantom.protocol import Attenuation, Protocol, draw_attenuation
from cardiosynth.data.sources.phantom.torso import evaluate_torso

SLAB_VOXELS = 6_000_000
"""Voxels rendered at once: some hundred megabytes of working memory."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that rendering needs, for any slab.

    Attributes:
        grid: the voxels, axes along the patient's.
        lattice: where the layers' shapes are given.
        below: layers under the lungs' vessels.
        lung: distance to the lungs, which clips their vessels.
        lung_vessels: those of the lungs' vessels that reach the grid.
        above: layers over the lungs' vessels.
        patient: center lines.
        attenuation: of vessels.
        protocol: edges and noise.
        center_line: (3, n) indices of the voxels that hold a coronary's center line.
    """

    grid: Grid
    lattice: Lattice
    below: tuple[Layer, ...]
    lung: Array
    lung_vessels: tuple[Tube, ...]
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
    paint = Layers(patient, chambers, around, attenuation)
    return Scene(
        grid=grid,
        lattice=lattice,
        below=tuple(paint.chest()),
        lung=around.lung,
        lung_vessels=tuple(tube for tube in patient.torso.lung_vessels if tube.touches((x, y, z))),
        above=(*paint.bones_and_organs(), *paint.walls(), *paint.vessels(), *paint.chambers_and_arteries()),
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
        (len(x), len(y)), slices, scene.grid.spacing_mm,
    )  # fmt: skip
    return rounded_image(np.maximum(canvas.image + noise, -1024)), canvas.mask


WHOLE = (slice(None), slice(None), slice(None))


def _paint_lung_vessels(canvas: _Canvas, scene: Scene) -> None:
    share = np.zeros(canvas.image.shape, np.float32)
    for tube in scene.lung_vessels:
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
