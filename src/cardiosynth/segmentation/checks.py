"""What cases, datasets and earlier weights must have in common with a segmenter."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cardiosynth.core.case import Case
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.store import latest_checkpoint, read_json
from cardiosynth.data.preparation import Preparation, check_preparation, check_window, preparation_of
from cardiosynth.segmentation.networks import SegmenterSettings

MAY_DIFFER = ("labels", "shape")
"""Of preparations: structures are compared case by case, by name, surroundings left out; crops are of any size."""


def check_axes(case: Case, network: SegmenterSettings) -> None:
    """See that the network takes a case of this many axes.

    Raises:
        InputError: it does not.
    """
    axes = len(case.grid.shape)
    if axes != network.spatial_dims:
        raise InputError(
            f"case {case.case_id} has {axes} axes and the segmenter takes {network.spatial_dims}; set "
            f"segmenter.network.spatial_dims to {axes} and train one for it."
        )


def check_structures(case: Case, labels: LabelTable) -> None:
    """See that the case's target structures are those of ``labels``.

    Raises:
        InputError: they are not.
    """
    difference = _other_structure(case.labels, labels)
    if difference:
        raise InputError(f"case {case.case_id}: {difference} in the other cases; bring all cases to one label table.")


def check_datasets(datasets: Sequence[Sequence], shares: Sequence[float], scale: IntensityScale) -> None:
    """See that datasets can be mixed: prepared alike, for the window, and with a share for each.

    Args:
        datasets: the first one and those mixed with it.
        shares: of examples; none where every case is drawn equally often.
        scale: how the network sees intensities.

    Raises:
        InputError: naming the setting or the dataset.
    """
    if shares and len(shares) != len(datasets):
        raise InputError(
            f"segmenter.shares has {len(shares)} numbers for {len(datasets)} datasets; give one for each, or none."
        )
    first = preparation_of(datasets[0])
    for dataset in datasets:
        check_window(dataset, scale)
        found = preparation_of(dataset)
        fields = [] if found is None or first is None else [f for f in found.differing(first) if f not in MAY_DIFFER]
        if fields and first is not None:
            raise InputError(
                f"{_name(dataset)} was prepared otherwise than {_name(datasets[0])} ({', '.join(fields)}); "
                f"run `{_preparing(dataset, first)}`."
            )


def check_start(init: Path, cases: Sequence, labels: LabelTable, scale: IntensityScale) -> None:
    """See that weights to start from were trained on the same structures, the same window and voxels of the same size.

    Nothing is known of a file of weights alone, or of a checkpoint that says nothing; shapes are checked anyway.

    Args:
        init: a stage's folder, a checkpoint, or a file.
        cases: to train on.
        labels: of the cases to train on.
        scale: how the network is to see intensities.

    Raises:
        InputError: no checkpoint, or one that was trained otherwise.
    """
    record = {} if init.suffix == ".safetensors" else _record(init)
    check_preparation(cases, record, init, besides=MAY_DIFFER)
    if "labels" in record:
        theirs = parse_settings(LabelTable, record["labels"], f"{init}, labels")
        difference = _other_structure(theirs, labels)
        if difference:
            raise InputError(f"{init}: {difference} in the cases to train on; bring both to one label table.")
    if "intensity" in record:
        before = parse_settings(IntensityScale, record["intensity"], f"{init}, intensity")
        if before != scale:
            raise InputError(
                f"{init} was trained on intensities as {_in_words(before)}, not {_in_words(scale)}; set intensity as "
                "it was, or train anew."
            )


def _record(init: Path) -> Mapping[str, Any]:
    file = latest_checkpoint(init) / "record.json"
    return read_json(file) if file.exists() else {}


def _other_structure(one: LabelTable, other: LabelTable) -> str:
    """Return in words the first target structure in which two label tables differ; nothing where there is none."""
    own, wanted = ({label.code: label.name for label in table.targets} for table in (one, other))
    codes = [code for code in own.keys() | wanted.keys() if own.get(code) != wanted.get(code)]
    return (
        f"code {min(codes)} is {own.get(min(codes), 'nothing')} and {wanted.get(min(codes), 'nothing')}"
        if codes
        else ""
    )


def _in_words(scale: IntensityScale) -> str:
    ends = scale.percentiles if scale.unit == "mr" else None
    if ends is None:
        return f"{scale.unit} {scale.window.low:g} to {scale.window.high:g}"
    return f"{scale.unit}, percentiles {ends[0]:g} to {ends[1]:g}"


def _preparing(dataset: object, wanted: Preparation) -> str:
    """Return the command that prepares ``dataset`` as wanted."""
    options = wanted.model_copy(update=dict.fromkeys(MAY_DIFFER)).options("")
    return shlex.join(["cardiosynth", "prepare", "nnunet", _name(dataset), "OUT", *options])


def _name(dataset: object) -> str:
    return str(getattr(dataset, "root", "the other dataset"))
