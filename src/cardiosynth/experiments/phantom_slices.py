"""Slices of phantoms as FQCDM takes them: three structures, gray values of MR, parts by patient.

For pictures and trials of the chain where no real slice may be shown. Phantoms are CT: their gray values are normalized
as if they were MR, and their slices are axial.

Run: ``python -m cardiosynth.experiments.phantom_slices OUT``. The same command goes on after a stop.
"""

from functools import partial
from pathlib import Path

from cyclopts import App

from cardiosynth.core.case import Case
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.progress import say
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.prepare.mapping import LabelMapping
from cardiosynth.data.prepare.run import prepare
from cardiosynth.data.prepare.settings import PrepareSettings, SliceSettings
from cardiosynth.data.sources.phantom.source import phantom
from cardiosynth.data.splits import read_split
from cardiosynth.data.stream import CaseStream

STRUCTURES = ("right_ventricle", "left_ventricular_myocardium", "left_ventricle")
"""Of ACDC."""
SPLIT = "train=0.7,validation=0.1,test=0.2"
FIELD_MM = 160.0
PHASES = 4
"""Protocols that take turns."""


def write_phantom_slices(out: Path, patients: int, size: int, thickness_mm: float = 8.0, seed: int = 0) -> Dataset:
    """Write the slices that show one of the structures, of so many phantoms.

    Args:
        out: dataset folder, with the parts of `SPLIT`.
        patients: how many, ten at least, so that every part has one.
        size: pixels per side, of a field of `FIELD_MM`.
        thickness_mm: distance of slices.
        seed: of the phantoms.
    """
    spacing_mm = (FIELD_MM / size, FIELD_MM / size, thickness_mm)
    shape = (size, size, round(FIELD_MM / thickness_mm))
    names: dict[str, str | None] = {label.name: None for label in CARDIAC_CT if label.name not in STRUCTURES}
    settings = PrepareSettings(
        spacing_mm=spacing_mm[:2], axes="image", normalize=True, mapping=LabelMapping(names=names),
        slices=SliceSettings(plane="axial", size=size, scale="mm"),
    )  # fmt: skip
    readers = {
        f"phantom-{index:05d}": partial(_as_mr, index, shape, spacing_mm, index % PHASES, seed)
        for index in range(patients)
    }
    return prepare(CaseStream(readers), out, settings, name="phantom slices", shares=read_split(SPLIT))


def _as_mr(*arguments) -> Case:
    case = phantom(*arguments)
    facts = {**case.provenance, "patient": case.case_id}
    return case.with_(intensity_unit="mr", provenance=facts)


app = App(help=__doc__)


@app.default
def main(out: Path, /, *, patients: int = 60, size: int = 64, seed: int = 0) -> None:
    """Write the slices, or what is not there yet of them.

    Args:
        out: dataset folder.
        patients: how many phantoms.
        size: pixels per side.
        seed: of the phantoms.
    """
    dataset = write_phantom_slices(out, patients, size, seed=seed)
    say(f"{out}: {len(dataset)} slices", cases=len(dataset))


if __name__ == "__main__":
    app()
