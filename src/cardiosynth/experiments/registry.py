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


FCAS_TABLE_1 = Experiment(
    name="fcas-table1",
    title="FCaS and ten methods on the same cases, masks and budget",
    source="FCaS Table 1",
    run="cardiosynth.experiments.peers:experiment",
    takes=("data", "seeds", "only", "methods", "device", "set"),
    makes={"data": "cardiosynth prepare imagecas FOLDER data/imagecas --split train=200,validation=50,test=rest"},
    plan={
        "methods": [
            "ha-gan", "wdm", "medical-diffusion", "spade", "controlnet", "t2i-adapter", "diffinfinite", "pix2pix-3d",
            "med-ddpm", "maisi", "fcas",
        ],
    },
    sizes={
        "tiny": Size(
            cost="ten minutes",
            plan={
                "size": "tiny", "shape": [32, 32, 32], "patients": [3, 2, 2], "protocols": 1, "steps": 6,
                "judge": "fcas/tiny", "seer": "fqcdm/tiny", "judge_steps": 4,
            },
        ),
        "demo": Size(cost="five hours of one core; not measured", plan={"seconds": 600.0}),
        "small": Size(
            cost="ten hours of a GPU; not measured",
            plan={"shape": [96, 96, 96], "patients": [72, 12, 24], "seconds": 1200.0, "judge_steps": 3000},
        ),
        "paper": Size(
            cost="weeks of a GPU; not measured",
            plan={"size": "paper", "judge": "fcas/paper", "seer": "fqcdm/paper", "judge_steps": 20_000},
            needs=("data",),
        ),
    },
)  # fmt: skip
FQCDM_TABLES_1_TO_3 = Experiment(
    name="fqcdm-table1",
    also=("fqcdm-table2", "fqcdm-table3"),
    title="FQCDM and five methods on the same slices, masks and budget",
    source="FQCDM Tables 1 to 3",
    run="cardiosynth.experiments.peers:experiment",
    takes=("data", "seeds", "only", "methods", "device", "set"),
    makes={"data": "cardiosynth prepare acdc FOLDER data/acdc --recipe fqcdm/cpu --split fqcdm"},
    plan={"kind": "slices", "methods": ["vqvae", "dcgan", "cyclegan", "vqgan", "ddpm", "fqcdm"], "judge": "fqcdm/cpu"},
    sizes={
        "tiny": Size(
            cost="three minutes",
            plan={
                "size": "tiny", "shape": [32, 32, 32], "patients": [7, 1, 2], "steps": 6,
                "judge": "fqcdm/tiny", "seer": "fqcdm/tiny", "judge_steps": 4,
            },
        ),
        "demo": Size(cost="two hours of one core; not measured", plan={"seconds": 600.0}),
        "small": Size(
            cost="three hours of a GPU; not measured",
            plan={
                "shape": [128, 128, 128], "patients": [84, 12, 24], "seconds": 1200.0, "judge_steps": 3000,
            },
        ),
        "paper": Size(
            cost="weeks of a GPU; not measured",
            plan={"size": "paper", "judge": "fqcdm/paper", "seer": "fqcdm/paper", "judge_steps": 20_000},
            needs=("data",),
        ),
    },
)  # fmt: skip

_TRAINED = "cardiosynth train autoencoder, diffusion and control, on cases of no test patient"
_TINY_FCAS = {"recipe": "fcas/tiny", "training": 2, "protocols": 2, "steps": 8, "seeds": [0]}


