"""From shares of voxels to structures: calibers, pieces and the closing of FCaS Eq. 6.

A structure moved by a fraction of a voxel must be cut into voxels again. Chambers lose nothing by "the largest share
wins"; a vessel one voxel wide hardly ever has the largest share and breaks, so thin structures are cut piece by
piece at the share that keeps their volume, and what still broke is joined along the ridge of the shares.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage, sparse

from cardiosynth.anatomy.deform import Box, Deformation, pull_back
from cardiosynth.metrics.topology import centerline, components

SUPPORT = 0.02
"""Shares below are rounding; bridges run through larger ones only."""

SEARCH_STEPS = 12
"""Halvings of [0, 1] to find the share that keeps a volume: to 1/4096."""


SPECK = 0.01
"""Part of a structure below which a piece that its source does not have is an accident of the voxels."""


def closing(inside: Bool[np.ndarray, "*grid"]) -> Bool[np.ndarray, "*grid"]:
    """Return the morphological closing with a 2x2(x2) cube: dilation, then the erosion that undoes its shift.

    It contains ``inside`` and moves nothing; outside the grid is empty.
    """
    padded = np.pad(inside, 1)
    for axis in range(inside.ndim):
        before, after = _neighbors(padded, axis)
        before |= after
    for axis in range(inside.ndim):
        before, after = _neighbors(padded, axis)
        after &= before
    return padded[(slice(1, -1),) * inside.ndim]


def max_pool(inside: Bool[np.ndarray, "*grid"]) -> Bool[np.ndarray, "*grid"]:
    """Return the maximum over 2x2(x2) windows at stride 1, Eq. 6 as printed: a dilation by half a voxel."""
    out = inside.copy()
    for axis in range(inside.ndim):
        before, after = _neighbors(out, axis)
        before |= after
    return out


def is_thin(inside: Bool[np.ndarray, "*grid"]) -> bool:
    """Whether a structure is a tube (3D) or strip (2D) two voxels wide at most.

    Without its surface voxels a tenth of it is left or less, and it is no sheet: it has five voxels or fewer, three in
    a slice, per voxel of its centerline.
    """
    box = _box_of(inside)
    if box is None:
        return False
    # Beyond the border of the grid it goes on.
    core, voxels = int(ndimage.binary_erosion(inside[box], border_value=1).sum()), int(inside[box].sum())
    return core <= 0.1 * voxels and voxels <= (2 * inside.ndim - 1) * int(centerline(inside[box]).sum())


def one_wider(inside: Bool[np.ndarray, "*grid"]) -> Bool[np.ndarray, "*grid"]:
    """Return ``inside`` and every voxel next to it, through corners too."""
    out = inside
    for axis in range(inside.ndim):
        wider = out.copy()
        (before, after), (wider_before, wider_after) = _neighbors(out, axis), _neighbors(wider, axis)
        wider_before |= after
        wider_after |= before
        out = wider
    return out


def thin_structure(
    inside: Bool[np.ndarray, "*grid"], deformation: Deformation
) -> tuple[Bool[np.ndarray, "*grid"], float]:
    """Return a thin structure after deformation, every piece whole and of its caliber, and its volume in voxels.

    Pieces stay apart: what lies next to one that is there already is left to it.
    """
    out = np.zeros(deformation.shape, bool)
    volume = 0.0
    pieces, count = ndimage.label(inside, np.ones((3,) * inside.ndim))  # pyright: ignore[reportGeneralTypeIssues]
    for piece in range(1, count + 1):
        box, share = pull_back(pieces == piece, deformation)
        wanted = float(share.sum(dtype=np.float64))
        volume += wanted
        free = ~one_wider(out[box])
        share *= free
        if share.size and share.max() > SUPPORT:
            out[box] |= closing(joined(share >= volume_keeping_share(share, wanted), share)) & free
    return out, volume


def volume_keeping_share(share: Float[np.ndarray, "*box"], volume: float) -> float:
    """Return the share above which, after closing, lie ``volume`` voxels or as many as there are."""
    wanted = max(1.0, volume)
    low, high = SUPPORT, float(share.max())
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        if closing(share >= middle).sum() > wanted:
            low = middle
        else:
            high = middle
    return high


def joined(inside: Bool[np.ndarray, "*box"], share: Float[np.ndarray, "*box"]) -> Bool[np.ndarray, "*box"]:
    """Return ``inside`` with its fragments joined where the shares are connected.

    The bridges are the paths whose smallest share is largest: those of the maximum spanning tree over neighboring
    voxels, cut back to what lies between fragments.
    """
    node = np.flatnonzero((share > SUPPORT) | inside)
    first, second, weight = _edges(node, share)
    graph = sparse.coo_matrix((weight, (first, second)), (len(node), len(node))).tocsr()
    tree = sparse.csgraph.minimum_spanning_tree(graph).tocoo()
    ends = np.stack([tree.row, tree.col])
    wanted = inside.ravel()[node]
    while True:
        degree = np.bincount(ends.ravel(), minlength=len(node))
        needless = ((degree == 1) & ~wanted)[ends].any(axis=0)
        if not needless.any():
            break
        ends = ends[:, ~needless]
    out = inside.copy()
    out.flat[node[np.unique(ends)]] = True
    return out


def _edges(node: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs of neighboring nodes and 2 minus the smaller of their shares."""
    padded_shape = tuple(n + 2 for n in share.shape)
    place = np.ravel_multi_index(tuple(i + 1 for i in np.unravel_index(node, share.shape)), padded_shape)
    number = np.full(np.prod(padded_shape), -1, np.int32)
    number[place] = np.arange(len(node), dtype=np.int32)
    firsts, seconds = [], []
    for offset in np.ndindex(*(3,) * share.ndim):
        step = int(np.ravel_multi_index(offset, padded_shape) - np.ravel_multi_index((1,) * share.ndim, padded_shape))
        if step > 0:
            there = number[place + step]
            firsts.append(np.flatnonzero(there >= 0))
            seconds.append(there[there >= 0])
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    values = share.ravel()[node]
    return first, second, 2.0 - np.minimum(values[first], values[second])


