"""An experiment as a user asks for it, and how it is run: plan, study, results, report and files."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from cardiosynth.core.config import Settings, merge, parse_override, parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.store import write_text
from cardiosynth.evaluation.results import Results, environment, write_results
from cardiosynth.experiments.registry import Experiment, Option, Scale, Size
from cardiosynth.report.files import write_files
from cardiosynth.report.html import write_report
from cardiosynth.report.markdown import as_markdown

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be run, where, and with what.

    Attributes:
        experiment: which.
        out: its folder.
        scale: how much of everything.
        data: dataset of real cases; None draws phantoms where the experiment can.
        generator: run of a trained generator; None trains what is needed.
        seeds: how many; None for as many as the scale has.
        only: the parts to do now; all by default. Several processes may share the rest.
        methods: of those that are compared; all by default.
        changes: ``name=value`` for the experiment's own numbers, ``a.b=value`` for settings of its recipe.
        device: ``cpu`` or ``cuda``.
    """

    experiment: Experiment
    out: Path
    scale: Scale = "demo"
    data: Path | None = None
    generator: Path | None = None
    seeds: int | None = None
    only: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    device: str = "cpu"

    @property
    def size(self) -> Size:
        """How much is done."""
        return self.experiment.size(self.scale)

    def plan(self, kind: type[S], **given: object) -> S:
        """Return the study's plan: the experiment's values, the scale's, what was ``given`` (None was not), changes.

        Raises:
            InputError: a value that the plan does not have or allow.
        """
        values: dict[str, Any] = {**self.experiment.plan, **self.size.plan}
        values |= {key: value for key, value in given.items() if value is not None}
        if self.seeds is not None:
            values["seeds"] = list(range(self.seeds))
        of_recipe = [change for change in self.changes if "." in change.partition("=")[0]]
        if of_recipe:
            values["changes"] = [*values.get("changes", ()), *of_recipe]
        # Values may suit each other only together, so all are there before any is checked.
        whole: dict[str, Any] = {**dict.fromkeys(kind.model_fields), **values}
        for change in self.changes:
            if change not in of_recipe:
                own = parse_override(change)
                merge(whole, own, f"--set {change}")
                values |= own
        return parse_settings(kind, {name: whole[name] for name in values}, self.experiment.name)

    def command(self, *only: str) -> str:
        """Return the command that does this, or a part of it, again."""
        words: list[object] = ["cardiosynth", "experiment", self.experiment.name, self.out, "--scale", self.scale]
        said = {"data": self.data, "generator": self.generator, "seeds": self.seeds}
        words += [word for name, value in said.items() if value is not None for word in (f"--{name}", value)]
        words += ["--methods", *self.methods] if self.methods else []
        words += [word for change in self.changes for word in ("--set", change)]
        words += ["--device", self.device] if self.device != "cpu" else []
        words += ["--only", *(only or self.only)] if only or self.only else []
        return shlex.join(map(str, words))


def run_experiment(request: Request) -> Path:
    """Do what is not done yet and return the report.

    Writes, besides what the study does, ``results.json``, ``report.html``, ``table.md`` and ``files/``: charts as SVG
    and PNG, pictures as PNG, tables as CSV and LaTeX.

    Raises:
        InputError: options that the experiment does not take, or lacks; or what the study says.
    """
    _check(request)
    module, _, name = request.experiment.run.partition(":")
    run: Callable[[Request], Results] = getattr(import_module(module), name)
    results, out = run(request), request.out
    results = results.model_copy(update={"environment": environment()})
    write_results(results, out / "results.json")
    write_files(results, out / "files", out)
    write_text(out / "table.md", as_markdown(results))
    write_report(results, out / "report.html", relative_to=out)
    return out / "report.html"


def _check(request: Request) -> None:
    """Refuse options that the experiment does not take, and a request without those it needs."""
    experiment, size = request.experiment, request.size
    given: dict[Option, bool] = {
        "data": request.data is not None, "generator": request.generator is not None,
        "seeds": request.seeds is not None, "only": bool(request.only), "methods": bool(request.methods),
        "device": request.device != "cpu", "set": bool(request.changes),
    }  # fmt: skip
    for option, is_given in given.items():
        if is_given and option not in experiment.takes:
            others = ", ".join(f"--{other}" for other in experiment.takes)
            raise InputError(f"{experiment.name} does not take --{option}, leave it out; it takes {others}.")
        if option in size.needs and not is_given:
            command = experiment.makes[option]
            raise InputError(f"{experiment.name} at --scale {request.scale} needs --{option}; make it by {command}")
    if request.seeds is not None and request.seeds < 1:
        raise InputError(f"--seeds {request.seeds}: give a number of at least 1.")
