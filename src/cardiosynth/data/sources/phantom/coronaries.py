"""Coronary trees: center lines on the epicardium with tapering radii, and the lesions in them.

Positions are given on the ventricles' ellipsoids: a polar angle from the apex (0) to the base (about 130 degrees)
and an azimuth about the long axis. The left ventricle's azimuth is 0 toward the right ventricle, 60 in the anterior
groove (LAD), 100-220 around the left atrioventricular groove (circumflex), 290 in the posterior groove.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from cardiosynth.data.sources.phantom.chambers import Chambers
from cardiosynth.data.sources.phantom.geometry import Array, Ellipsoid, Tube, arc_lengths, spline, unit
from cardiosynth.data.sources.phantom.heart import Heart
from cardiosynth.data.sources.phantom.lattice import Lattice
from cardiosynth.data.sources.phantom.variation import Draws

STEP_MM = 1.0
CLEARANCE_MM = 0.6
"""Fat between the epicardium and a vessel's wall."""
SEPARATION_MM = 9.0
"""How far the left and the right tree stay apart, so that they are two at every usable resolution."""
SHORTEST_MM = 12.0
"""A branch cut shorter than this is left out."""


@dataclass(frozen=True, eq=False)
class Branch:
    """One named coronary artery.

    Attributes:
        name: e.g. ``"LAD"`` or ``"first diagonal"``.
        tree: ``"left"`` or ``"right"``.
        tube: its lumen.
    """

    name: str
    tree: str
    tube: Tube


@dataclass(frozen=True, eq=False)
class Lesion:
    """A plaque: a narrowing of the lumen, calcified or soft.

    Attributes:
        branch: the vessel's name.
        position_mm: from the branch's start to the middle.
        length_mm: of the narrowing.
        narrowing: lost share of the diameter at the middle, 0..1.
        calcium: calcified deposits in the wall, none where the plaque is soft.
        calcium_hu: their attenuation.
    """

    branch: str
    position_mm: float
    length_mm: float
    narrowing: float
    calcium: Tube | None
    calcium_hu: float

    def facts(self) -> dict[str, Any]:
        """Return what a manifest records."""
        return {
            "branch": self.branch,
            "position_mm": round(self.position_mm, 1),
            "length_mm": round(self.length_mm, 1),
            "narrowing": round(self.narrowing, 2),
            "calcified": self.calcium is not None,
        }


@dataclass(frozen=True, eq=False)
class CoronaryTree:
    """Both trees of one patient."""

    branches: tuple[Branch, ...]
    lesions: tuple[Lesion, ...]

    @property
    def points_mm(self) -> Array:
        """All center-line points (n, 3)."""
        return np.concatenate([branch.tube.points_mm for branch in self.branches])


@dataclass(frozen=True, eq=False)
class Surface:
    """A signed-distance field with its slope, onto which points are projected."""

    lattice: Lattice
    field: Array
    slope: tuple[Array, Array, Array]

    def toward(self, points_mm: Array, height_mm: Array, longest_mm: Array) -> Array:
        """Return points moved by one Newton step along the slope to ``height_mm`` above the surface.

        Args:
            points_mm: (n, 3).
            height_mm: (n,) wanted distance.
            longest_mm: (n,) no point moves further than this.
        """
        gradient = np.stack([self.lattice.at(part, points_mm) for part in self.slope], 1)
        # Between two walls the slope vanishes; without a floor such points would be thrown far away.
        steepness = np.maximum((gradient**2).sum(1), 0.5)
        excess = np.clip(self.lattice.at(self.field, points_mm) - height_mm, -longest_mm, longest_mm)
        return points_mm - (excess / steepness)[:, None] * gradient


def surface_of(lattice: Lattice, field: Array) -> Surface:
    """Return the surface of a distance field on its lattice."""
    x, y, z = np.gradient(field, lattice.axes[0][1] - lattice.axes[0][0])
    return Surface(lattice, field, (x, y, z))


@dataclass(frozen=True, eq=False)
class Epicardium:
    """Where vessels run: the epicardial surface and the two coordinate systems on it."""

    heart: Heart
    surface: Surface

    def left(self, polar: float, azimuth: float) -> Array:
        """Return a point near the left ventricle's outside; angles in degrees."""
        return _on_ellipsoid(self.heart.left_ventricle.outer, 2.0, polar, azimuth)

    def right(self, polar: float, azimuth: float) -> Array:
        """Return a point near the right ventricle's outside; angles in degrees."""
        return _on_ellipsoid(self.heart.right_ventricle.body, 3.0, polar, azimuth)


def _on_ellipsoid(ellipsoid: Ellipsoid, above_mm: float, polar: float, azimuth: float) -> Array:
    p, a = np.radians([polar, azimuth])
    along = np.array([np.cos(p), np.sin(p) * np.cos(a), np.sin(p) * np.sin(a)])
    return ellipsoid.center_mm + ((ellipsoid.radii_mm + above_mm) * along) @ ellipsoid.directions


