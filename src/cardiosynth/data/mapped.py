"""Datasets brought to one label table by name, mask by mask as they are read: nothing is copied."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.labels import LabelTable
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.preparation import KEY, read_preparation
from cardiosynth.data.prepare.mapping import BACKGROUND, LabelMapping

Names = Mapping[str, str | None]
"""What structures become, as `read_mapping` reads it; None stands for the background."""


def mapped(dataset: Dataset, mapping: LabelMapping) -> Dataset:
    """Return a dataset whose masks have another label table; the dataset itself where nothing changes.

    Its facts say what became of which structure, so that whatever is made from it tells one mapping from another.

    Raises:
        InputError: a mapping that does not suit the label table.
    """
    labels, becomes = mapping.target(dataset.labels), mapping.resolve(dataset.labels)
    if set(labels) == set(dataset.labels) and all(becomes[label.name] == label for label in labels):
        return dataset
    facts = dict(dataset.description.facts)
    facts["mapping"] = {name: None if new is None else new.name for name, new in becomes.items()}
    preparation = read_preparation(facts)
    if preparation is not None:
        codes = {label.name: label.code for label in labels}
        facts[KEY] = preparation.model_copy(update={"labels": codes}).recorded()
    description = replace(dataset.description, labels=labels, facts=facts)
    assert dataset.stored == dataset.labels, "a dataset is mapped once"
    return Dataset(dataset.root, description, dataset.rows, dataset.stored, mapping)


def one_table(datasets: Sequence[Dataset], names: Names) -> list[LabelMapping]:
    """Return how datasets come to one label table: the target structures of the first, under their new names.

    Structures of the other datasets that the table lacks become background, as do surroundings, which no segmenter
    learns.

    Args:
        datasets: the first one gives the table.
        names: holds for every dataset that has a structure of the name.

    Raises:
        InputError: a name that no dataset has or that the table lacks, a table without a target structure, or a
            dataset that lacks one of its structures.
    """
    known = {label.name for dataset in datasets for label in dataset.labels}
    for name in names:
        if name not in known:
            raise InputError(f"--map {name}: no dataset has such a structure" + suggest(name, sorted(known)))
    first = datasets[0]
    targets = LabelMapping(names=_own(first, names)).target(first.labels).targets
    if not targets:
        raise InputError(f"{first.root} has no target structure; give a dataset of what is to be segmented.")
    return [_to_table(dataset, LabelTable(labels=targets), names, first) for dataset in datasets]


def _to_table(dataset: Dataset, table: LabelTable, names: Names, first: Dataset) -> LabelMapping:
    allowed, own = {label.name for label in table}, _own(dataset, names)
    for name, new in own.items():
        if new is not None and new not in allowed:
            raise InputError(f"--map {name}={new}: {first.root} has no structure '{new}'" + suggest(new, list(allowed)))
    wanted = {label.name: own.get(label.name, label.name) for label in dataset.labels}
    wanted = {name: new if new in allowed else None for name, new in wanted.items()}
    lacking = [label.name for label in table.targets if label.name not in wanted.values()]
    if lacking:
        left = [name for name, new in wanted.items() if new is None and name not in own]
        raise InputError(_lacking(dataset, first, lacking, left))
    return LabelMapping(table=table, names=wanted)


def _own(dataset: Dataset, names: Names) -> dict[str, str | None]:
    """Return what is said of the dataset's structures; of one that gets its own name nothing is."""
    have = {label.name for label in dataset.labels}
    return {name: new for name, new in names.items() if name in have}


def _lacking(dataset: Dataset, first: Dataset, lacking: Sequence[str], left: Sequence[str]) -> str:
    """Return the sentence on structures of the table that a dataset lacks, with the likeliest mend.

    Args:
        dataset: that lacks them.
        first: that has them.
        lacking: their names.
        left: what the dataset has instead.
    """
    missing = lacking[0]
    for whole in left:
        parts = [name for name in lacking if _is_part(name, whole)]
        if len(parts) > 1:
            return (
                f"{first.root} tells {' and '.join(parts)} apart, {dataset.root} has {whole} alone, and a name cannot "
                f"split a structure; make them one with {_options(parts, whole)}."
            )
    parts = [name for name in left if _is_part(name, missing)]
    if parts:
        return f"{dataset.root} has no {missing}, but {' and '.join(parts)}; add {_options(parts, missing)}."
    has = f" ({', '.join(left)})" if left else ""
    return (
        f"{dataset.root} has no {', '.join(lacking)}, which {first.root} has; say which of its structures{has} it is "
        f"with --map NAME={missing}, or leave it out with --map {missing}={BACKGROUND}."
    )


def _is_part(name: str, whole: str) -> bool:
    """Whether a name says more than another, as ``left_coronary_artery`` does than ``coronary_artery``."""
    return set(whole.split("_")) < set(name.split("_"))


def _options(names: Sequence[str], new: str) -> str:
    return " ".join(f"--map {name}={new}" for name in names)
