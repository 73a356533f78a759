"""Label tables: which code in a mask means which structure, and what that structure should look like."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import pydantic

from cardiosynth.core.config import Settings, parse_settings
from cardiosynth.core.errors import InputError, suggest

Role = Literal["target", "surrounding"]

VESSELS = frozenset(
    ("artery", "arteries", "aorta", "coronary", "coronaries", "vein", "veins", "vena", "venae", "vessel", "vessels")
)
"""Words of a name that make a structure a vessel."""


class Label(Settings):
    """One structure of a mask.

    Attributes:
        name: the structure's name, lower case with underscores.
        code: its value in masks, 1..255; 0 is the background.
        role: ``target`` structures are what the user wants synthesized and segmented (the paper's cardiac
            classes); ``surrounding`` ones reach the model through the template only.
        color: red, green and blue, 0..255.
        components: how many connected pieces the structure should have, None where any number is right.
    """

    name: str = pydantic.Field(pattern=r"^[a-z0-9_]+$")
    code: int = pydantic.Field(ge=1, le=255)
    role: Role = "target"
    color: tuple[int, int, int]
    components: int | None = None

    @property
    def title(self) -> str:
        """The name as a person writes it."""
        return self.name.replace("_", " ")

    @property
    def is_vessel(self) -> bool:
        """Whether the name says that it is a tube, so that it has a centerline to follow: an artery, aorta or vein."""
        return not VESSELS.isdisjoint(self.name.split("_"))


class LabelTable(Settings):
    """The structures of a dataset. An input of every stage: users bring their own."""

    labels: tuple[Label, ...] = pydantic.Field(min_length=1)

    @pydantic.model_validator(mode="after")
    def _unique(self) -> "LabelTable":
        for what in ("code", "name"):
            values = [getattr(label, what) for label in self.labels]
            double = sorted({str(v) for v in values if values.count(v) > 1})
            if double:
                raise ValueError(f"the label table holds the {what} {', '.join(double)} more than once")
        return self

    def __iter__(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def codes(self) -> tuple[int, ...]:
        """All codes, ascending."""
        return tuple(sorted(label.code for label in self.labels))

    @property
    def targets(self) -> tuple[Label, ...]:
        """The target structures, by ascending code."""
        return tuple(sorted((x for x in self.labels if x.role == "target"), key=lambda x: x.code))

    @property
    def target_codes(self) -> tuple[int, ...]:
        """Codes of the target structures, ascending."""
        return tuple(label.code for label in self.targets)

    def named(self, name: str) -> Label:
        """Return the label called ``name`` (case, spaces and hyphens do not matter).

        Raises:
            InputError: no label has this name.
        """
        wanted = normalized_name(name)
        for label in self.labels:
            if label.name == wanted:
                return label
        names = [label.name for label in self.labels]
        raise InputError(f"the label table has no structure '{name}'" + suggest(wanted, names))

    def colors(self) -> np.ndarray:
        """Return the (256, 3) uint8 color of every code; codes without a label are mid gray, 0 is black."""
        table = np.full((256, 3), 128, np.uint8)
        table[0] = 0
        for label in self.labels:
            table[label.code] = label.color
        return table

    def only_targets(self, mask: np.ndarray) -> np.ndarray:
        """Return ``mask`` (any shape, uint8) with everything but the target structures set to 0."""
        keep = np.zeros(256, np.uint8)
        keep[list(self.target_codes)] = self.target_codes
        return keep[mask]


PALETTE = (
    (230, 57, 70), (255, 159, 28), (46, 196, 182), (255, 209, 102), (67, 97, 238), (114, 9, 183),
    (214, 140, 140), (76, 201, 240), (120, 144, 156), (224, 224, 208), (189, 183, 160), (141, 85, 36),
    (255, 120, 60), (90, 130, 200), (200, 160, 220), (150, 110, 110), (240, 228, 160),
)  # fmt: skip


def normalized_name(name: str) -> str:
    """Return ``name`` in lower case with single underscores: ``"Left Ventricle"`` is ``"left_ventricle"``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def label_table(names: Mapping[str, int], surroundings: Iterable[str] = ()) -> LabelTable:
    """Return a table for plain ``name -> code`` pairs, such as those of an nnU-Net ``dataset.json``.

    Structures that the default cardiac table knows keep its color, role and number of components, so that a
    structure looks the same everywhere. Code 0 (background) is passed over.

    Raises:
        InputError: two structures of one name or code, a code beyond 1..255, or a name without a letter.
    """
    outer = {normalized_name(name) for name in surroundings}
    known = {label.name: label for label in CARDIAC_CT}
    labels: list[dict[str, Any]] = []
    for index, (name, code) in enumerate((n, c) for n, c in names.items() if c != 0):
        key = normalized_name(name)
        color = known[key].color if key in known else PALETTE[index % len(PALETTE)]
        role: Role = "surrounding" if key in outer or (key in known and known[key].role != "target") else "target"
        components = known[key].components if key in known else None
        labels.append({"name": key, "code": code, "role": role, "color": color, "components": components})
    return parse_settings(LabelTable, {"labels": labels}, "the label table")


def relabel(mask: np.ndarray, source: LabelTable, target: LabelTable) -> tuple[np.ndarray, list[str]]:
    """Return ``mask`` with the codes of ``target``, matched by name, and the names that ``target`` does not have.

    Voxels of structures that ``target`` does not have become background.

    Args:
        mask: any shape, uint8, in the codes of ``source``.
        source: what the codes mean now.
        target: what they shall mean.
    """
    codes = {label.name: label.code for label in target}
    table = np.zeros(256, np.uint8)
    for label in source:
        table[label.code] = codes.get(label.name, 0)
    present = set(np.unique(mask).tolist())
    missing = [label.name for label in source if label.name not in codes and label.code in present]
    return table[mask], missing


def _cardiac_ct() -> LabelTable:
    targets = [
        ("coronary_artery", 2), ("ascending_aorta", 1), ("left_atrium", 1), ("left_ventricle", 1),
        ("right_atrium", 1), ("right_ventricle", 1), ("left_ventricular_myocardium", 1), ("pulmonary_artery", 1),
    ]  # fmt: skip
    surroundings = [
        "lung", "ribs_and_sternum", "spine", "liver", "descending_aorta", "great_veins", "esophagus",
        "body_wall", "mediastinal_fat",
    ]  # fmt: skip
    labels = [
        Label(name=name, code=code, role="target", color=PALETTE[code - 1], components=components)
        for code, (name, components) in enumerate(targets, start=1)
    ] + [
        Label(name=name, code=code, role="surrounding", color=PALETTE[code - 1])
        for code, name in enumerate(surroundings, start=9)
    ]
    return LabelTable(labels=tuple(labels))


CARDIAC_CT = _cardiac_ct()
"""FCaS's eight cardiac structures (section 3.1.1) with codes 1..8, and nine surrounding ones, 9..17."""