def draw_coronaries(
    heart: Heart, chambers: Chambers, anatomy: Draws, disease: Draws, mean_lesions: float
) -> CoronaryTree:
    """Draw both trees of one patient.

    Args:
        heart: its shapes.
        chambers: the same, evaluated where the trees will run.
        anatomy: draws for course and caliber.
        disease: draws for plaques.
        mean_lesions: expected number of plaques (Poisson); 0 for healthy vessels.
    """
    epicardium = Epicardium(heart, surface_of(chambers.lattice, chambers.surface))
    aorta = surface_of(chambers.lattice, chambers.aorta)
    caliber = anatomy.uniform(0.86, 1.08)
    left = _left_tree(epicardium, _ostium(heart, aorta, (-0.85, 0.30, 0.10)), caliber, anatomy)
    right = _right_tree(epicardium, _ostium(heart, aorta, (0.30, 0.93, 0.10)), caliber, anatomy)
    right = [branch for branch in (_kept_apart(b, left) for b in right) if branch is not None]
    return _with_lesions((*left, *right), disease, mean_lesions)


def _ostium(heart: Heart, aorta: Surface, direction: tuple[float, ...]) -> Array:
    """A point just inside the aortic root's wall, in the sinus on the given side."""
    root = heart.vessels.ascending_aorta
    center = root.points_mm[np.searchsorted(arc_lengths(root.points_mm), 9.0 * heart.frame.scale)]
    start = center + 14 * heart.frame.scale * unit(heart.frame.turn @ np.array(direction))
    point = start[None]
    for _ in range(8):
        point = aorta.toward(point, np.array([-0.8]), np.array([4.0]))
    return point[0]


def _left_tree(epicardium: Epicardium, ostium: Array, caliber: float, draws: Draws) -> list[Branch]:
    point, vary = epicardium.left, lambda sd=3.0: draws.normal(sd)
    course = _Course(epicardium, "left", caliber, draws)
    fork = point(117, 97 + vary())
    main = course.branch("left main", [ostium, (ostium + fork) / 2 + np.array([0, 0, 2]), fork], 2.0, 1.9)
    fork = main.tube.points_mm[-1]
    groove = [64 + vary(), 60 + vary(), 57 + vary(), 54 + vary()]
    anterior = course.branch(
        "LAD",
        [fork, point(104, 84 + vary()), point(88, groove[0] + 4), point(66, groove[1]), point(42, groove[2]),
         point(24, groove[3]), point(12, 40)],
        1.75, 0.7,
    )  # fmt: skip
    circumflex = course.branch(
        "circumflex",
        [fork, point(122, 118), point(125, 145 + vary()), point(126, 175 + vary()), point(124, 205 + vary(8))],
        1.6, 0.75,
    )  # fmt: skip
    diagonals = [
        course.side("first diagonal", anterior, draws.uniform(0.20, 0.30),
                    [point(78, 88 + vary()), point(60, 108 + vary()), point(44, 118 + vary(6))], 1.1, 0.55),
        course.side("second diagonal", anterior, draws.uniform(0.42, 0.52),
                    [point(52, 75 + vary()), point(36, 92 + vary()), point(24, 105 + vary(6))], 0.95, 0.55),
    ]  # fmt: skip
    marginals = [
        course.side("first marginal", circumflex, draws.uniform(0.32, 0.45),
                    [point(105, 140 + vary()), point(82, 148 + vary()), point(58, 152 + vary(6))], 1.15, 0.6),
        course.side("second marginal", circumflex, draws.uniform(0.70, 0.82),
                    [point(108, 185 + vary()), point(88, 192 + vary()), point(66, 196 + vary(6))], 1.0, 0.55),
    ]  # fmt: skip
    return [main, anterior, circumflex, *diagonals, *marginals]


