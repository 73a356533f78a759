"""The papers' tables, run by name."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cardiosynth.cli.app import Json, Setting, Several, app, progress
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.progress import say


@app.command(sort_key=8)
def experiment(
    name: str | None = None,
    out: Path | None = None,
    /,
    *,
    listed: Annotated[bool, Parameter("--list")] = False,
    scale: str = "demo",
    data: Path | None = None,
    generator: Path | None = None,
    seeds: int | None = None,
    only: Annotated[list[str] | None, Several] = None,
    methods: Annotated[list[str] | None, Several] = None,
    overrides: Annotated[list[str] | None, Setting] = None,
    device: str = "cpu",
    json: Annotated[bool, Json] = False,
) -> None:
    """Run a table of the papers, or a study of our own; without a name, list them. Run it again to go on after a stop.

    The report is OUT/report.html; OUT/files holds its charts and tables as files, OUT/table.md its tables as Markdown.

    Args:
        name: which one, e.g. fcas-table2.
        out: folder for everything.
        listed: list the experiments and what they cost.
        scale: tiny (a minute), demo (two CPU cores), small (a GPU) or paper (the published sizes).
        data: dataset of real cases; without it phantoms are drawn where the experiment can.
        generator: run of a trained generator; without it what is needed is trained first.
        seeds: how many trainings of everything that is compared; more may be added later.
        only: parts to do now, e.g. an arm or an arm with its seed; several processes may share the rest.
        methods: which methods are compared, where there are several; all by default.
        overrides: a number of the experiment, e.g. --set steps=200, or a setting of its recipe, e.g. --set
            segmenter.training.batch_size=4; may be given often.
        device: cpu or cuda.
        json: progress as JSON lines.
    """
    progress(json)
    from cardiosynth.experiments.registry import SCALES, find_experiment, listing

    if name is None or listed:
        print(listing())  # noqa: T201
        return
    found = find_experiment(name)
    if out is None:
        raise InputError(f"say where: cardiosynth experiment {name} OUT.")
    if scale not in SCALES:
        raise InputError(f"there is no scale '{scale}'" + suggest(scale, list(SCALES)))
    from cardiosynth.experiments.request import Request, run_experiment

    request = Request(
        experiment=found, out=out, scale=scale, data=data, generator=generator, seeds=seeds, only=tuple(only or ()),
        methods=tuple(methods or ()), changes=tuple(overrides or ()), device=device,
    )  # fmt: skip
    report = run_experiment(request)
    say(f"Open {report}", report=str(report))
