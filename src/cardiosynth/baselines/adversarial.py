"""Adversarial peers behind the Generator contract: one task, one record and one generator for all their games."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import torch
from torch import Tensor

from cardiosynth import __version__
from cardiosynth.autoencoder.losses import Perceptual
from cardiosynth.baselines.cases import synthetic
from cardiosynth.baselines.games import Game, GameSettings
from cardiosynth.baselines.method import Terms
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings, parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.random import draw_int, generator, named_weights
from cardiosynth.core.store import read_json
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.loader import CaseCache
from cardiosynth.data.preparation import check_window, recorded_preparation
from cardiosynth.sampling.fitting import check_grid, reference_of
from cardiosynth.training.loop import Batch, Player, fit
from cardiosynth.training.processes import join_processes
from cardiosynth.training.settings import TrainingSettings
from cardiosynth.training.state import WithOpponent, load_weights

STAGE = "adversarial"

PUBLISHED = TrainingSettings(
    learning_rate=2e-4, betas=(0.5, 0.999), weight_decay=0.0, max_gradient_norm=1e6, ema_decay=0.0, precision="fp32",
    checkpoint_every=1000,
)  # fmt: skip
"""What the published methods have in common: Adam without decay, unclipped gradients, raw weights, float32."""


class AdversarialStage(Settings):
    """Everything that decides how an adversarial peer is trained.

    Attributes:
        method: its name on the command line.
        game: its networks and losses.
        pace: the discriminators' learning rate over the generators'.
        shape: voxels per axis of its images.
        intensity: how images become model units.
        training: the loop's settings.
    """

    method: str
    game: pydantic.SerializeAsAny[GameSettings]
    pace: float = pydantic.Field(default=1.0, gt=0)
    shape: tuple[int, ...] = ()
    intensity: IntensityScale = IntensityScale()
    training: TrainingSettings = PUBLISHED

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "AdversarialStage":
        if self.training.compile:
            # The players hand over what was made, which does not fit into one graph.
            raise ValueError("two players cannot be compiled; set training.compile=false")
        return self

    def under(self, terms: Terms) -> "AdversarialStage":
        """Return the stage of these terms: their shape, intensities, seed and steps."""
        given = {"shape": terms.shape, "intensity": terms.intensity, "training": terms.training(self.training)}
        return self.model_copy(update=given)


class AdversarialTask:
    """A game as the loop trains it.

    Args:
        cache: what it learns from, whole cases of the stage's shape, each drawn equally often.
        game: its networks.
        stage: how.

    Raises:
        InputError: a case on another grid.
    """

    def __init__(self, cache: CaseCache, game: Game, stage: AdversarialStage):
        self.cache, self.game, self.stage = cache, game, stage
        self.module = WithOpponent(game.used, game.opponent)
        for case in cache.cases:
            _check_shape(case, stage)

    def players(self) -> list[Player]:
        """Return the generators and, after them, the discriminators."""
        makers, judges = self.game.sides()
        return [
            Player("generator", makers, self.game.generators_loss, follow=self.game.follow),
            Player("discriminator", judges, self.game.discriminators_loss, pace=self.stage.pace),
        ]

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """Return ``image`` in [-1, 1] and where the game has masks ``mask``, (b, 1, *grid), and ``index`` (b,)."""
        examples = [self._example(rng) for rng in generators]
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    def case_names(self, batch: Batch) -> list[str]:
        """Return the names of the cases of a batch."""
        return [self.cache.case_ids[index] for index in batch["index"].tolist()]

    def _example(self, rng: torch.Generator) -> dict[str, Tensor]:
        index = draw_int(len(self.cache), rng)
        example = {"image": 2 * self.cache.image(index) - 1, "index": torch.tensor(index)}
        if self.game.masks != "none":
            whose = index if self.game.masks == "own" else draw_int(len(self.cache), rng)
            example["mask"] = self.cache.mask(whose)
        return example | self.game.draw(rng)


def train_adversarial(
    cases: Dataset, run: Path, stage: AdversarialStage, perceptual: Perceptual | None = None, *, device: str = "cpu"
) -> Path:
    """Train an adversarial peer; the same call goes on after a stop.

    Args:
        cases: with images, and masks where the method is told of them; others are passed over.
        run: the run's folder; gets ``adversarial/``.
        stage: how.
        perceptual: distance of two images, where the game weighs one.
        device: cpu or cuda.

    Returns:
        The last checkpoint. Its ``record.json`` holds ``stage``, ``settings`` (of the stage), ``intensity``,
        ``labels``, ``grid``, ``preparation``, ``cases``, ``perceptual``, ``licences``, ``code_version``, and what the
        loop adds.

    Raises:
        InputError: fewer than two cases, cases that do not suit, or a run begun otherwise.
    """
    check_window(cases, stage.intensity)
    game = build_game(stage, cases.labels, perceptual)
    usable = cases.with_images() if game.masks == "none" else cases.with_images().with_masks()
    cache = CaseCache(usable, stage.intensity)
    task = AdversarialTask(cache, game, stage)
    record = {**adversarial_record(cache, stage), **recorded_preparation(cases)}
    record["perceptual"] = None if perceptual is None else perceptual.fingerprint
    return fit(task, stage.training, run / STAGE, record, device=device, label=f"train {stage.method}")


def build_game(stage: AdversarialStage, labels: LabelTable, perceptual: Perceptual | None = None) -> Game:
    """Return the game with new networks, whose weights are a function of the stage's seed."""
    with named_weights(stage.training.seed, STAGE):
        return stage.game.build(labels.codes, stage.shape, perceptual)