def _downstream(name: str, protocol: str, title: str, source: str, costs: tuple[str, str], kind: str) -> Experiment:
    """Return a protocol of the downstream study; ``kind`` of data sets has the published one."""
    prepare = f"cardiosynth prepare {kind} FOLDER data/{kind} --recipe fcas/paper --split fcas-downstream"
    tiny = {**_TINY_FCAS, "scale": 0.02, "synthetic_scale": 0.2, "looked_at": 2}
    return Experiment(
        name=name, title=title, source=source, run="cardiosynth.experiments.downstream_study:experiment",
        takes=("data", "generator", "seeds", "only", "device", "set"), makes={"data": prepare, "generator": _TRAINED},
        plan={"protocol": protocol},
        sizes={
            "tiny": Size(cost="three minutes", plan=tiny),
            "demo": Size(cost=costs[0], plan={"steps": 800, "scale": 0.25, "synthetic_scale": 0.4}),
            "small": Size(
                cost=costs[1], plan={"recipe": "fcas/small", "steps": 5000, "training": 120, "protocols": 30}
            ),
            "paper": Size(
                cost="days of a GPU; not measured", plan={"steps": 250_000}, needs=("data", "generator")
            ),
        },
    )  # fmt: skip


FCAS_TABLE_2 = _downstream(
    "fcas-table2", "fcas-table-2", "What synthetic cases and confidence add to four annotated ones",
    "FCaS Table 2, nnU-Net's arms with our U-Net", ("an hour of two cores", "half a day of a GPU; not measured"),
    "mmwhs_ct",
)  # fmt: skip
FCAS_TABLE_3 = _downstream(
    "fcas-table3", "fcas-table-3", "How many synthetic cases stand for how many annotated ones",
    "FCaS Table 3", ("an hour of two cores", "half a day of a GPU; not measured"), "imagecas",
)  # fmt: skip
FCAS_TABLE_4 = _downstream(
    "fcas-table4", "fcas-table-4", "What weighting by confidence adds to the same synthetic cases",
    "FCaS Table 4, the row of SSV", ("50 minutes of two cores", "hours of a GPU; not measured"), "imagecas",
)  # fmt: skip
FEW_PHANTOMS = _downstream(
    "few-phantoms", "few-phantoms", "What pre-training is worth to few phantoms, and where it is lost",
    "", ("two hours of two cores", "half a day of a GPU; not measured"), "imagecas",
)  # fmt: skip

_PREPARE_ACDC = "cardiosynth prepare acdc FOLDER data/acdc --recipe fqcdm/cpu --split fqcdm"
_TRAINED_FQCDM = "cardiosynth train autoencoder and diffusion --recipe fqcdm/cpu, on the part train of the data"


def _strategies(
    name: str, strategies: tuple[str, ...], title: str, source: str, also: tuple[str, ...] = ()
) -> Experiment:
    """Return some of FQCDM's strategies."""
    tiny = {"recipe": "fqcdm/tiny", "patients": 12, "scale": 0.02, "steps": 4, "seeds": [0]}
    both = ["unet", "swin_unet"]
    return Experiment(
        name=name, also=also, title=title, source=source, run="cardiosynth.experiments.fqcdm_strategies:experiment",
        takes=("data", "generator", "seeds", "only", "device", "set"),
        makes={"data": _PREPARE_ACDC, "generator": _TRAINED_FQCDM}, plan={"strategies": list(strategies)},
        sizes={
            "tiny": Size(cost="three minutes", plan=tiny),
            "demo": Size(cost="two hours of one core with --generator, else four", plan={"patients": 80}),
            "small": Size(
                cost="hours of a GPU; not measured",
                plan={"recipe": "fqcdm/small", "steps": 5000, "patients": 120, "networks": both},
            ),
            "paper": Size(
                cost="a day of a GPU; not measured", needs=("data",),
                plan={"recipe": "fqcdm/paper", "steps": 20_000, "networks": both},
            ),
        },
    )  # fmt: skip


