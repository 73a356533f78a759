"""The heart and its vessels as shapes: what one patient's chambers measure and where they lie.

Patient space is RAS+ (x to the right, y to the front, z to the head) with its origin near the mitral valve. Normal
dimensions are those of adult cardiac CT: left ventricle 85 mm long and 65 mm wide outside, wall 8-11 mm, aortic
root 30 mm, pulmonary trunk 25 mm.
"""

from dataclasses import dataclass

import numpy as np

from cardiosynth.data.sources.phantom.geometry import (
    Array,
    Ellipsoid,
    HalfSpace,
    Tube,
    rotation,
    smooth_tube,
    unit,
)
from cardiosynth.data.sources.phantom.variation import Draws, Variation


@dataclass(frozen=True, eq=False)
class Frame:
    """Where the heart sits.

    Attributes:
        base_mm: (3,) center of the mitral valve plane.
        turn: (3, 3) rotation of this patient's heart against the average one.
        scale: size against the average heart.
        long_axis: (3,) unit vector from base to apex: to the left, forward and down.
        septal: (3,) unit vector from the left to the right ventricle.
        upward: (3,) unit vector at right angles to both, toward the head.
    """

    base_mm: Array
    turn: Array
    scale: float
    long_axis: Array
    septal: Array
    upward: Array

    @property
    def directions(self) -> Array:
        """The three unit vectors as rows (3, 3)."""
        return np.stack([self.long_axis, self.septal, self.upward])

    def shift(self, offset: tuple[float, ...] | Array) -> Array:
        """Turn and scale an offset of the average heart, in mm."""
        return self.scale * self.turn @ np.asarray(offset, float)

    def place(self, point: tuple[float, ...] | Array) -> Array:
        """Return where a point of the average heart (mm from the base) lies in this patient."""
        return self.base_mm + self.shift(point)


@dataclass(frozen=True, eq=False)
class LeftVentricle:
    """Muscle shell, cavity, outflow tract and papillary muscles.

    Attributes:
        outer: the muscle's outside, before the base cuts it.
        cavity: the blood pool, before the base cuts it.
        base: the valve plane; the ventricle lies ahead of it.
        outflow: from the cavity to the aortic annulus.
        papillary: the two papillary muscles.
    """

    outer: Ellipsoid
    cavity: Ellipsoid
    base: HalfSpace
    outflow: Tube
    papillary: tuple[Tube, ...]


@dataclass(frozen=True, eq=False)
class RightVentricle:
    """A body that wraps around the septum, and the outflow tract up to the pulmonary valve."""

    body: Ellipsoid
    outflow: Tube


@dataclass(frozen=True, eq=False)
class Atrium:
    """Rounded parts that blend into one chamber, its appendage, and the veins that count as part of it."""

    parts: tuple[Ellipsoid, ...]
    appendage: Tube
    veins: tuple[Tube, ...] = ()


@dataclass(frozen=True, eq=False)
class GreatVessels:
    """Arteries and veins at the heart.

    Attributes:
        ascending_aorta: from the annulus to the top of the arch.
        sinuses: the three bulges of the aortic root.
        descending_aorta: from the top of the arch downward.
        pulmonary: the trunk, the right and the left pulmonary artery.
        branches: lobar arteries and the outer parts of the pulmonary veins.
        superior_cava: superior vena cava.
        inferior_cava: inferior vena cava.
        coronary_sinus: the vein in the groove behind the left atrium.
    """

    ascending_aorta: Tube
    sinuses: tuple[Ellipsoid, ...]
    descending_aorta: Tube
    pulmonary: tuple[Tube, Tube, Tube]
    branches: tuple[Tube, ...]
    superior_cava: Tube
    inferior_cava: Tube
    coronary_sinus: Tube


@dataclass(frozen=True, eq=False)
class Heart:
    """All of it."""

    frame: Frame
    left_ventricle: LeftVentricle
    right_ventricle: RightVentricle
    left_atrium: Atrium
    right_atrium: Atrium
    vessels: GreatVessels