def adversarial_record(cache: CaseCache, stage: AdversarialStage) -> dict[str, Any]:
    """Return what a checkpoint says of itself."""
    return {
        "stage": STAGE,
        "settings": stage.model_dump(mode="json"),
        "intensity": stage.intensity.model_dump(mode="json"),
        **cache.record,
        "code_version": __version__,
    }


class AdversarialModel:
    """The trained networks of a run, loaded strictly.

    Args:
        checkpoint: of the stage.
        stage: as it was trained.
        perceptual: as it was trained.
        device: cpu or cuda.

    Raises:
        InputError: the checkpoint is damaged or of another network.
    """

    multiple = 1
    """Shapes are compared with that of training, which was a multiple of what the networks need."""

    def __init__(self, checkpoint: Path, stage: AdversarialStage, perceptual: Perceptual | None, device: str):
        self.record = read_json(checkpoint / "record.json")
        self.labels = parse_settings(LabelTable, self.record["labels"], str(checkpoint))
        self.game = build_game(stage, self.labels, perceptual)
        self.fingerprint = load_weights(self.game.used, checkpoint)
        self.game.used.requires_grad_(False).eval().to(device)


class AdversarialGenerator:
    """An adversarial peer as a Generator.

    Args:
        stage: how ``fit`` trains.
        device: cpu or cuda.
        perceptual: distance of two images, where the game weighs one.
    """

    def __init__(self, stage: AdversarialStage, device: str = "cpu", perceptual: Perceptual | None = None):
        self.stage, self.device, self.perceptual = stage, device, perceptual
        self._model: AdversarialModel | None = None

    @classmethod
    def sized(cls, stage: AdversarialStage) -> Callable[[Terms], "AdversarialGenerator"]:
        """Return the function that builds the generator of a method's size."""
        return lambda terms: cls(stage.under(terms), terms.device)

    def fit(self, cases: Dataset, run: Path) -> None:
        """Train on ``cases`` as far as ``run`` is not trained, and load the weights.

        Raises:
            InputError: cases that do not suit, or a run begun otherwise.
        """
        checkpoint = train_adversarial(cases, run, self.stage, self.perceptual, device=self.device)
        device = str(join_processes(self.device).device)
        self._model = AdversarialModel(checkpoint, self.stage, self.perceptual, device)

    @torch.no_grad()
    def generate(self, mask: Case, template: Case, seed: int) -> Case:
        """Return a synthetic case; the template gives its unit and the window of its intensities.

        Args:
            mask: what the case shows, where the method is told of masks; else its name and grid alone are used.
            template: with an image in the model's unit.
            seed: the run's seed.

        Raises:
            InputError: not trained yet, or a mask or template that does not suit.
        """
        if self._model is None:
            raise InputError("this generator is not trained; call fit(cases, run) first.")
        model, scale = self._model, self.stage.intensity
        if template.intensity_unit != scale.unit:
            raise InputError(
                f"case {template.case_id} is in {template.intensity_unit} and {self.stage.method} was trained on "
                f"{scale.unit}; use a template of that unit."
            )
        window = scale.window_of(template.required_image())
        made = model.game.made(self._told(model, mask), generator(seed, "sampling", mask.case_id))
        image = window.from_model((made[0].float().cpu() + 1) / 2).numpy()
        facts = {"checkpoints": {STAGE: model.fingerprint}, "sampler": None, "method": self.stage.method}
        shows, licences = model.game.masks != "none", model.record["licences"]
        return synthetic(image, mask, template, seed, facts, shows_mask=shows, licences=licences)

    def _told(self, model: AdversarialModel, mask: Case) -> Tensor | None:
        """Return the mask in the model's codes, (1, 1, *grid), where the method is told of masks."""
        _check_shape(mask, self.stage)
        if model.game.masks == "none":
            check_grid(model, mask)
            return None
        codes = np.ascontiguousarray(reference_of(model, mask).required_mask())
        return torch.from_numpy(codes)[None].to(next(model.game.used.parameters()).device)


def _check_shape(case: Case, stage: AdversarialStage) -> None:
    if case.grid.shape != stage.shape:
        raise InputError(
            f"case {case.case_id} has a grid of {case.grid.shape} and {stage.method} makes images on {stage.shape}; "
            f"run cardiosynth prepare with --shape {' '.join(map(str, stage.shape))} first."
        )
