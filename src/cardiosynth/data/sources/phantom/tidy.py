"""What the edge of the field of view cuts off from its structure loses its label."""

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from cardiosynth.core.labels import CARDIAC_CT, LabelTable

TOUCHING = np.ones((3, 3, 3), bool)
CUT_OFF_CODE = CARDIAC_CT.named("mediastinal_fat").code


def without_cut_off_pieces(
    mask: UInt8[np.ndarray, "x y z"], labels: LabelTable = CARDIAC_CT
) -> UInt8[np.ndarray, "x y z"]:
    """Return ``mask`` with every target structure in no more pieces (26-connected) than the table expects.

    A patient's structures are whole; more pieces come from the field of view's edge or from a wall thinner than a
    voxel. The largest pieces stay, the others become mediastinum.
    """
    mask = mask.copy()
    boxes = ndimage.find_objects(mask, max_label=255)
    for label in labels.targets:
        box = boxes[label.code - 1]
        if box is None or label.components is None:
            continue
        region = mask[box]
        pieces = np.empty(region.shape, np.int32)
        ndimage.label(region == label.code, TOUCHING, output=pieces)
        count = int(pieces.max())
        if count > label.components:
            sizes = np.bincount(pieces.ravel())[1:]
            dropped = np.zeros(count + 1, bool)
            dropped[1 + np.argsort(sizes)[: -label.components]] = True
            region[dropped[pieces]] = CUT_OFF_CODE
    return mask
