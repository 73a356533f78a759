"""Masks where there are none."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cardiosynth.cli.app import Json, app, output, progress
from cardiosynth.core.progress import say

if TYPE_CHECKING:
    from cardiosynth.data.annotate.run import Annotation

With = Parameter(name="--with", consume_multiple=True)


@app.command(sort_key=3)
def annotate(
    dataset: Path,
    out: Path,
    /,
    *,
    providers: Annotated[list[str] | None, With] = None,
    plan: Path | None = None,
    python: Path | None = None,
    device: str = "auto",
    replace: bool = False,
    dry_run: bool = False,
    json: Annotated[bool, Json] = False,
) -> None:
    """Give the cases of a dataset masks: from files, a trained nnU-Net or TotalSegmentator, merged by name.

    Args:
        dataset: a dataset folder or any plain nnU-Net raw folder; masks that it has take part.
        out: dataset folder to write; the same command goes on where it was stopped.
        providers: files:FOLDER, nnunet:MODEL_FOLDER or totalsegmentator:TASK (total, body, heartchambers_highres,
            coronary_arteries), once or more.
        plan: YAML with the providers instead, and what is renamed, dropped and ranked; --dry-run --json writes one.
        python: the Python that has nnU-Net or TotalSegmentator installed, where it is not this one.
        device: auto, cpu, cuda or cuda:N.
        replace: leave out the masks that DATASET has.
        dry_run: only check that everything needed is there, and list the structures of the result.
        json: progress, or with --dry-run the plan, as JSON.
    """
    progress(json)
    from cardiosynth.data.annotate.plan import plan_of
    from cardiosynth.data.annotate.run import annotate as run
    from cardiosynth.data.annotate.run import plan_annotation
    from cardiosynth.data.dataset import read_dataset

    wanted = plan_of(providers or (), plan, python, device, own=not replace)
    cases = read_dataset(dataset)
    annotation = plan_annotation(cases, wanted)
    if dry_run:
        output(wanted.model_dump(mode="json"), json, lambda _: _in_words(annotation))
        return
    made = run(annotation, out, name=cases.description.name)
    say(f"{out}: {len(made)} cases with masks of {len(annotation.labels)} structures", cases=len(made))


def _in_words(annotation: "Annotation") -> str:
    """Return which structure the result gets from whom."""

    def row(label: Any) -> str:
        givers = [provider.name for provider in annotation.providers if label.name in provider.roles]
        level = annotation.level(label.name)
        return f"{label.code:>4}  {label.name:<30} {label.role:<12} level {level}  from {', '.join(givers)}"

    cases = f"{len(annotation.dataset)} cases; where structures meet, the higher level has the voxel:"
    return "\n".join([cases, *map(row, annotation.labels)])
