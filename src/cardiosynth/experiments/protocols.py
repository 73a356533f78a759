"""Ways to train a segmenter with few annotated cases, as values: what is learned from, in which order, for how long.

All arms of a protocol take the same number of optimizer steps in all, so that real cases alone are given the steps of
pre-training and fine-tuning together (published: 1000 epochs against 800 and 200). The one exception says so:
``real only, short`` has the steps of fine-tuning alone, and tells what pre-training adds to them.
"""

from typing import Literal

import pydantic

from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.segmentation.losses import ConfidenceWeights
from cardiosynth.segmentation.staged import StagedTraining, of_length
from cardiosynth.segmentation.task import SegmentationStage

Source = Literal["deformed", "reference", "coded", "others"]
"""Cases besides the real ones: synthetic images for masks deformed from the templates' (MGM); synthetic images for
other patients' own masks; these patients' real images, encoded and decoded by the autoencoder; these images as they
are. Each differs from the next in one thing: the masks, the diffusion model, the autoencoder."""


class Arm(Settings):
    """One way to train a segmenter.

    Attributes:
        name: of the folder.
        real: how many annotated real cases it has.
        source: what else it learns from; None for real cases alone.
        count: how many cases of ``source``.
        confidence: how confidence maps weigh them (CAL, Eq. 9); None weighs every voxel alike (Eq. 8).
        shares: real and other cases are mixed, and drawn in this proportion; None trains on the others first.
        pretrain_share: of the steps, where the others come first. Published: 0.8.
        finetune_factor: learning rate of fine-tuning over that of pre-training. Published: 1.
        steps_share: of the protocol's steps, all but where less is the point.
    """

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9.-]+$")
    real: int = pydantic.Field(ge=2)
    source: Source | None = None
    count: int = pydantic.Field(default=0, ge=0)
    confidence: ConfidenceWeights | None = None
    shares: tuple[pydantic.PositiveFloat, pydantic.PositiveFloat] | None = None
    pretrain_share: float = pydantic.Field(default=0.8, gt=0, lt=1)
    finetune_factor: float = pydantic.Field(default=1.0, gt=0)
    steps_share: float = pydantic.Field(default=1.0, gt=0, le=1)

    @pydantic.model_validator(mode="after")
    def _has_cases(self) -> "Arm":
        if (self.source is None) != (self.count == 0):
            raise ValueError(f"arm {self.name}: count must be given with a source, and only then")
        if self.source is None and (self.shares is not None or self.confidence is not None):
            raise ValueError(f"arm {self.name}: without a source there is nothing to mix or to weigh")
        return self

    @property
    def pretraining(self) -> str | None:
        """What is the same for all arms that share a pre-training; None where nothing is pre-trained."""
        if self.source is None or self.shares is not None:
            return None
        return f"{self.source}-{self.count}-{self._weights}-{self.pretrain_share:g}"

    @property
    def _weights(self) -> str:
        weights = self.confidence
        if weights is None:
            return "plain"
        return f"cal-{weights.floor:g}" + ("-relative" if weights.relative else "")

    def stage(self, base: SegmentationStage, steps: int, seed: int) -> SegmentationStage:
        """Return all its steps as one training: of real cases alone, of mixed ones, or to be shared out."""
        stage = of_length(base, round(self.steps_share * steps), seed=seed)
        return stage.model_copy(update={"confidence": self.confidence, "shares": self.shares or ()})

    def staged(self, base: SegmentationStage, steps: int, seed: int) -> StagedTraining:
        """Return its steps as pre-training and fine-tuning."""
        rate = self.finetune_factor * base.training.learning_rate
        stage = self.stage(base, steps, seed)
        return StagedTraining(stage=stage, pretrain_share=self.pretrain_share, finetune_learning_rate=rate)


class Published(Settings):
    """What a paper found for an arm, in %: Dice and RDice of all structures or the first set, and of the coronaries."""

    dice: float
    rdice: float | None = None
    coronary_dice: float | None = None
    coronary_rdice: float | None = None


class Protocol(Settings):
    """Arms that are compared on the same test cases.

    Attributes:
        baseline: the arm that all others are compared with.
        arms: of real and other cases in the published numbers.
        test: how many test cases where they are drawn; of a given dataset ``split`` decides.
        split: how a dataset of real cases is split into real and test (see ``data/splits.py``).
        published: what the paper found, by arm.
    """

    baseline: str
    arms: tuple[Arm, ...]
    test: int = pydantic.Field(default=20, ge=2)
    split: str = "fcas-downstream"
    published: dict[str, Published] = {}  # noqa: RUF012

    @pydantic.model_validator(mode="after")
    def _names_arms(self) -> "Protocol":
        names = [arm.name for arm in self.arms]
        unknown = {self.baseline, *self.published} - set(names)
        if len(set(names)) < len(names) or unknown:
            raise ValueError(f"a protocol needs arms of different names, {sorted(unknown)} among them")
        return self

    @property
    def real(self) -> int:
        """How many real cases its arms need."""
        return max(arm.real for arm in self.arms)

    def count(self, *sources: Source) -> int:
        """Return how many cases of these sources its arms need."""
        return max((arm.count for arm in self.arms if arm.source in sources), default=0)

    def scaled(self, factor: float, synthetic: float = 1.0) -> "Protocol":
        """Return the protocol with so many times the cases, two at least; names stay.

        Args:
            factor: on all numbers.
            synthetic: on top of it, on those of all but the real ones.
        """

        def of(number: int, times: float = 1.0) -> int:
            return max(2, round(factor * times * number)) if number else 0

        arms = [arm.model_copy(update={"real": of(arm.real), "count": of(arm.count, synthetic)}) for arm in self.arms]
        return self.model_copy(update={"arms": tuple(arms), "test": of(self.test)})