def draw_heart(variation: Variation) -> Heart:
    """Draw the heart of one patient."""
    frame = _frame(variation.draws("frame"))
    left = _left_ventricle(frame, variation.draws("left ventricle"))
    right = _right_ventricle(frame, left, variation.draws("right ventricle"))
    right_atrium = _right_atrium(frame, variation.draws("right atrium"))
    vessels = _vessels(frame, right_atrium, variation.draws("vessels"))
    left_atrium = _left_atrium(frame, variation.draws("left atrium"))
    return Heart(frame, left, right, left_atrium, right_atrium, vessels)


def _frame(draws: Draws) -> Frame:
    turn = rotation([0, 0, 1], draws.normal(0.12)) @ rotation([1, 0, 0], draws.normal(0.10))
    turn = turn @ rotation([0, 1, 0], draws.normal(0.12))
    long_axis = unit(turn @ np.array([-0.70, 0.55, -0.45]))
    septal = turn @ np.array([0.55, 0.80, -0.10])
    septal = unit(septal - long_axis * (long_axis @ septal))
    base = draws.near((0.0, 0.0, 0.0), 3.0)
    return Frame(base, turn, draws.uniform(0.88, 1.04), long_axis, septal, -np.cross(long_axis, septal))


def _left_ventricle(frame: Frame, draws: Draws) -> LeftVentricle:
    size = frame.scale
    length, width = 51 * size * draws.uniform(0.94, 1.06), 33.5 * size * draws.uniform(0.92, 1.08)
    wall = draws.uniform(8.0, 11.5) * size
    center = frame.base_mm + 33 * size * frame.long_axis
    inner = np.array([length - 0.85 * wall, width - wall, width - wall * draws.uniform(0.95, 1.05)])
    outer = Ellipsoid(center, np.array([length, width, width]), frame.directions)
    annulus = aortic_annulus(frame)
    outflow = smooth_tube(
        [frame.base_mm + 6 * size * frame.long_axis, (frame.base_mm + annulus) / 2 + frame.shift((3, 2, 2)), annulus],
        [11 * size, 11.5 * size],
    )
    return LeftVentricle(
        outer=outer,
        cavity=Ellipsoid(center, inner, frame.directions),
        base=HalfSpace(frame.base_mm, frame.long_axis),
        outflow=outflow,
        papillary=tuple(_papillary(frame, center, length, width - wall, angle, draws) for angle in (135, 230)),
    )


def _papillary(frame: Frame, center: Array, length: float, inner_width: float, degrees: float, draws: Draws) -> Tube:
    angle = np.radians(degrees + draws.normal(6))
    outward = np.cos(angle) * frame.septal + np.sin(angle) * frame.upward
    foot = center + 0.60 * length * frame.long_axis + 0.72 * inner_width * outward
    middle = center + 0.25 * length * frame.long_axis + 0.72 * inner_width * outward
    tip = center - 0.05 * length * frame.long_axis + 0.58 * inner_width * outward
    thickness = draws.uniform(3.2, 4.6) * frame.scale
    return smooth_tube([foot, middle, tip], [thickness, thickness, 0.6 * thickness])


def _right_ventricle(frame: Frame, left: LeftVentricle, draws: Draws) -> RightVentricle:
    size, axis = frame.scale, frame.long_axis
    reach = (left.outer.radii_mm[1] - 2) * draws.uniform(0.90, 1.0)
    center = left.outer.center_mm + reach * frame.septal - 2 * size * axis + draws.normal(2) * frame.upward
    radii = size * np.array([
        45 * draws.uniform(0.93, 1.07), 21 * draws.uniform(0.85, 1.15), 34 * draws.uniform(0.93, 1.07)
    ])  # fmt: skip
    valve = pulmonary_valve(frame)
    outflow = [
        center - 8 * axis + 10 * size * frame.upward,
        center - 14 * size * axis + 24 * size * frame.upward,
        valve,
    ]
    return RightVentricle(
        body=Ellipsoid(center, radii, frame.directions),
        outflow=smooth_tube(outflow, [18 * size, 15 * size, 12 * size], 3.0),
    )


