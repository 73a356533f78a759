"""Where a body is in a CT: what is denser than fat-free air, in one piece, with its lungs and bowels."""

import numpy as np
from jaxtyping import Bool, Shaped
from scipy import ndimage

SKIN_HU = -500.0
"""Half-way between air and water, where a boundary blurred by the scanner lies."""


def body_envelope(image_hu: Shaped[np.ndarray, "*grid"]) -> Bool[np.ndarray, "*grid"]:
    """Return the largest connected piece above ``SKIN_HU``, its holes filled in every axial slice.

    Air that a slice shows open to its rim - a lung cut by the field of view - stays outside. A table that touches the
    body belongs to it.

    Args:
        image_hu: axes X Y Z (or X Y), HU.
    """
    dense = image_hu > SKIN_HU
    pieces, count = ndimage.label(dense)  # pyright: ignore[reportGeneralTypeIssues]
    if count == 0:
        return dense
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    body = pieces == sizes.argmax()
    if body.ndim == 2:
        return _filled(body)
    return np.stack([_filled(body[..., z]) for z in range(body.shape[2])], axis=2)


def _filled(body: Bool[np.ndarray, "x y"]) -> Bool[np.ndarray, "x y"]:
    return np.asarray(ndimage.binary_fill_holes(body), bool)