CAL = ConfidenceWeights()


def _synthetic(name: str, real: int, count: int, **changes: object) -> Arm:
    return Arm.model_validate({"name": name, "real": real, "source": "deformed", "count": count} | changes)


FEW_PHANTOMS = Protocol(
    baseline="real-only",
    arms=(
        Arm(name="real-only", real=4),
        Arm(name="real-only-short", real=4, steps_share=0.2),
        _synthetic("plain-40", 4, 40), _synthetic("cal-40", 4, 40, confidence=CAL),
        _synthetic("plain-160", 4, 160), _synthetic("cal-160", 4, 160, confidence=CAL),
        # As many real examples as the staged arms see, then as many as synthetic ones.
        _synthetic("mixed-160", 4, 160, confidence=CAL, shares=(1, 4)),
        _synthetic("mixed-160-1to1", 4, 160, confidence=CAL, shares=(1, 1)),
        # What pre-training is worth at best, and what the autoencoder, the diffusion model and the masks take from it.
        Arm(name="others-40", real=4, source="others", count=40),
        Arm(name="coded-40", real=4, source="coded", count=40),
        Arm(name="reference-40", real=4, source="reference", count=40),
        # Schedules.
        _synthetic("cal-160-rate0.3", 4, 160, confidence=CAL, finetune_factor=0.3),
        _synthetic("cal-160-rate0.1", 4, 160, confidence=CAL, finetune_factor=0.1),
        _synthetic("cal-160-share0.5", 4, 160, confidence=CAL, pretrain_share=0.5),
        _synthetic("cal-160-share0.2", 4, 160, confidence=CAL, pretrain_share=0.2),
        # How strongly confidence weighs.
        _synthetic("cal-160-relative", 4, 160, confidence=ConfidenceWeights(floor=0.1, relative=True)),
    ),
)  # fmt: skip
"""Four annotated phantoms, and what can be added to them; the paper has nothing like it."""

TABLE_2 = Protocol(
    baseline="real-only",
    arms=(
        # MM-WHS: 20 annotated CT scans, split 1:4.
        Arm(name="real-only", real=4),
        Arm(name="plain-750", real=4, source="reference", count=750),
        Arm(name="cal-750", real=4, source="reference", count=750, confidence=CAL),
    ),
    test=16,
    published={"real-only": Published(dice=78.63, rdice=80.88), "cal-750": Published(dice=89.31, rdice=92.48)},
)
"""FCaS Table 2, nnU-Net on MM-WHS: 750 masks of other patients, not deformed."""

TABLE_3 = Protocol(
    baseline="II",
    arms=(
        Arm(name="I", real=176), Arm(name="II", real=20),
        _synthetic("III", 20, 400, confidence=CAL), _synthetic("IV", 20, 1000, confidence=CAL),
    ),
    test=80,
    published={
        "I": Published(dice=88.43, rdice=92.10, coronary_dice=78.89, coronary_rdice=83.32),
        "II": Published(dice=86.04, rdice=89.84, coronary_dice=72.37, coronary_rdice=79.54),
        "III": Published(dice=88.62, rdice=91.75, coronary_dice=78.91, coronary_rdice=83.23),
        "IV": Published(dice=89.68, rdice=92.68, coronary_dice=80.29, coronary_rdice=84.38),
    },
)  # fmt: skip
"""FCaS Table 3: how many synthetic cases, their masks made by MGM from a library of 50 templates. The paper does not
say how many test cases there were."""

TABLE_4 = Protocol(
    baseline="without-SSV",
    arms=(_synthetic("without-SSV", 20, 1000), _synthetic("with-SSV", 20, 1000, confidence=CAL)),
    test=80,
    published={"without-SSV": Published(dice=86.05), "with-SSV": Published(dice=87.27)},
)
"""FCaS Table 4, the row of SSV: the same images with and without their confidence. The paper gives no numbers of cases;
ours are those of group IV of Table 3."""

PROTOCOLS = {"few-phantoms": FEW_PHANTOMS, "fcas-table-2": TABLE_2, "fcas-table-3": TABLE_3, "fcas-table-4": TABLE_4}


def find_protocol(name: str) -> Protocol:
    """Return the protocol of this name.

    Raises:
        InputError: there is none.
    """
    if name not in PROTOCOLS:
        raise InputError(f"there is no protocol '{name}'" + suggest(name, list(PROTOCOLS)))
    return PROTOCOLS[name]
