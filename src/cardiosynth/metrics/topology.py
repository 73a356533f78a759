"""Whether structures are in one piece and where they run: connected components and centerlines of masks.

Two voxels are connected when they share a face, an edge or a corner (26 neighbors in 3D, 8 in 2D), so that a thin
vessel that runs diagonally through the grid is one piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Shaped
from scipy import ndimage, sparse
from scipy.spatial import KDTree


@dataclass(frozen=True, eq=False)
class Components:
    """The connected pieces of a mask.

    Attributes:
        labels: piece number per voxel, 1 is the largest; 0 is outside.
        sizes: voxels per piece, descending; its length is the number of pieces.
    """

    labels: Int32[np.ndarray, "*grid"]
    sizes: np.ndarray

    @property
    def count(self) -> int:
        """Number of pieces (Betti number 0)."""
        return len(self.sizes)


def components(mask: Shaped[np.ndarray, "*grid"], smallest_voxels: int = 1) -> Components:
    """Return the connected pieces of ``mask``, largest first.

    Args:
        mask: bool or anything that is non-zero inside.
        smallest_voxels: pieces with fewer voxels are left out.
    """
    numbered = np.zeros(mask.shape, np.int32)
    count = ndimage.label(mask != 0, structure=np.ones((3,) * mask.ndim), output=numbered)
    sizes = np.bincount(numbered.ravel(), minlength=int(count) + 1)[1:]  # pyright: ignore[reportArgumentType]
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] >= smallest_voxels]
    rank = np.zeros(len(sizes) + 1, np.int32)
    rank[order + 1] = np.arange(1, len(order) + 1)
    return Components(rank[numbered], sizes[order])


def largest_component_fraction(mask: Shaped[np.ndarray, "*grid"]) -> float:
    """Return the share of the voxels of ``mask`` that lie in its largest piece, in (0, 1]; NaN for an empty mask."""
    sizes = components(mask).sizes
    return float(sizes[0] / sizes.sum()) if len(sizes) else float("nan")


def betti0_error(mask: Shaped[np.ndarray, "*grid"], expected: int) -> int:
    """Return how many pieces too many or too few ``mask`` has; an empty mask has none.

    Args:
        mask: the structure.
        expected: number of pieces it should have: the label table's, or that of the reference mask.
    """
    return abs(components(mask).count - expected)


def connectivity_error(p: Shaped[np.ndarray, "*grid"], q: Shaped[np.ndarray, "*grid"], expected: int) -> float:
    """Return the share of the true structure that the prediction's main pieces do not reach, in [0, 1].

    The prediction keeps its ``expected`` largest pieces, one voxel wider, so that a vessel drawn one voxel aside still
    counts; what of ``q`` lies outside them is missed or hangs in a fragment. Fragments cost little in Dice, but
    whoever follows the vessel loses it there.

    Args:
        p: predicted mask.
        q: ground truth on the same grid; empty gives NaN.
        expected: number of pieces the structure should have.
    """
    inside = q != 0
    if not inside.any():
        return float("nan")
    main = components(p).labels
    reached = ndimage.binary_dilation((main > 0) & (main <= expected), np.ones((3,) * main.ndim))
    return 1 - float((reached & inside).sum() / inside.sum())


def cl_dice(p: Shaped[np.ndarray, "*grid"], q: Shaped[np.ndarray, "*grid"]) -> float:
    """Return centerline Dice, in [0, 1] (clDice, Shit et al. 2021, Eq. 3).

    The harmonic mean of the share of P's centerline inside Q (topology precision, Eq. 1) and the share of Q's
    centerline inside P (topology sensitivity, Eq. 2). It does not ask how wide a vessel is drawn, only whether it is
    followed. NaN where both masks are empty, 0 where one is, as in `overlap`.

    Args:
        p: predicted mask, bool or anything that is non-zero inside; (X, Y, Z) or (X, Y).
        q: ground truth on the same grid.
    """
    inside_p, inside_q = p != 0, q != 0
    if not inside_p.any() or not inside_q.any():
        return 0.0 if inside_p.any() or inside_q.any() else float("nan")
    line_p, line_q = centerline(inside_p), centerline(inside_q)
    precision = float((line_p & inside_q).sum() / line_p.sum())
    sensitivity = float((line_q & inside_p).sum() / line_q.sum())
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def centerline_overlap(
    p: Shaped[np.ndarray, "*grid"], q: Shaped[np.ndarray, "*grid"], radius_mm: float, spacing_mm: Sequence[float]
) -> float:
    """Return the overlap OV of two centerlines, in [0, 1] (Schaap et al. 2009, Eq. 1).

    The share of all points of both centerlines that have a point of the other within ``radius_mm``. NaN where both
    masks are empty, 0 where one is, as in `overlap`.

    Args:
        p: predicted mask.
        q: ground truth on the same grid.
        radius_mm: distance that still counts as the same vessel; the paper takes the vessel's radius at each point.
        spacing_mm: voxel size per axis.
    """
    lines = [np.argwhere(centerline(mask)) * np.asarray(spacing_mm) for mask in (p, q)]
    if not all(map(len, lines)):
        return 0.0 if any(map(len, lines)) else float("nan")
    near = [KDTree(lines[1 - i]).query(lines[i])[0] <= radius_mm * (1 + 1e-6) for i in range(2)]
    return float(np.concatenate(near).mean())


def centerline(mask: Shaped[np.ndarray, "*grid"]) -> Bool[np.ndarray, "*grid"]:
    """Return the skeleton of ``mask``, one voxel wide (Lee et al. 1994); of a mask that thins to nothing, itself."""
    from skimage.morphology import skeletonize

    inside = mask != 0
    line = np.zeros_like(inside)
    box = next(iter(ndimage.find_objects(inside.astype(np.uint8))), None)
    if box is not None:
        # Skeletons are computed in the mask's box, with the border of one voxel that thinning needs.
        padded = np.pad(inside[box], 1)
        line[box] = skeletonize(padded, method="lee")[(slice(1, -1),) * mask.ndim] != 0
    return line if line.any() else inside


@dataclass(frozen=True, eq=False)
class CenterlineGraph:
    """The centerline of a vessel tree as points and what lies next to what, one tree per piece.

    Attributes:
        points_mm: (n, m) positions, index times spacing; m is 2 or 3.
        edges: (2, k) which points are neighbors; without loops.
    """

    points_mm: Float[np.ndarray, "n m"]
    edges: Int[np.ndarray, "2 k"]

    def moved(self, points_mm: Float[np.ndarray, "n m"]) -> "CenterlineGraph":
        """Return the same tree with its points elsewhere."""
        return replace(self, points_mm=points_mm)

    def within(self, kept: Bool[np.ndarray, "n"]) -> "CenterlineGraph":
        """Return the part of the tree between ``kept`` points."""
        number = np.cumsum(kept) - 1
        return CenterlineGraph(self.points_mm[kept], number[self.edges[:, kept[self.edges].all(axis=0)]])

    @property
    def length_mm(self) -> float:
        """Length of all branches together."""
        return float(self._lengths().sum())

    @property
    def longest_path_mm(self) -> float:
        """Length of the longest way through the tree, in the piece where it is longest; 0 without edges."""
        count = len(self.points_mm)
        graph = sparse.coo_matrix((self._lengths(), tuple(self.edges)), (count, count)).tocsr()
        pieces, piece = sparse.csgraph.connected_components(graph, directed=False)
        far, longest = np.unique(piece, return_index=True)[1], 0.0
        # In a tree, the point furthest from any point is one end of the longest path.
        for _ in range(2 if pieces else 0):
            distance = sparse.csgraph.dijkstra(graph, directed=False, indices=far, min_only=True)
            order = np.argsort(distance)
            far = np.full(pieces, -1)
            far[piece[order]] = order
            longest = float(distance.max())
        return longest

    def _lengths(self) -> np.ndarray:
        first, second = self.edges
        # Two points on one spot are neighbors still, which a sparse zero would deny.
        return np.maximum(np.linalg.norm(self.points_mm[first] - self.points_mm[second], axis=1), 1e-9)


def centerline_graph(mask: Shaped[np.ndarray, "*grid"], spacing_mm: Sequence[float]) -> CenterlineGraph:
    """Return the centerline of ``mask`` as a tree: neighboring voxels of the skeleton, the shortest links first."""
    voxels = np.argwhere(centerline(mask))
    points_mm = voxels * np.asarray(spacing_mm, np.float64)
    pairs = np.zeros((0, 2), np.intp)
    if len(voxels):
        pairs = KDTree(voxels).query_pairs(np.sqrt(voxels.shape[1]) + 0.01, output_type="ndarray")
        pairs = pairs[np.abs(voxels[pairs[:, 0]] - voxels[pairs[:, 1]]).max(axis=1) <= 1]
    lengths = np.linalg.norm(points_mm[pairs[:, 0]] - points_mm[pairs[:, 1]], axis=1)
    graph = sparse.coo_matrix((lengths, tuple(pairs.T)), (len(voxels),) * 2).tocsr()
    tree = sparse.csgraph.minimum_spanning_tree(graph).tocoo()
    return CenterlineGraph(points_mm, np.stack([tree.row, tree.col]).astype(np.int64))


def holes(mask: Shaped[np.ndarray, "*grid"], smallest_voxels: int = 1) -> int:
    """Return how many cavities ``mask`` encloses (Betti number 2 in 3D, 1 in 2D).

    Args:
        mask: bool or anything that is non-zero inside.
        smallest_voxels: cavities with fewer voxels are left out.
    """
    box = next(iter(ndimage.find_objects((mask != 0).astype(np.uint8))), None)
    if box is None:
        return 0
    return int((np.bincount(cavities(mask[box]).ravel())[1:] >= smallest_voxels).sum())


def cavities(mask: Shaped[np.ndarray, "*grid"]) -> Int32[np.ndarray, "*grid"]:
    """Return the number of the cavity that each voxel lies in, from 1; 0 inside the structure and outside of it.

    The outside is connected through faces, as the inside is through corners; what opens to the grid's border is no
    cavity.
    """
    outside = np.pad(mask == 0, 1, constant_values=True)
    numbered = np.zeros(outside.shape, np.int32)
    ndimage.label(outside, output=numbered)
    # 0 is the structure, 1 what surrounds it: numbers are given in the order of the voxels.
    return np.maximum(numbered[(slice(1, -1),) * mask.ndim] - 1, 0)


def tunnels(mask: Shaped[np.ndarray, "x y z"]) -> int:
    """Return how many tunnels run through ``mask`` (Betti number 1), by Euler and Poincare: pieces + cavities - chi.

    Args:
        mask: bool or anything that is non-zero inside.
    """
    from skimage.measure import euler_number

    inside = np.pad(mask != 0, 1)
    return components(inside).count + holes(inside) - int(euler_number(inside, connectivity=3))


def betti_numbers(mask: Shaped[np.ndarray, "*grid"]) -> tuple[int, ...]:
    """Return the numbers of pieces, tunnels and cavities of ``mask`` in 3D, of pieces and holes in 2D.

    Args:
        mask: (X, Y, Z) or (X, Y), bool or anything that is non-zero inside.
    """
    pieces, cavities = components(mask).count, holes(mask)
    return (pieces, cavities) if mask.ndim == 2 else (pieces, tunnels(mask), cavities)


def betti_errors(p: Shaped[np.ndarray, "*grid"], q: Shaped[np.ndarray, "*grid"]) -> tuple[int, ...]:
    """Return, for each Betti number, by how much those of ``p`` and ``q`` differ; empty masks have zeros."""
    return tuple(abs(a - b) for a, b in zip(betti_numbers(p), betti_numbers(q), strict=True))
