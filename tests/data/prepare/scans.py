"""A scan that tests prepare."""

from functools import partial

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.data.stream import CaseStream

TABLE = label_table({"heart": 1, "rib": 2}, surroundings=["rib"])


def scan(affine: np.ndarray, shape=(30, 32, 28), **changes) -> Case:
    """A bright ball (code 1) at (10, 12, 14) mm in a field that rises along x, a rib (code 2) at one corner."""
    index = np.zeros((3, *shape))
    index[: len(shape)] = np.indices(shape)
    place = np.tensordot(affine[:3, :3], index, 1) + affine[:3, 3].reshape(3, *[1] * len(shape))
    center = np.array([10.0, 12, 14 if len(shape) == 3 else 0]).reshape(3, *[1] * len(shape))
    ball = np.linalg.norm(place - center, axis=0) <= 6
    image = np.where(ball, 400, -100 + 2 * place[0]).round().astype(np.int16)
    mask = ball.astype(np.uint8)
    mask[(slice(0, 2),) * len(shape)] = 2
    return Case(
        **{"case_id": "a", "image": image[None], "mask": mask[None], "affine": affine, "labels": TABLE, **changes}
    )


def read(case: Case | str) -> Case:
    """Return the case; a text is the error of a broken one."""
    if isinstance(case, str):
        raise InputError(case)
    return case


def stream(**cases: Case | str) -> CaseStream:
    """A source of these cases by name."""
    named = {name: c if isinstance(c, str) else c.with_(case_id=name) for name, c in cases.items()}
    return CaseStream({name: partial(read, case) for name, case in named.items()})
