"""What a recipe asks of a dataset, compared with what is there. The recipe comes from above, as a value."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cardiosynth.core.volume import Grid
from cardiosynth.data.check.finding import Finding
from cardiosynth.data.check.tissues import structure_of
from cardiosynth.data.dataset import Dataset

SPACING_TOLERANCE = 0.02
"""Share by which a voxel may differ from the recipe's."""


@dataclass(frozen=True)
class Needs:
    """What a recipe asks of a dataset.

    Attributes:
        recipe: its name.
        shape: voxels per axis that it is written for.
        spacing_mm: voxel size that it is written for; None where slices are scaled by the width of their image.
        multiple: every axis of a grid must be a multiple of this.
        unit: what images must be in.
        names: structure that it knows by name -> what for.
        least_cases: fewer cannot train.
        published_cases: how many the published system was trained with.
    """

    recipe: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None
    multiple: int
    unit: str
    names: Mapping[str, str] = field(default_factory=dict)
    least_cases: int = 2
    published_cases: int | None = None


def need_findings(needs: Needs, dataset: Dataset, grids: Sequence[Grid], pairs: int) -> list[Finding]:
    """Return where a dataset does not suit a recipe.

    Args:
        needs: what the recipe asks for.
        dataset: what is there.
        grids: of its cases.
        pairs: how many of them have an image and a mask.
    """
    return [
        *_unit(needs, dataset), *_shape(needs, dataset, grids), *_spacing(needs, dataset, grids),
        *_names(needs, dataset), *_cases(needs, pairs),
    ]  # fmt: skip


def _unit(needs: Needs, dataset: Dataset) -> list[Finding]:
    if dataset.intensity_unit == needs.unit:
        return []
    text = (
        f"{needs.recipe} is for images in {needs.unit} and these are in {dataset.intensity_unit}; give --set "
        f"intensity.unit={dataset.intensity_unit}, or another dataset."
    )
    return [Finding("error", "recipe_unit", None, text)]


def _shape(needs: Needs, dataset: Dataset, grids: Sequence[Grid]) -> list[Finding]:
    odd = Counter(
        g.shape for g in grids if len(g.shape) != len(needs.shape) or any(n % needs.multiple for n in g.shape)
    )
    mend = f"run `cardiosynth prepare nnunet {dataset.root} OUT --recipe {needs.recipe}`"
    if odd:
        shape, count = odd.most_common(1)[0]
        text = (
            f"{needs.recipe} needs {len(needs.shape)} axes of multiples of {needs.multiple} voxels, and "
            f"{sum(odd.values())} cases have others, e.g. {_product(shape)} ({count}); {mend}."
        )
        return [Finding("error", "recipe_grid", None, text, {"multiple": needs.multiple, "shape": list(shape)})]
    others = Counter(g.shape for g in grids if g.shape != needs.shape)
    if not others:
        return []
    shape, count = others.most_common(1)[0]
    text = (
        f"{needs.recipe} is written for grids of {_product(needs.shape)} voxels and {count} cases have "
        f"{_product(shape)}; {mend}, or give --set grid.shape={list(shape)}."
    )
    return [Finding("warning", "recipe_grid", None, text, {"wanted": list(needs.shape), "shape": list(shape)})]


def _spacing(needs: Needs, dataset: Dataset, grids: Sequence[Grid]) -> list[Finding]:
    wanted = needs.spacing_mm
    if wanted is None:
        return []
    kinds = Counter(tuple(round(v, 3) for v in g.spacing_mm) for g in grids if len(g.spacing_mm) == len(wanted))
    odd = {
        spacing: count for spacing, count in kinds.items()
        if any(abs(a / b - 1) > SPACING_TOLERANCE for a, b in zip(spacing, wanted, strict=True))
    }  # fmt: skip
    if not odd:
        return []
    spacing, count = max(odd.items(), key=lambda item: item[1])
    text = (
        f"{needs.recipe} is written for voxels of {_product(wanted)} mm and {count} cases have "
        f"{_product(spacing)}; run `cardiosynth prepare nnunet {dataset.root} OUT --recipe {needs.recipe}`, or give "
        f"--set grid.spacing_mm={list(spacing)}."
    )
    return [Finding("warning", "recipe_grid", None, text, {"wanted": list(wanted), "spacing": list(spacing)})]


def _names(needs: Needs, dataset: Dataset) -> list[Finding]:
    names = [label.name for label in dataset.labels]
    findings = []
    for name, purpose in needs.names.items():
        if name in names:
            continue
        alike = [other for other in names if structure_of(other) == name]
        if alike:
            text = f"{needs.recipe} knows '{alike[0]}' as '{name}' ({purpose}); rename it in the label table."
            findings.append(Finding("warning", "recipe_labels", None, text, {"name": name, "found": alike[0]}))
        else:
            text = f"there is no '{name}' in the label table, so {needs.recipe} passes over {purpose}."
            findings.append(Finding("info", "recipe_labels", None, text, {"name": name}))
    return findings


def _cases(needs: Needs, pairs: int) -> list[Finding]:
    published = f" ({needs.published_cases} in the publication)" if needs.published_cases else ""
    facts = {"pairs": pairs, "least": needs.least_cases, "published": needs.published_cases}
    if pairs < needs.least_cases:
        text = (
            f"{needs.recipe} needs {needs.least_cases} cases with image and mask, those it holds out among them, and "
            f"{pairs} are there{published}; add cases or hold out fewer."
        )
        return [Finding("error", "recipe_cases", None, text, facts)]
    return [Finding("info", "recipe_cases", None, f"{pairs} cases to train {needs.recipe} with{published}.", facts)]


def _product(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