def solid_structures(
    mask: UInt8[np.ndarray, "*grid"], solid: Iterable[int], thin: Iterable[int], deformation: Deformation
) -> tuple[UInt8[np.ndarray, "*grid"], dict[int, float]]:
    """Return the structures ``solid`` of ``mask`` after deformation, and the volume of each in voxels.

    In every voxel the largest share wins, the background's among them. Thin structures take their share from it, so
    that a ventricle does not swallow the vessel on it, and leave the voxel to the next largest.
    """
    out = np.zeros(deformation.shape, np.uint8)
    best = np.zeros(deformation.shape, np.float32)
    background = np.ones(deformation.shape, np.float32)
    volumes = {}
    for code in thin:
        box, share = pull_back(mask == code, deformation)
        background[box] -= share
    for code in solid:
        box, share = pull_back(mask == code, deformation)
        background[box] -= share
        volumes[code] = float(share.sum(dtype=np.float64))
        wins = share > best[box]
        best[box][wins], out[box][wins] = share[wins], code
    out[background > best] = 0
    return out, volumes


def close_each(mask: UInt8[np.ndarray, "*grid"], codes: Iterable[int]) -> UInt8[np.ndarray, "*grid"]:
    """Return ``mask`` with every structure closed; it gains background only, earlier codes first."""
    out = mask.copy()
    for code in codes:
        box = _box_of(mask == code)
        if box is not None:
            out[box][closing(mask[box] == code) & (out[box] == 0)] = code
    return out


def without_specks(
    mask: UInt8[np.ndarray, "*grid"], source: UInt8[np.ndarray, "*grid"], codes: Iterable[int]
) -> UInt8[np.ndarray, "*grid"]:
    """Return ``mask`` with no more pieces of a structure than ``source`` has, as far as specks are to blame.

    Where thin edges are cut into voxels, specks come off. The smallest pieces too many, each less than ``SPECK`` of
    the structure, take the code that most of their neighbors have.
    """
    out = mask.copy()
    for code in codes:
        before, after = _box_of(source == code), _box_of(out == code)
        if before is None or after is None:
            continue
        part = out[after]
        pieces = components(part == code)
        if pieces.count < 2:
            continue
        boxes = ndimage.find_objects(pieces.labels)
        for piece in range(components(source[before] == code).count + 1, pieces.count + 1):
            box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in boxes[piece - 1])
            speck = pieces.labels[box] == piece
            around = one_wider(speck) & ~speck
            if pieces.sizes[piece - 1] < SPECK * pieces.sizes.sum():
                part[box][speck] = np.bincount(part[box][around]).argmax()
    return out


def dilate_each(structures: Mapping[int, Bool[np.ndarray, "*grid"]], shape: tuple[int, ...]) -> np.ndarray:
    """Return the union of the max-pooled structures, Eq. 6 as printed; later ones are painted over earlier ones."""
    out = np.zeros(shape, np.uint8)
    for code, inside in structures.items():
        out[max_pool(inside)] = code
    return out


def _box_of(inside: np.ndarray) -> Box | None:
    found = ndimage.find_objects(inside.astype(np.uint8))
    return None if not found else tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in found[0])


def _neighbors(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return views of ``array`` without its last and without its first layer along ``axis``."""
    before: list[slice] = [slice(None)] * array.ndim
    after: list[slice] = [slice(None)] * array.ndim
    before[axis], after[axis] = slice(None, -1), slice(1, None)
    return array[tuple(before)], array[tuple(after)]
