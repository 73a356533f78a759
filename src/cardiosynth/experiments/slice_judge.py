"""Do synthetic slices show what their masks say? Asked of segmenters that took no part in any training.

A generator learns from the training patients, and so does whatever guides or screens it. The judge learns from the
validation and the test patients instead, cross-fitted: test patients are shared out to two halves, and what shows a
patient of one half is judged by the segmenter that has learned from the other half and the validation patients. Slices
for the masks of other patients have one of the two, by the hash of their names. Real test slices are judged alike.

Run: ``python -m cardiosynth.experiments.slice_judge OUT --data ACDC --synthetic DATASET``. The same command goes on
after a stop; further ``--synthetic`` datasets may be given later.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import App, Parameter

from cardiosynth.core.config import with_overrides
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import Progress
from cardiosynth.core.random import named_seed
from cardiosynth.core.store import read_json, write_json, write_text
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.data.preparation import suited_scale
from cardiosynth.data.splits import fold_of, patient_of
from cardiosynth.evaluation.judge import agreement, refuse_partial
from cardiosynth.evaluation.results import Cell, Column, Table, estimate
from cardiosynth.evaluation.statistics import mean_interval, mean_of
from cardiosynth.recipes.registry import find_recipe
from cardiosynth.report.markdown import table_markdown
from cardiosynth.segmentation.augmentation import GEOMETRIC
from cardiosynth.segmentation.predict import Segmenter, load_segmenter
from cardiosynth.segmentation.staged import load_folds, of_length, train_folds
from cardiosynth.segmentation.task import SegmentationStage, train_segmenter

HALVES = 2
SEED = 1009
"""Of the judge's weights and halves: that of no other training here."""
REAL = "real test slices"


def train_judge(
    out: Path, data: Path, recipe: str, steps: int, changes: Sequence[str] = (), device: str = "cpu"
) -> list[Segmenter]:
    """Train the two segmenters, or what is not trained yet of them; see the module.

    Args:
        out: gets ``fold-0`` and ``fold-1``; each is trained without the test patients of its half.
        data: real slices with the parts ``validation`` and ``test``.
        recipe: whose segmenter is trained, with augmentation.
        steps: optimizer steps of each.
        changes: ``segmenter.a=value`` settings of the recipe that differ.
        device: ``cpu`` or ``cuda``.
    """
    test, validation = (read_dataset(data).part(name) for name in ("test", "validation"))
    stage = _stage(recipe, steps, changes)
    train_folds(test, out, stage, suited_scale(test), count=HALVES, mixed_with=[validation], device=device)
    return load_folds(out, device)


def train_extractor(
    out: Path, data: Path, recipe: str, steps: int, changes: Sequence[str] = (), device: str = "cpu"
) -> Segmenter:
    """Train a segmenter whose features shall compare sets of slices: on the validation patients, whom no set shows.

    The halves' segmenters know half of the real slices that they would compare with synthetic ones.

    Args:
        out: the segmenter's run.
        data: real slices with the part ``validation``.
        recipe: whose segmenter is trained, with augmentation.
        steps: optimizer steps.
        changes: ``segmenter.a=value`` settings of the recipe that differ.
        device: ``cpu`` or ``cuda``.
    """
    validation = read_dataset(data).part("validation")
    train_segmenter(validation, out, _stage(recipe, steps, changes), suited_scale(validation), device=device)
    return load_segmenter(out, device)


def _stage(recipe: str, steps: int, changes: Sequence[str]) -> SegmentationStage:
    base = with_overrides(find_recipe(recipe), changes).segmenter
    return of_length(base.model_copy(update={"augmentation": GEOMETRIC}), steps, seed=SEED)


def judged(judges: Sequence[Segmenter], test: Dataset, shown: Dataset) -> list[dict[str, Any]]:
    """Return a row per slice: ``case``, ``reference`` (whose mask it has), ``patient``, and ``dice`` by structure.

    Args:
        judges: of the halves.
        test: what they were cross-fitted on.
        shown: real or synthetic slices.

    Raises:
        InputError: a judge took part in making what is shown.
    """
    halves = {patient_of(case_id): half for case_id, half in fold_of(test.case_ids, HALVES, SEED).items()}
    for judge in judges:
        refuse_partial(judge, shown)
    rows = []
    with Progress(f"judge {shown.root.name}", len(shown)) as progress:
        for case in shown:
            reference = _reference(case.case_id, case.provenance)
            patient = patient_of(reference)
            half = halves.get(patient, named_seed(SEED, case.case_id) % HALVES)
            found = {name: seen.dice for name, seen in agreement(judges[half], case).items()}
            dice = {name: value if np.isfinite(value) else None for name, value in found.items()}
            rows.append({"case": case.case_id, "reference": reference, "patient": patient, "dice": dice})
            progress.update()
    return rows