def _left_atrium(frame: Frame, draws: Draws) -> Atrium:
    size = frame.scale
    turn = rotation([0, 0, 1], draws.normal(0.15)) @ rotation([0, 1, 0], draws.normal(0.12))
    radii = np.array([
        30 * draws.uniform(0.90, 1.1), 18.5 * draws.uniform(0.88, 1.15), 23 * draws.uniform(0.90, 1.1)
    ])  # fmt: skip
    body = Ellipsoid(frame.place(draws.near((2, -28, 7), 2)), radii * size, turn)
    vestibule = Ellipsoid(
        frame.base_mm - 9 * size * frame.long_axis + frame.shift((-3, -4, -1)),
        np.array([12, 20, 21]) * size,
        frame.directions,
    )
    appendage_scale = size * draws.uniform(0.85, 1.15)
    appendage = smooth_tube(
        [frame.place((-24, -16, 18)), frame.place((-34, -2, 23)), frame.place((-35, 10, 20))],
        [10 * appendage_scale, 8 * appendage_scale, 5.5 * appendage_scale],
    )
    veins = tuple(smooth_tube(list(path[:2]), [radius * size] * 2) for path, radius in _vein_paths(frame))
    return Atrium((body, vestibule), appendage, veins)


def _vein_paths(frame: Frame) -> list[tuple[tuple[Array, Array, Array, Array], float]]:
    """The four pulmonary veins: mouth, end of what counts as atrium, bend, and end in the lung."""
    routes = [
        ((-20, -33, 14), (-33, -40, 19), (-44, -44, 22), (-58, -46, 27), 6.5),
        ((-20, -35, 2), (-33, -43, -2), (-42, -48, -5), (-54, -56, -12), 6.0),
        ((24, -33, 14), (37, -34, 19), (46, -34, 22), (60, -34, 27), 6.5),
        ((24, -35, 2), (37, -40, -2), (46, -44, -5), (58, -50, -12), 6.0),
    ]
    return [((frame.place(a), frame.place(b), frame.place(c), frame.place(d)), radius) for a, b, c, d, radius in routes]


def _right_atrium(frame: Frame, draws: Draws) -> Atrium:
    size = frame.scale
    radii = np.array([
        22.5 * draws.uniform(0.90, 1.1), 25 * draws.uniform(0.90, 1.1), 29 * draws.uniform(0.90, 1.1)
    ])  # fmt: skip
    body = Ellipsoid(frame.place(draws.near((39, 0, -6), 2)), radii * size, rotation([0, 0, 1], draws.normal(0.2)))
    vestibule = Ellipsoid(frame.place(draws.near((26, 16, -4), 1.5)), np.array([14, 18, 18]) * size, frame.directions)
    appendage = smooth_tube(
        [frame.place((36, 14, 14)), frame.place((25, 29, 21)), frame.place((16, 33, 22))],
        [9.5 * size, 9 * size, 6 * size],
    )
    return Atrium((body, vestibule), appendage)


def aortic_annulus(frame: Frame) -> Array:
    """Return the center of the aortic valve, (3,) mm."""
    return frame.place((5, 7, 10))


def pulmonary_valve(frame: Frame) -> Array:
    """Return the center of the pulmonary valve, (3,) mm."""
    return frame.place((-6, 32, 21))


def _vessels(frame: Frame, right_atrium: Atrium, draws: Draws) -> GreatVessels:
    size = frame.scale
    aorta = draws.uniform(13.0, 16.0) * size
    ascending = smooth_tube(
        [aortic_annulus(frame), *(frame.place(draws.near(p, 1.0)) for p in _AORTA)],
        [0.9 * aorta, 1.06 * aorta, aorta, aorta, aorta],
    )
    pulmonary = _pulmonary_arteries(frame, draws.uniform(11.0, 13.5) * size, draws)
    atrium = right_atrium.parts[0].center_mm
    upper = [atrium + frame.shift(p) for p in ((1, -2, 20), (4, 2, 40), (4, 3, 70), (4, 3, 100))]
    lower = [atrium + frame.shift(p) for p in ((-2, -10, -20), (-4, -16, -40), (-6, -20, -95))]
    return GreatVessels(
        ascending_aorta=ascending,
        sinuses=_sinuses(frame, ascending, aorta),
        descending_aorta=_descending_aorta(frame, ascending, 0.82 * aorta, draws),
        pulmonary=pulmonary,
        branches=_branches(frame, pulmonary),
        superior_cava=smooth_tube(upper, [draws.uniform(8.0, 10.5) * size] * 2),
        inferior_cava=smooth_tube(lower, [draws.uniform(10.0, 13.0) * size] * 2),
        coronary_sinus=_coronary_sinus(frame),
    )


