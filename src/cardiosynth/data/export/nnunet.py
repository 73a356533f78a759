"""An nnU-Net raw folder: cases with image and mask only, codes 1, 2, 3, ... without a gap, no sheared grid.

It is a dataset folder like any other, so confidence maps, provenance and the SYNTHETIC marks come along; nnU-Net looks
at ``dataset.json``, ``imagesTr`` and ``labelsTr`` alone. ``label_mapping.json`` says which code each new one was.
"""

import re
from pathlib import Path

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable, relabel
from cardiosynth.core.progress import Progress, say
from cardiosynth.core.store import write_json
from cardiosynth.data.dataset import SPLIT, Dataset, DatasetWriter, read_dataset
from cardiosynth.data.description import Description

MAPPING = "label_mapping.json"
FOLDER = re.compile(r"Dataset(\d{3})_\w+")


def export_nnunet(dataset: Dataset, out: Path) -> Dataset:
    """Write the pairs of ``dataset`` as an nnU-Net raw folder. Cases that are there already are kept.

    Args:
        dataset: cases without image or mask are left out, with a word.
        out: ``.../DatasetNNN_NAME``, the only name that nnU-Net finds.

    Raises:
        InputError: another name, no pair, a dataset made otherwise is there, or, at the end, cases that could not be
            exported.
    """
    number = _number(out)
    pairs = dataset.with_masks().with_images()
    if len(pairs) < len(dataset):
        say(f"{dataset.root}: {len(dataset) - len(pairs)} cases lack image or mask and are left out.")
    if not len(pairs):
        raise InputError(f"{dataset.root} holds no case with image and mask; nnU-Net needs both.")
    parts = sorted({str(row[SPLIT]).partition(".")[0] for row in pairs.rows.values() if row.get(SPLIT)})
    if len(parts) > 1:
        say(f"{dataset.root}: {' and '.join(parts)} go out together; {dataset.root}:{parts[-1]} is one part alone.")
    labels = consecutive(dataset.labels)
    facts = {**dataset.description.facts, "export": {"kind": "nnunet", "codes": _mapping(dataset.labels, labels)}}
    broken = []
    with DatasetWriter(out, labels, name=out.name, facts=facts) as writer, Progress("export", len(pairs)) as progress:
        for case_id in pairs.case_ids:
            if not writer.has(case_id):
                try:
                    writer.write(_converted(pairs.case(case_id), labels))
                except InputError as error:
                    broken.append(str(error))
            progress.update()
        write_json(out / MAPPING, _mapping(dataset.labels, labels))
    if broken:
        raise InputError(f"{len(broken)} cases cannot be exported: {' | '.join(broken)} The others are in {out}.")
    say(
        f"nnUNet_raw={out.resolve().parent} nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity",
        number=number,
    )
    return read_dataset(out)


def consecutive(labels: LabelTable) -> LabelTable:
    """Return the table with codes 1, 2, 3, ... in the order of the present ones."""
    ordered = sorted(labels, key=lambda label: label.code)
    return LabelTable(labels=tuple(x.model_copy(update={"code": i}) for i, x in enumerate(ordered, start=1)))


def source_codes(description: Description) -> LabelTable:
    """Return the label table of the dataset that an nnU-Net folder was exported from; its own where it was not.

    Args:
        description: of the folder, or of a model that was trained on it.
    """
    codes = description.facts.get("export", {}).get("codes", {})
    labels = (x.model_copy(update={"code": codes[x.name]["code"]} if codes else {}) for x in description.labels)
    return LabelTable(labels=tuple(labels))


def _mapping(source: LabelTable, target: LabelTable) -> dict[str, dict[str, int]]:
    return {label.name: {"code": source.named(label.name).code, "nnunet": label.code} for label in target}


def _number(out: Path) -> int:
    match = FOLDER.fullmatch(out.name)
    if not match:
        raise InputError(f"nnU-Net does not find a folder named '{out.name}'; name it like Dataset501_Heart.")
    return int(match[1])


def _converted(case: Case, labels: LabelTable) -> Case:
    if case.grid.is_sheared:
        raise InputError(
            f"case {case.case_id}: its grid is sheared, which nnU-Net cannot read; straighten it first with "
            "`cardiosynth prepare nnunet DATASET OUT --shape X Y Z`."
        )
    mask, _ = relabel(case.required_mask(), case.labels, labels)
    return case.with_(mask=mask, labels=labels)