def _reference(case_id: str, provenance: Mapping[str, Any]) -> str:
    """Return the real slice whose mask a slice has, or which its mask was made from."""
    return str(provenance["parents"][0] if provenance.get("parents") else provenance.get("reference", case_id))


def agreement_table(real: Sequence[Mapping[str, Any]], synthetic: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Return how well the judges find the masks' structures in every set, beside real slices."""
    names = list(real[0]["dice"])
    cells: list[tuple[Cell, ...]] = []
    for title, rows in {REAL: real, **synthetic}.items():
        patients = [row["patient"] for row in rows]
        values = [[mean_of(row["dice"].values()) for row in rows]]
        values += [[mean_of([row["dice"][name]]) for row in rows] for name in names]
        found = (estimate(mean_interval(np.array([line], np.float64), patients)) for line in values)
        cells.append((title, len(rows), *found, over_real(rows, real)))
    dice = [Column(title=name.replace("_", " "), better="higher", digits=3) for name in ("Dice", *names)]
    columns = (Column(title="slices"), Column(title="n", digits=0), *dice, Column(title="over real", digits=3))
    protocol = (
        "Mean over slices with 95 % bootstrap intervals over patients. Over real: of the means, those of real slices "
        "of the same masks where all of them are test slices, else of all test slices."
    )
    return Table(title="Masks found again", protocol=protocol, columns=columns, rows=tuple(cells))


def over_real(rows: Sequence[Mapping[str, Any]], real: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean agreement of slices over that of real ones: of the same masks, where those are among them."""
    of = {row["case"]: mean_of(row["dice"].values()) for row in real}
    references = [row["reference"] for row in rows]
    beside = [of[name] for name in references] if of.keys() >= set(references) else list(of.values())
    return mean_of(mean_of(row["dice"].values()) for row in rows) / mean_of(beside)


app = App(help=__doc__)


@app.default
def main(
    out: Path,
    /,
    *,
    data: Path,
    synthetic: Annotated[list[Path] | None, Parameter(consume_multiple=True)] = None,
    recipe: str = "fqcdm/cpu",
    steps: int = 1000,
    changes: Annotated[list[str] | None, Parameter("--set", consume_multiple=False)] = None,
    device: str = "cpu",
) -> None:
    """Train the judge and let it judge, or what is not done yet.

    Args:
        out: folder for everything.
        data: real slices, split by patient into train, validation and test.
        synthetic: datasets of synthetic slices, best for masks of test patients.
        recipe: whose segmenter is trained.
        steps: optimizer steps of each of the two segmenters.
        changes: one setting of the recipe, e.g. --set segmenter.training.batch_size=4; may be given often.
        device: cpu or cuda.
    """
    judges = train_judge(out / "judge", data, recipe, steps, changes or [], device)
    test, found = read_dataset(data).part("test"), {}
    sets = {REAL: test, **{folder.name: read_dataset(folder) for folder in synthetic or []}}
    if len(sets) != 1 + len(synthetic or []):
        raise InputError("two of the --synthetic folders have one name; give them different ones.")
    for title, dataset in sets.items():
        file = out / "agreement" / f"{title.replace(' ', '-')}.json"
        known = {"cases": list(dataset.case_ids), "judges": [judge.fingerprint for judge in judges]}
        if not file.exists() or {key: read_json(file)[key] for key in known} != known:
            write_json(file, {**known, "rows": judged(judges, test, dataset)})
        found[title] = read_json(file)["rows"]
    write_text(out / "table.md", table_markdown(agreement_table(found.pop(REAL), found)) + "\n")
    print((out / "table.md").read_text())  # noqa: T201


if __name__ == "__main__":
    app()