def _right_tree(epicardium: Epicardium, ostium: Array, caliber: float, draws: Draws) -> list[Branch]:
    right, left, vary = epicardium.right, epicardium.left, lambda sd=3.0: draws.normal(sd)
    course = _Course(epicardium, "right", caliber, draws)
    main = course.branch(
        "RCA",
        [ostium, right(138, 74 + vary()), right(134, 40 + vary()), right(132, 8 + vary()), right(132, -30 + vary()),
         right(133, -62 + vary()), right(136, -86), left(124, 284 + vary())],
        1.85, 1.2,
    )  # fmt: skip
    return [
        main,
        course.side("posterior descending", main, 1.0,
                    [left(104, 287 + vary()), left(80, 288 + vary()), left(56, 290 + vary(6))], 1.1, 0.6),
        course.side("posterolateral", main, 0.97,
                    [left(118, 268), left(106, 252 + vary()), left(90, 242 + vary(6))], 1.05, 0.6),
        course.side("acute marginal", main, draws.uniform(0.45, 0.55),
                    [right(112, -14 + vary()), right(88, -22 + vary()), right(66, -28 + vary(6))], 1.0, 0.55),
    ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Course:
    """Lays vessels of one tree on the epicardium."""

    epicardium: Epicardium
    tree: str
    caliber: float
    draws: Draws

    def branch(self, name: str, controls: Sequence[Array], first_mm: float, last_mm: float) -> Branch:
        """Return a vessel along ``controls`` whose radius goes from ``first_mm`` to ``last_mm``, times caliber."""
        points = spline(controls, STEP_MM)
        radii = self.caliber * np.linspace(first_mm, last_mm, len(points))
        points = points + self._tortuosity(len(points))
        return Branch(name, self.tree, Tube(self._laid_on(points, radii), radii))

    def side(
        self, name: str, parent: Branch, at: float, controls: Sequence[Array], first_mm: float, last_mm: float
    ) -> Branch:
        """Return a side branch that leaves ``parent`` at the share ``at`` of its length, no wider than it is there."""
        index = round(at * (len(parent.tube.points_mm) - 1))
        widest = parent.tube.radii_mm[index] / self.caliber
        start = parent.tube.points_mm[index]
        return self.branch(name, [start, *controls], min(first_mm, widest), min(last_mm, widest))

    def _tortuosity(self, count: int) -> Array:
        wander = ndimage.gaussian_filter1d(self.draws.rng.normal(size=(count, 3)), 4.0, axis=0)
        return 3.0 * wander * np.minimum(1.0, np.arange(count) / 8.0)[:, None]

    def _laid_on(self, points: Array, radii: Array) -> Array:
        """Let the vessel settle: drawn to its height above the surface, held together like a string.

        Small steps with strong smoothing keep neighbors on the same side of a groove; then finer ones bring each
        point to its height. The first centimeter leaves its start gradually.
        """
        free = np.minimum(1.0, np.arange(len(points)) / 8.0)
        for rounds, longest_mm, smoothing in ((25, 1.0, 2.0), (8, 1.0, 1.1)):
            for _ in range(rounds):
                points = self.epicardium.surface.toward(points, radii + CLEARANCE_MM, longest_mm * free)
                smoothed = ndimage.gaussian_filter1d(points, smoothing, axis=0, mode="nearest")
                points = np.concatenate([points[:1], smoothed[1:-1], points[-1:]])
        return points


def _kept_apart(branch: Branch, others: Sequence[Branch]) -> Branch | None:
    """End a branch before it comes near another tree; None where too little is left."""
    points = branch.tube.points_mm
    near, _ = KDTree(np.concatenate([other.tube.points_mm for other in others])).query(points)
    close = np.flatnonzero((near < SEPARATION_MM) & (arc_lengths(points) > SHORTEST_MM))
    end = close[0] if len(close) else len(points)
    if near[0] < SEPARATION_MM or end < SHORTEST_MM / STEP_MM:
        return None
    return replace(branch, tube=Tube(points[:end], branch.tube.radii_mm[:end]))


LESION_SITES = ("left main", "LAD", "LAD", "circumflex", "RCA", "RCA")


def _with_lesions(branches: tuple[Branch, ...], draws: Draws, mean_lesions: float) -> CoronaryTree:
    lesions = []
    narrowed = {branch.name: branch for branch in branches}
    for _ in range(int(draws.rng.poisson(mean_lesions))):
        name = LESION_SITES[int(draws.rng.integers(len(LESION_SITES)))]
        lesion, narrowed[name] = _lesion(narrowed[name], draws)
        lesions.append(lesion)
    return CoronaryTree(tuple(narrowed.values()), tuple(lesions))


def _lesion(branch: Branch, draws: Draws) -> tuple[Lesion, Branch]:
    tube = branch.tube
    position, length = tube.length_mm * draws.uniform(0.15, 0.6), draws.uniform(4.0, 14.0)
    narrowing = draws.uniform(0.1, 0.6)
    away = (arc_lengths(tube.points_mm) - position) / (length / 2)
    radii = tube.radii_mm * (1 - narrowing * np.exp(-(away**2)))
    calcium = _calcium(tube, away, draws) if draws.uniform(0, 1) < 0.7 else None
    lesion = Lesion(branch.name, position, length, narrowing, calcium, draws.uniform(750, 1300))
    return lesion, replace(branch, tube=Tube(tube.points_mm, radii))


def _calcium(tube: Tube, away: Array, draws: Draws) -> Tube:
    """A deposit along the middle of the plaque, in the wall on one side."""
    middle = int(np.abs(away).argmin())
    reach = max(1, int((np.abs(away) < 0.5).sum() // 2))
    part = slice(max(0, middle - reach), min(len(away), middle + reach + 1))
    offset = draws.direction()
    points = tube.points_mm[part] + 0.75 * tube.radii_mm[part, None] * offset
    return Tube(points, np.full(len(points), draws.uniform(0.8, 1.4)))
