"""From synthetic and real cases to a segmenter that was tested: one label table, training, masks, measures."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import say, track
from cardiosynth.core.store import fingerprint, write_text
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.data.mapped import mapped, one_table
from cardiosynth.data.prepare.mapping import BACKGROUND, LabelMapping
from cardiosynth.data.prepare.preview import SAMPLE, StructureCounts, spread_out, structure_lines
from cardiosynth.evaluation.results import write_results
from cardiosynth.evaluation.segmentations import RDICE_RADIUS_MM
from cardiosynth.evaluation.segmenter import Trial, case_rows, judge, trial_results
from cardiosynth.recipes.backends import Backend
from cardiosynth.training.log import keep_config

PREDICTIONS, RESULTS, CASES = "predictions", "results.json", "cases.csv"
"""What a run gets beside its trained stages."""


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """A request for a trained and tested segmenter.

    Attributes:
        kind: name of the backend.
        backend: its settings.
        out: the run's folder.
        test: dataset folder of cases that nobody is trained on.
        pretrain: dataset folder of synthetic cases.
        finetune: dataset folder of real cases.
        names: what structures become, wherever they are.
        radius_mm: tolerance of RDice.
        device: ``cpu`` or ``cuda``.
        options: words of the command line that are not above, to repeat it.
    """

    kind: str
    backend: Backend
    out: Path
    test: Path
    pretrain: Path | None = None
    finetune: Path | None = None
    names: Mapping[str, str | None] = field(default_factory=dict)
    radius_mm: float = RDICE_RADIUS_MM
    device: str = "cpu"
    options: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command line that does the same."""
        given = {"--pretrain": self.pretrain, "--finetune": self.finetune, "--test": self.test, "--out": self.out}
        words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
        return shlex.join(["cardiosynth", "segment", self.kind, *words, *self.options])


ROLES = ("finetune", "pretrain", "test")
"""What datasets are for; the first that there is gives the label table."""


def segment(request: Segmentation) -> Path:
    """Train, predict the test cases and judge them; the same call goes on after a stop.

    Returns:
        The results file. Beside it are ``cases.csv``, ``predictions/`` and the trained stages.

    Raises:
        InputError: datasets that do not suit each other, the backend or the settings, or a folder that holds something
            else.
    """
    given, run = _datasets(request), request.out
    mappings = _mappings(request, given)
    data = {role: mapped(dataset, mappings[role]) for role, dataset in given.items()}
    _begin(request, data, mappings)
    pretrain, finetune, test = data.get("pretrain"), data.get("finetune"), data["test"]
    request.backend.train(pretrain, finetune, run, request.device)
    predicted = request.backend.predict(run, test, run / PREDICTIONS, request.device)
    judged = judge(predicted, test, request.radius_mm)
    trial = Trial(
        name=request.kind, test=request.test.name, trained=_in_sentences(_plan(request, data)),
        prompts=request.backend.prompts, radius_mm=request.radius_mm, command=request.command,
    )  # fmt: skip
    write_text(run / CASES, case_rows(judged, request.radius_mm))
    write_results(trial_results(judged, test.labels, trial), run / RESULTS)
    return run / RESULTS


def preview(request: Segmentation, sample: int = SAMPLE) -> dict[str, Any]:
    """Return what :func:`segment` would do; nothing is written.

    Args:
        request: what is asked for.
        sample: how many cases of each dataset to look at, evenly spread; 0 for all.

    Returns:
        ``labels`` (name -> code of what is learned), ``datasets`` (for each role its folder, cases, how many were
        looked at, and what becomes of which structure in how many of these), ``steps`` (what would be done, in words),
        ``hints`` (what is likely not meant) and ``problems`` (what would be refused, one sentence each).

    Raises:
        InputError: datasets that cannot be brought to one label table.
    """
    given = _datasets(request)
    mappings = _mappings(request, given)
    looked = {role: _look(role, dataset, mappings[role], sample) for role, dataset in given.items()}
    table = mappings["test"].table
    assert table is not None, "one_table gives every mapping its table"
    return {
        "labels": {label.name: label.code for label in table},
        "datasets": {role: found for role, (found, _) in looked.items()},
        "steps": [*_plan(request, given), f"predict and judge: {len(given['test'])} cases"],
        "hints": [hint for found, _ in looked.values() for hint in _unseen(found)],
        "problems": [problem for _, problems in looked.values() for problem in problems],
    }


