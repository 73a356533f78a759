"""Generators that draw an image code by code: a quantized autoencoder, and a prior over its codes.

VQ-VAE and VQGAN are values of it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydantic
import torch
from jaxtyping import Float
from torch import Tensor

from cardiosynth.autoencoder.codec import Codec, load_codec
from cardiosynth.autoencoder.task import AutoencoderStage, train_autoencoder
from cardiosynth.baselines.cases import synthetic
from cardiosynth.baselines.latent_diffusion import short_training
from cardiosynth.baselines.method import Terms
from cardiosynth.baselines.prior import PriorStage, label_shares, load_prior, train_prior
from cardiosynth.baselines.transformer import Transformer, TransformerSettings, draw_codes
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings, parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.random import generator
from cardiosynth.data.dataset import Dataset
from cardiosynth.sampling.fitting import reference_of
from cardiosynth.training.settings import Precision, TrainingSettings, uses_bfloat16

TINY_PRIOR = PriorStage(
    transformer=TransformerSettings(layers=2, heads=4, width=64), training=short_training(8, 4, 5e-3)
)
DEMO_PRIOR = PriorStage(
    transformer=TransformerSettings(layers=4, heads=4, width=128, dropout=0.1), training=short_training(1500, 4, 1e-3)
)
PAPER_PRIOR = PriorStage(
    transformer=TransformerSettings(layers=24, heads=16, width=1024),  # 24, 16, 1024
    training=TrainingSettings(
        steps=100_000, batch_size=8, learning_rate=3.6e-5, betas=(0.9, 0.95),  # 4.5e-6 per example, (0.9, 0.95)
        weight_decay=0.01, ema_decay=0.0, log_every=100, checkpoint_every=2000,
    ),
)  # fmt: skip
"""VQGAN's official values, in the comments; numbers of steps and of examples are ours."""


class DrawSettings(Settings):
    """How codes are drawn.

    Attributes:
        temperature: divides the logits. Published (VQGAN) 1.
        top_k: the most likely codes that may be drawn, null for all. Published (VQGAN) 100 for most of its figures.
        precision: in which networks compute.
    """

    temperature: float = pydantic.Field(default=1.0, gt=0)
    top_k: int | None = pydantic.Field(default=None, ge=1)
    precision: Precision = "auto"


class TokenStages(Settings):
    """What is trained, and how codes are drawn afterwards."""

    autoencoder: AutoencoderStage
    prior: PriorStage = PriorStage()
    draw: DrawSettings = DrawSettings()

    @pydantic.model_validator(mode="after")
    def _quantized(self) -> "TokenStages":
        if self.autoencoder.network.codebook is None:
            raise ValueError("a prior is learned over codes; give autoencoder.network a codebook")
        return self

    def under(self, terms: Terms) -> "TokenStages":
        """Return the stages of these terms: the same seed, shares of the steps, and crops not larger than a case."""
        autoencoder, prior = self.autoencoder, self.prior
        share = autoencoder.training.steps / (autoencoder.training.steps + prior.training.steps)
        crop = tuple(map(min, zip(autoencoder.crop, terms.shape, strict=True)))
        training = terms.training(autoencoder.training, share)
        return TokenStages(
            autoencoder=autoencoder.model_copy(update={"crop": crop, "training": training}),
            prior=prior.model_copy(update={"training": terms.training(prior.training, 1 - share)}),
            draw=self.draw,
        )


class TokenModel:
    """The trained networks of a run.

    Attributes:
        codec: with raw statistics.
        prior: the transformer, frozen.
        record: of its checkpoint.
        labels: the structures that it learned.
        multiple: voxels per axis that the networks take at a time.
    """

    def __init__(self, run: Path, device: str):
        self.codec: Codec = load_codec(run, device)
        self.prior: Transformer
        self.prior, _, self.record = load_prior(run, self.codec, device)
        self.labels = parse_settings(LabelTable, self.record["labels"], str(run))
        self.multiple = self.codec.compression

    @property
    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprints of the checkpoints, by stage."""
        return {"autoencoder": self.codec.fingerprint, "prior": self.record["fingerprint"]}


class TokenGenerator:
    """A generator that draws codes and decodes them.

    Args:
        stages: how ``fit`` trains and ``generate`` draws.
        intensity: how images become model units.
        device: cpu or cuda.
    """

    def __init__(self, stages: TokenStages, intensity: IntensityScale, device: str = "cpu"):
        self.stages, self.intensity, self.device = stages, intensity, device
        self._model: TokenModel | None = None

    def fit(self, cases: Dataset, run: Path) -> None:
        """Train the autoencoder and the prior on ``cases``, as far as ``run`` does not hold them, and load them.

        Raises:
            InputError: too few cases, cases that do not suit, or a run begun otherwise.
        """
        train_autoencoder(cases.with_images(), run, self.stages.autoencoder, self.intensity, device=self.device)
        train_prior(cases, run, self.stages.prior, device=self.device)
        self._model = TokenModel(run, self.device)

    def generate(self, mask: Case, template: Case, seed: int) -> Case:
        """Return a synthetic case; the template gives its unit and the window of its intensities.

        Args:
            mask: what the case shows, where the prior is told of masks.
            template: with an image in the model's unit.
            seed: the run's seed.

        Raises:
            InputError: not trained yet, or a mask or template that does not suit.
        """
        if self._model is None:
            raise InputError("this generator is not trained; call fit(cases, run) first.")
        window = self._model.codec.window_of(template)
        with self._autocast():
            latent = self._latent(self._model, mask, generator(seed, "sampling", mask.case_id))
            image = self._model.codec.decode(latent, window)
        facts = {"checkpoints": self._model.fingerprints, "sampler": self.stages.draw.model_dump(mode="json")}
        shows, licences = self._model.prior.told is not None, self._model.record["licences"]
        return synthetic(image, mask, template, seed, facts, shows_mask=shows, licences=licences)

    @classmethod
    def sized(cls, stages: TokenStages) -> Callable[[Terms], "TokenGenerator"]:
        """Return the function that builds the generator of a method's size."""
        return lambda terms: cls(stages.under(terms), terms.intensity, terms.device)

    def _autocast(self) -> torch.autocast:
        device = torch.device(self.device)
        return torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(self.stages.draw.precision, device))

    def _latent(self, model: TokenModel, mask: Case, rng: torch.Generator) -> Float[Tensor, "c *latent"]:
        """Return the code of every latent voxel of one case."""
        shape = model.codec.latent_shape(mask.grid.shape)
        trained = tuple(model.record["grid"]["shape"])
        if mask.grid.shape != trained:
            raise InputError(
                f"case {mask.case_id} has a grid of {mask.grid.shape} and the prior learned its codes by their places "
                f"on one of {trained}; run cardiosynth prepare with --shape {' '.join(map(str, trained))} first."
            )
        draw = self.stages.draw
        told = self._told(model, mask)
        codes = draw_codes(model.prior, rng, told, temperature=draw.temperature, top_k=draw.top_k)
        book = model.codec.autoencoder.codebook
        assert book is not None, "checked when the stages were made"
        return book.codes.detach()[codes].T.unflatten(1, shape)

    def _told(self, model: TokenModel, mask: Case) -> Tensor | None:
        """Return what the prior is told of a mask."""
        if model.prior.told is None:
            return None
        reference = torch.from_numpy(np.ascontiguousarray(reference_of(model, mask).required_mask()))
        return label_shares(reference[None].to(self.device), model.labels, model.codec.compression)
