"""Datasets for other programs."""

from pathlib import Path
from typing import Annotated

from cardiosynth.cli.app import Json, app, progress
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.progress import say

KINDS = ("nnunet", "dicom")


@app.command(sort_key=9)
def export(kind: str, dataset: Path, out: Path, /, *, json: Annotated[bool, Json] = False) -> None:
    """Write a dataset as others want it: an nnU-Net raw folder, or DICOM series with DICOM-SEG.

    Args:
        kind: nnunet (pairs with codes 1, 2, 3, ...) or dicom (needs the extra dicom).
        dataset: a dataset folder, FOLDER:PART for one part of its split, or any plain nnU-Net raw folder.
        out: folder to write, for nnunet named like Dataset501_Heart; cases that are there already are kept.
        json: progress as JSON lines.
    """
    progress(json)
    if kind not in KINDS:
        raise InputError(f"there is no kind of export '{kind}'" + suggest(kind, list(KINDS)))
    from cardiosynth.data.dataset import read_dataset

    cases = read_dataset(dataset)
    if kind == "nnunet":
        from cardiosynth.data.export.nnunet import export_nnunet

        count = len(export_nnunet(cases, out))
    else:
        from cardiosynth.data.export.dicom import export_dicom

        count = len(export_dicom(cases, out))
    say(f"{out}: {count} cases as {kind}", cases=count)