FQCDM_TABLE_4 = _strategies(
    "fqcdm-table4", ("table-4",), "Synthetic slices and augmentation beside real slices", "FQCDM Table 4"
)
FQCDM_TABLE_5 = Experiment(
    name="fqcdm-table5",
    title="What quantizing, the edge branch and denoising bring, each trained and left out",
    source="FQCDM Table 5",
    run="cardiosynth.experiments.fqcdm_tables:experiment",
    takes=("data", "seeds", "only", "device", "set"),
    makes={"data": _PREPARE_ACDC},
    sizes={
        "tiny": Size(
            cost="five minutes",
            plan={"recipe": "fqcdm/tiny", "patients": 12, "judge_steps": 1, "seeds": [0]},
        ),
        "demo": Size(cost="eight hours of one core for each seed", plan={"seeds": [0]}),
        "small": Size(
            cost="hours of a GPU; not measured",
            plan={"recipe": "fqcdm/small", "patients": 120, "judge_steps": 3000},
        ),
        "paper": Size(
            cost="days of a GPU; not measured", needs=("data",),
            plan={"recipe": "fqcdm/paper", "judge_steps": 20_000},
        ),
    },
)  # fmt: skip
FQCDM_FIGURE_4 = _strategies(
    "fqcdm-figure4", ("figure-4", "figure-5"), "Ever more synthetic slices, with real ones and alone",
    "FQCDM Fig. 4 and 5", ("fqcdm-figure5",),
)  # fmt: skip
FQCDM_FIGURE_6 = _strategies(
    "fqcdm-figure6", ("figure-6",), "Real slices learned after synthetic ones were painted", "FQCDM Fig. 6"
)

TEMPLATES = Experiment(
    name="templates",
    title="What a template brings: intensities, likeness, copies, and whether the image follows it",
    source="FCaS Table 4, the row of templates; StructDiff Fig. 5",
    run="cardiosynth.experiments.template_study:experiment",
    sizes={
        "tiny": Size(
            cost="three minutes",
            plan={
                "recipe": "fcas/tiny", "training": 2, "protocols": 1, "test": 6, "test_protocols": 2, "cases": 4,
                "steps": 2, "seeds": [0],
            },
        ),
        "demo": Size(cost="two hours of one core"),
        "small": Size(
            cost="hours of a GPU; not measured",
            plan={"recipe": "fcas/small", "training": 120, "protocols": 30, "cases": 24, "steps": 3000},
        ),
    },
)  # fmt: skip

CONFIDENCE = Experiment(
    name="confidence",
    title="Whether a confidence map tells where a synthetic image is wrong, better than its edges do",
    source="FCaS Eq. 7",
    run="cardiosynth.experiments.confidence_study:experiment",
    takes=("data", "generator", "seeds", "device", "set"),
    sizes={
        "tiny": Size(
            cost="three minutes",
            plan={
                "recipe": "fcas/tiny", "training": 2, "protocols": 1, "cases": 2, "seeds": [0],
                "maps": ["decoded", "latent"],
            },
        ),
        "demo": Size(cost="an hour of two cores"),
        "small": Size(
            cost="an hour of a GPU; not measured",
            plan={"recipe": "fcas/small", "training": 120, "protocols": 30, "cases": 24},
        ),
    },
)  # fmt: skip
AUTOENCODER = Experiment(
    name="autoencoder",
    title="What an autoencoder keeps of coronary arteries: voxel size, compression, adversarial term",
    run="cardiosynth.experiments.autoencoder_study:experiment",
    takes=("only", "device", "set"),
    sizes={
        "tiny": Size(
            cost="a minute",
            plan={
                "grids": {5.0: 24}, "training": 2, "protocols": 2, "held_out": 2, "steps": 2, "warmup_steps": 1,
                "segmenter_steps": 2, "crop": 24,
            },
        ),
        "demo": Size(cost="two hours of one core"),
        "small": Size(
            cost="hours of a GPU; not measured",
            plan={"training": 120, "protocols": 30, "held_out": 24, "steps": 6000, "warmup_steps": 2000, "crop": 64},
        ),
    },
)  # fmt: skip

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

EXPERIMENTS: tuple[Experiment, ...] = (
    FCAS_TABLE_1, FCAS_TABLE_2, FCAS_TABLE_3, FCAS_TABLE_4, FQCDM_TABLES_1_TO_3, FQCDM_TABLE_4, FQCDM_TABLE_5,
    FQCDM_FIGURE_4, FQCDM_FIGURE_6, FEW_PHANTOMS, TEMPLATES, CONFIDENCE, AUTOENCODER, MASKS,
)  # fmt: skip
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