_AORTA = ((10, 9, 22), (19, 9, 44), (17, 5, 64), (4, -10, 82))
"""The ascending aorta after the annulus, in the average heart; its last point is the top of the arch."""


def _sinuses(frame: Frame, ascending: Tube, radius: float) -> tuple[Ellipsoid, ...]:
    along = unit(ascending.points_mm[4] - ascending.points_mm[0])
    center = ascending.points_mm[0] + 8 * frame.scale * along
    first = unit(np.cross(along, frame.turn @ np.array([0.6, 0.8, 0.0])))
    second = np.cross(along, first)
    lobes = []
    for angle in np.radians([90, 210, 330]):
        outward = np.cos(angle) * first + np.sin(angle) * second
        size = np.array([0.78, 0.72, 0.72]) * radius
        lobes.append(
            Ellipsoid(center + 0.48 * radius * outward, size, np.stack([along, outward, np.cross(along, outward)]))
        )
    return tuple(lobes)


def _descending_aorta(frame: Frame, ascending: Tube, radius: float, draws: Draws) -> Tube:
    top, base = ascending.points_mm[-1], frame.base_mm
    x, y = base[0] - draws.uniform(18.0, 26.0), base[1] - draws.uniform(50.0, 56.0)
    path = [
        top,
        frame.place((-13, -32, 84)),
        [x, y, base[2] + 52],
        [x + draws.normal(2), y + draws.normal(1), base[2] + 10],
        [x + 2 + draws.normal(2), y - 2, base[2] - 40],
        [x + 8, y - 2, base[2] - 95],
    ]
    return smooth_tube(path, [1.15 * radius, 1.1 * radius, radius, radius, 0.95 * radius, 0.9 * radius])


def _pulmonary_arteries(frame: Frame, radius: float, draws: Draws) -> tuple[Tube, Tube, Tube]:
    fork = frame.place(draws.near((-15, -1, 44), 1.5))
    trunk = [pulmonary_valve(frame), frame.place((-11, 26, 32)), frame.place((-15, 12, 41)), fork]
    right = [fork, frame.place((1, -12, 42)), frame.place((22, -17, 40)), frame.place((46, -16, 37))]
    left = [fork, frame.place((-26, -14, 47)), frame.place((-38, -28, 46)), frame.place((-49, -35, 40))]
    return (
        smooth_tube(trunk, [radius] * 2),
        smooth_tube(right, [0.78 * radius, 0.72 * radius]),
        smooth_tube(left, [0.78 * radius, 0.70 * radius]),
    )


def _branches(frame: Frame, pulmonary: tuple[Tube, Tube, Tube]) -> tuple[Tube, ...]:
    right, left = pulmonary[1].points_mm[-1], pulmonary[2].points_mm[-1]
    size = frame.scale
    arteries = [
        smooth_tube([right, right + frame.shift((12, -5, -10)), right + frame.shift((20, -16, -34))], [7.5, 4]),
        smooth_tube([right, right + frame.shift((12, 2, 8)), right + frame.shift((22, 4, 26))], [6.0, 3]),
        smooth_tube([left, left + frame.shift((-6, -9, -14)), left + frame.shift((-10, -16, -38))], [7.5, 4]),
        smooth_tube([left, left + frame.shift((-9, 4, 8)), left + frame.shift((-18, 12, 22))], [6.0, 3]),
    ]
    veins = [smooth_tube(list(path[1:]), [radius * size, 0.75 * radius * size]) for path, radius in _vein_paths(frame)]
    return (*arteries, *veins)


def _coronary_sinus(frame: Frame) -> Tube:
    controls = [(-30, -20, -2), (-22, -28, -16), (-4, -24, -24), (14, -16, -24), (24, -8, -20)]
    return smooth_tube([frame.place(p) for p in controls], [1.6, 2.6, 3.4, 4.2, 4.6])
