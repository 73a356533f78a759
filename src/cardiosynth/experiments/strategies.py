"""FQCDM's training strategies as values: which slices a segmenter learns from, and how (chapter 5).

Synthetic slices in several proportions (Fig. 4 and 5), painted before real ones are learned (Fig. 6), and with or
without augmentation (Table 4).
"""

from typing import Literal

import pydantic

from cardiosynth.core.config import Settings

Network = Literal["unet", "swin_unet"]
PAINTING_SHARE = 0.5
"""Of an arm's steps, where it paints first."""


class Arm(Settings):
    """One way to train a segmenter.

    Attributes:
        name: for people, files and ``--only``.
        real: how many real slices it learns from; None for all of the training patients.
        synthetic: how many synthetic slices, each drawn as often as a real one; None for the study's ratio to all real
            slices.
        painted: how many synthetic slices it has learned to paint before.
        augmented: whether examples are changed at random.
        steps_share: of the study's steps, all but where less is the point.
    """

    name: str
    real: int | None = 0
    synthetic: int | None = 0
    painted: int = pydantic.Field(default=0, ge=0)
    augmented: bool = False
    steps_share: float = pydantic.Field(default=1.0, gt=0, le=1)

    def scaled(self, factor: float) -> "Arm":
        """Return the arm with so many times the slices, two at least; its name stays."""
        counts = {"real": self.real, "synthetic": self.synthetic, "painted": self.painted}
        return self.model_copy(update={key: n and max(2, round(factor * n)) for key, n in counts.items()})


class Strategy(Settings):
    """Arms that belong together.

    Attributes:
        arms: by their names.
        pairs: (arm, baseline) whose difference is asked for.
        published: average Dice in %, by network and arm, where the paper has it in numbers.
    """

    arms: tuple[Arm, ...]
    pairs: tuple[tuple[str, str], ...]
    published: dict[Network, dict[str, float]] = {}  # noqa: RUF012


TABLE_4 = Strategy(
    arms=(
        Arm(name="synthetic", synthetic=None),
        Arm(name="real", real=None),
        Arm(name="synthetic-augmented", synthetic=None, augmented=True),
        Arm(name="real-augmented", real=None, augmented=True),
        Arm(name="both", real=None, synthetic=None),
        Arm(name="both-augmented", real=None, synthetic=None, augmented=True),
    ),
    pairs=(
        ("both-augmented", "real-augmented"), ("both", "real"), ("real-augmented", "real"),
        ("synthetic-augmented", "synthetic"), ("synthetic", "real"),
    ),
    published={
        "swin_unet": {
            "synthetic": 85.37, "real": 88.43, "synthetic-augmented": 87.49, "real-augmented": 90.01,
            "both": 88.06, "both-augmented": 90.87,
        },
        "unet": {
            "synthetic": 81.63, "real": 83.46, "synthetic-augmented": 83.04, "real-augmented": 85.69,
            "both": 83.38, "both-augmented": 86.72,
        },
    },
)  # fmt: skip
"""Synthetic slices and augmentation (5.3). The paper does not say how many slices there were of either kind."""

REAL_100 = Arm(name="real-100", real=100)
MIXED = (10, 20, 40, 80, 100, 200, 400, 800, 1000)
FIGURE_4 = Strategy(
    arms=(REAL_100, *(Arm(name=f"real-100-synthetic-{n}", real=100, synthetic=n) for n in MIXED)),
    pairs=tuple((f"real-100-synthetic-{n}", "real-100") for n in MIXED),
)
"""100 real slices and 0.1 to 10 times as many synthetic ones (5.1)."""

FIGURE_5 = Strategy(
    arms=(REAL_100, *(Arm(name=f"synthetic-{n}", synthetic=n) for n in MIXED)),
    pairs=tuple((f"synthetic-{n}", "real-100") for n in MIXED),
)
"""Synthetic slices alone (5.1), beside 100 real ones."""

TUNED = (50, 100, 250, 500)
FIGURE_6 = Strategy(
    arms=tuple(
        arm
        for n in TUNED
        for arm in (
            Arm(name=f"real-{n}", real=n),
            Arm(name=f"real-{n}-short", real=n, steps_share=1 - PAINTING_SHARE),
            Arm(name=f"painted-{n}", real=n, painted=500),
        )
    ),
    pairs=tuple(pair for n in TUNED for pair in ((f"painted-{n}", f"real-{n}"), (f"painted-{n}", f"real-{n}-short"))),
)
"""Real slices after 500 synthetic ones were painted (5.2): beside as many steps in all, and beside the steps on real
slices alone."""

STRATEGIES = {"table-4": TABLE_4, "figure-4": FIGURE_4, "figure-5": FIGURE_5, "figure-6": FIGURE_6}