def in_words(found: Mapping[str, Any]) -> str:
    """Return a preview as lines to read."""
    lines = ["learned: " + ", ".join(f"{name} ({code})" for name, code in found["labels"].items())]
    for role, dataset in found["datasets"].items():
        counted = "all" if dataset["looked_at"] == dataset["cases"] else dataset["looked_at"]
        lines.append(f"{role}: {dataset['folder']}, {dataset['cases']} cases; counted in {counted} of them:")
        lines += structure_lines(dataset["structures"])
    return "\n".join([*lines, *found["steps"], *found["hints"], *found["problems"]])


def _datasets(request: Segmentation) -> dict[str, Dataset]:
    """Return the datasets by role, of cases with image and mask.

    Raises:
        InputError: nothing to train on, a dataset without such cases, or test cases that are trained on.
    """
    if request.pretrain is None and request.finetune is None:
        raise InputError("there is nothing to train on; give --pretrain, --finetune, or both.")
    given: dict[str, Dataset] = {}
    for role in ROLES:
        folder = getattr(request, role)
        if folder is not None:
            given[role] = read_dataset(folder).with_images().with_masks()
            if not len(given[role]):
                raise InputError(f"{folder} has no case with image and mask; --{role} needs both.")
    test = {(given["test"].root.resolve(), case_id) for case_id in given["test"].case_ids}
    for role, dataset in given.items():
        both = [case_id for case_id in dataset.case_ids if (dataset.root.resolve(), case_id) in test]
        if role != "test" and both:
            raise InputError(
                f"{both[0]} of {dataset.root} is both trained on and tested; give --test cases that --{role} lacks."
            )
    return given


def _mappings(request: Segmentation, given: Mapping[str, Dataset]) -> dict[str, LabelMapping]:
    return dict(zip(given, one_table(list(given.values()), request.names), strict=True))


def _plan(request: Segmentation, data: Mapping[str, Dataset]) -> list[str]:
    return request.backend.plan(*(len(data[role]) if role in data else 0 for role in ("pretrain", "finetune")))


def _in_sentences(plan: list[str]) -> str:
    return " ".join(f"{line[0].upper()}{line[1:]}." for line in plan)


def _look(role: str, dataset: Dataset, mapping: LabelMapping, sample: int) -> tuple[dict[str, Any], list[str]]:
    """Return what becomes of the structures of a dataset, and what is wrong with its cases."""
    chosen, counts, problems = spread_out(dataset.case_ids, sample), StructureCounts(mapping), []
    for case_id in track(chosen, f"look at {role}", len(chosen)):
        try:
            counts.add(dataset.case(case_id))
        except InputError as error:
            problems.append(str(error))
    about = {"folder": str(dataset.root), "cases": len(dataset), "looked_at": len(chosen), "structures": counts.rows()}
    return about, problems


def _unseen(found: Mapping[str, Any]) -> list[str]:
    """Return a sentence on each structure that is to be learned or judged and that no case shows."""
    shown = {row["target"] for row in found["structures"] if row["cases"]}
    unseen = sorted({row["target"] for row in found["structures"]} - shown - {None})
    return [
        f"{found['folder']}: no case that was looked at shows {name}; where none has it drawn, leave it out with "
        f"--map {name}={BACKGROUND}, or the segmenter learns that it is not there."
        for name in unseen
    ]


def _begin(request: Segmentation, data: Mapping[str, Dataset], mappings: Mapping[str, LabelMapping]) -> None:
    """Write what the run is made of, or see that it goes on as it began.

    Raises:
        InputError: it does not, or the folder holds something else.
    """
    run = request.out
    begun = (run / "config.json").exists()
    if not begun and run.exists() and any(not path.name.startswith(".partial-") for path in run.iterdir()):
        raise InputError(f"{run} is not empty and was not made by this command; give a new folder.")
    about = {
        "kind": request.kind,
        "plan": _plan(request, data),
        "settings": request.backend.record(),
        "rdice_radius_mm": request.radius_mm,
        "data": {role: _identity(dataset, mappings[role]) for role, dataset in data.items()},
    }
    keep_config(run, about, resumes=begun, writes=True)
    if not begun:
        say(f"{run}: {_in_sentences(_plan(request, data))}")


def _identity(dataset: Dataset, mapping: LabelMapping) -> dict[str, Any]:
    """Return what tells a dataset from another, wherever it lies."""
    return {
        "cases": len(dataset),
        "files": fingerprint([[case_id, row.get("files")] for case_id, row in dataset.rows.items()]),
        "labels": {label.name: label.code for label in dataset.labels},
        "map": {name: new or BACKGROUND for name, new in mapping.names.items()},
    }
