"""The papers' tables and our own studies as values: what ``cardiosynth experiment NAME`` can run.

A value names the function that runs it; nothing heavy is imported before it does. An experiment joins by one value here
and one function ``(Request) -> Results`` in a file of its own; see ``request.py``.
"""

from typing import Any, Literal, get_args

import pydantic

from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError, suggest

Scale = Literal["tiny", "demo", "small", "paper"]
"""``tiny`` shows in a minute that everything works; ``demo`` is for two CPU cores, ``small`` for 20 minutes of a GPU
per training, ``paper`` has the published sizes."""
SCALES: tuple[Scale, ...] = get_args(Scale)
Option = Literal["data", "generator", "seeds", "only", "methods", "device", "set"]
"""Options of the verb that not all experiments understand."""


class Size(Settings):
    """How much an experiment does at one scale.

    Attributes:
        cost: what it costs, for people; what was not measured says so.
        plan: values of the study's plan that differ from its own.
        needs: options that must be given at this scale.
    """

    cost: str
    plan: dict[str, Any] = {}  # noqa: RUF012
    needs: tuple[Option, ...] = ()


class Experiment(Settings):
    """A table or a study that can be run by name.

    Attributes:
        name: on the command line.
        also: other names, where one study fills several tables.
        title: what is asked, heading of its report.
        source: the paper and its table; empty for questions of our own.
        run: ``module:function`` that takes a ``Request`` and returns ``Results``.
        takes: options it understands.
        makes: the command that makes what ``needs`` asks for, by option.
        plan: values of the study's plan at every scale.
        sizes: by scale.
    """

    name: str = pydantic.Field(pattern=r"^[a-z0-9-]+$")
    also: tuple[str, ...] = ()
    title: str
    source: str = ""
    run: str = pydantic.Field(pattern=r"^\w+(\.\w+)+:\w+$")
    takes: tuple[Option, ...] = ("seeds", "only", "device", "set")
    makes: dict[Option, str] = {}  # noqa: RUF012
    plan: dict[str, Any] = {}  # noqa: RUF012
    sizes: dict[Scale, Size]

    @pydantic.model_validator(mode="after")
    def _needs_what_it_takes(self) -> "Experiment":
        for scale, size in self.sizes.items():
            for option in size.needs:
                if option not in self.takes or option not in self.makes:
                    raise ValueError(f"{self.name} needs {option} at {scale}: say that it takes it, and what makes it")
        return self

    def size(self, scale: str) -> Size:
        """Return how much is done at a scale.

        Raises:
            InputError: it has no such scale.
        """
        if scale not in self.sizes:
            raise InputError(f"{self.name} has no scale '{scale}'" + suggest(scale, list(self.sizes)))
        return self.sizes[scale]  # pyright: ignore[reportArgumentType]


MASKS = Experiment(
    name="masks",
    title="What deforming masks keeps of vessels, volumes, chambers and diversity",
    source="FCaS Eq. 5, 6",
    run="cardiosynth.experiments.mask_study:experiment",
    takes=("set",),
    sizes={
        "tiny": Size(
            cost="half a minute",
            plan={"grids": {3.2: 36}, "cases": 2, "reference_cases": {3.2: 1}, "diversity_mm": 3.2},
        ),
        "demo": Size(cost="an hour of one core"),
    },
)

EXPERIMENTS: tuple[Experiment, ...] = (MASKS,)
"""In the order of the papers' tables, ours last."""


def names() -> list[str]:
    """Return all names, those of further tables included."""
    return [name for experiment in EXPERIMENTS for name in (experiment.name, *experiment.also)]


def find_experiment(name: str) -> Experiment:
    """Return the experiment of this name.

    Raises:
        InputError: there is none.
    """
    for experiment in EXPERIMENTS:
        if name in (experiment.name, *experiment.also):
            return experiment
    raise InputError(f"there is no experiment '{name}'" + suggest(name, names()))


def listing() -> str:
    """Return every experiment with what it asks and what it costs, for people."""
    lines = []
    for experiment in EXPERIMENTS:
        source = f" ({experiment.source})" if experiment.source else ""
        lines += [", ".join((experiment.name, *experiment.also)), f"    {experiment.title}{source}"]
        lines += [f"    --scale {scale}: {size.cost}" for scale, size in experiment.sizes.items()]
    return "\n".join(lines)
