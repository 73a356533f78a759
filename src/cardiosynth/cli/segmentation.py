"""From cases to a segmenter that was tested."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from cardiosynth.cli.app import Json, Mapped, Setting, app, output, positive, progress
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import say


@app.command(sort_key=6)
def segment(
    kind: str,
    /,
    *,
    test: Path,
    out: Path,
    pretrain: Path | None = None,
    finetune: Path | None = None,
    recipe: str | None = None,
    config: Path | None = None,
    overrides: Annotated[list[str] | None, Setting] = None,
    names: Annotated[list[str] | None, Mapped] = None,
    pretrain_share: float | None = None,
    no_confidence: bool = False,
    folds: int = 1,
    rdice_mm: float | None = None,
    device: str = "cpu",
    dry_run: bool = False,
    sample: int = 20,
    json: Annotated[bool, Json] = False,
) -> None:
    """Train a segmenter on synthetic cases, then on real ones, and test it. Run it again to go on after a stop.

    Args:
        kind: own (our networks), nnunet or medsam; see docs/segment.md.
        test: dataset folder to test on, or FOLDER:PART.
        out: the run's folder; gets results.json for cardiosynth report, cases.csv, predictions/ and the weights.
        pretrain: dataset folder of synthetic cases; without it real ones are trained on alone.
        finetune: dataset folder of real cases, whose label table is that of the segmenter.
        recipe: of own: SYSTEM/SIZE whose segmenter and intensities are taken, e.g. fcas/demo.
        config: YAML file of settings that differ.
        overrides: one setting, e.g. --set segmenter.training.steps=500; may be given often.
        names: what a structure becomes in every dataset that has it, e.g. --map aorta=ascending_aorta (=null leaves it
            out), or a JSON file of such pairs; may be given often.
        pretrain_share: of all steps or epochs, on synthetic cases; published 0.8.
        no_confidence: train on synthetic voxels as on real ones, whatever their confidence maps say.
        folds: train so many segmenters, each without a fold of the real cases, that decide together.
        rdice_mm: radius of RDice, 1.5 by default.
        device: cpu or cuda.
        dry_run: only show what would become of structures and what would be trained.
        sample: with --dry-run, how many cases of each dataset are looked at, 0 for all.
        json: progress, or with --dry-run the preview, as JSON.
    """
    progress(json)
    from cardiosynth.data.prepare.mapping import read_mapping
    from cardiosynth.evaluation.segmentations import RDICE_RADIUS_MM
    from cardiosynth.recipes.backends import find_backend
    from cardiosynth.recipes.segment import Segmentation, in_words, preview
    from cardiosynth.recipes.segment import segment as run

    positive(folds, "--folds")
    if rdice_mm is not None and rdice_mm <= 0:
        raise InputError(f"--rdice-mm {rdice_mm:g}: give a positive number of millimeters.")
    wanted = find_backend(kind, recipe, config, overrides or [])
    told = {"--recipe": recipe, "--config": config, "--pretrain-share": pretrain_share, "--rdice-mm": rdice_mm}
    told |= {"--folds": None if folds == 1 else folds, "--device": None if device == "cpu" else device}
    options = _options(told, {"--set": overrides, "--map": names}, ["--no-confidence"] if no_confidence else [])
    request = Segmentation(
        kind=kind, backend=wanted.changed(pretrain_share, no_confidence, folds), out=out, test=test, pretrain=pretrain,
        finetune=finetune, names=read_mapping(names or []), radius_mm=rdice_mm or RDICE_RADIUS_MM, device=device,
        options=options,
    )  # fmt: skip
    if dry_run:
        found = preview(request, sample)
        output(found, json, in_words)
        if found["problems"]:
            raise InputError(found["problems"][0])
        return
    results = run(request)
    page = results.with_suffix(".html")
    say(f"{results} written; cardiosynth report {results} --out {page} shows it.", results=str(results))


def _options(
    told: Mapping[str, object], repeated: Mapping[str, list[str] | None], flags: Sequence[str]
) -> tuple[str, ...]:
    """Return the words of a command line that says the same: option and value for what was told, then flags."""
    once = [(option, str(value)) for option, value in told.items() if value is not None]
    often = [(option, text) for option, texts in repeated.items() for text in texts or []]
    return (*(word for pair in (*once, *often) for word in pair), *flags)
