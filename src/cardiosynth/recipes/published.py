"""The papers' numbers beside the recipes': one row per setting of ``fcas/paper`` and of ``fqcdm/paper``, from which the
documentation's tables are written.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from cardiosynth.recipes.recipe import Recipe

FOLLOWS = "4.1.2, as MAISI"
"""Section 4.1.2: "we follow the setup of" MAISI (Guo et al. 2024); the value is MAISI's released ``ddpm-ct``."""


class Published(NamedTuple):
    """One published value of a setting.

    Attributes:
        setting: its place in the recipe, as ``--set`` takes it.
        published: as printed, or "not stated".
        source: section of the paper.
        remark: why ours is what it is, where that needs a word.
    """

    setting: str
    published: str
    source: str
    remark: str = ""


FCAS = (
    Published("grid.shape", "512 x 512 x 256 in synthesis", "4.1.2", "volumes are prepared at this size"),
    Published("grid.spacing_mm", "not stated", "4.1.2", "\"resampling\"; ours shows 205 x 205 x 128 mm"),
    Published("intensity.window", "[-1000, 1000] HU", FOLLOWS),
    Published("autoencoder.network.channels", "(64, 128, 256)", FOLLOWS),
    Published("autoencoder.network.num_res_blocks", "(2, 2, 2)", FOLLOWS),
    Published("autoencoder.network.latent_channels", "4", "3.1.1"),
    Published("autoencoder.network.compression", "4", "3.1.1"),
    Published("autoencoder.loss.l1", "1", FOLLOWS),
    Published("autoencoder.loss.kl", "1e-7 of the sum", FOLLOWS, "of the mean here: 1e-7 x 4 x 32^3"),
    Published("autoencoder.loss.perceptual", "0.3", FOLLOWS, "needs an extractor that cannot be shipped"),
    Published("autoencoder.adversarial.weight", "0.1", FOLLOWS),
    Published("autoencoder.crop", "64 cubed, then 128 cubed", FOLLOWS),
    Published("autoencoder.training.learning_rate", "1e-4", FOLLOWS),
    Published("autoencoder.training.steps", "pre-trained, frozen", "3.1.1", "or import released weights"),
    Published("diffusion.denoiser.channels", "(64, 128, 256, 512)", FOLLOWS),
    Published("diffusion.denoiser.num_res_blocks", "2", FOLLOWS),
    Published("diffusion.denoiser.attention_levels", "the two lowest", FOLLOWS),
    Published("diffusion.denoiser.num_head_channels", "32", FOLLOWS),
    Published("diffusion.process.kind", "DDPM", "3.1.1"),
    Published("diffusion.process.num_steps", "T not stated; 1000", FOLLOWS),
    Published("diffusion.process.beta_start", "0.0015", FOLLOWS),
    Published("diffusion.process.beta_end", "0.0195", FOLLOWS),
    Published("diffusion.prediction", "epsilon", "Eq. 3"),
    Published("diffusion.crop", "512 x 512 x 128", "4.1.2", "cut around the heart, not anywhere"),
    Published("diffusion.training.learning_rate", "1e-5", FOLLOWS),
    Published("diffusion.training.steps", "not stated", "4.1.2", "as the next stage, or import released weights"),
    Published("control.condition.kind", "M'_A, M'_B and I_B", "Eq. 1"),
    Published("control.condition.encoding", "channel-wise binarization", "3.1.1", "8 planes per mask, 17 channels"),
    Published("control.condition.inject", "a trainable ControlNet", "3.1.1"),
    Published("control.condition.stem_channels", "(8, 32, 64)", FOLLOWS),
    Published("control.condition.template", "not stated", "4.1.1", "any other case"),
    Published("control.bidirectional", "both directions", "Eq. 4"),
    Published("control.freeze_unet", "not stated; frozen", FOLLOWS),
    Published("control.crop", "512 x 512 x 128", "4.1.2"),
    Published("control.training.batch_size", "4", "4.1.2", "pairs, so 8 directions"),
    Published("control.training.learning_rate", "1e-5, AdamW", "4.1.2"),
    Published("control.training.steps", "200 epochs", "4.1.2", "200 epochs x 200 cases / batch of 4"),
    Published("control.training.schedule", "not stated (\"initial\" rate)", "4.1.2", "MAISI: polynomial"),
    Published("control.training.ema_decay", "not stated", "4.1.2", "MAISI: none"),
    Published("sampler.solver", "ancestral (Eq. 2)", "3.1.1"),
    Published("sampler.steps", "T not stated; 1000", FOLLOWS),
    Published("sampler.confidence.interval", "k not stated", "Eq. 7", "10 decodes"),
    Published("sampler.decode_budget_gb", "sliding window 64 x 64 x 128", "4.1.2", "exact within a budget instead"),
    Published("templates.choice", "random", "3.1.3"),
    Published("masks.closing", "max-pool 2 x 2 x 2", "Eq. 6", "as printed it thickens vessels"),
    Published("segmenter.training.steps", "1000 epochs", "4.1.2", "of nnU-Net's 250 steps each"),
    Published("segmenter.network.channels", "nnU-Net's defaults", "4.1.2"),
)  # fmt: skip


FQCDM = (
    Published("slices.size", "not stated", "4.1", "ACDC's heart"),
    Published("slices.plane", "not stated", "4.1", "across the image's own slice axis"),
    Published("autoencoder.network.kind", "VQGAN", "3.2"),
    Published("autoencoder.network.compression", "(4, 4)", "3.2"),
    Published("autoencoder.network.channels", "not stated", "3.2", "VQGAN's for a compression of 4"),
    Published("autoencoder.network.latent_channels", "not stated", "3.2"),
    Published("autoencoder.network.codebook.codes", "1024", "3.2"),
    Published("autoencoder.network.codebook.learning", "mean squared error", "Eq. 7", "commitment 0.25, as VQ-VAE"),
    Published("autoencoder.loss.perceptual", "all of the loss", "3.2", "needs features: `--perceptual RUN`"),
    Published("autoencoder.loss.l1", "not stated", "3.2", "a perceptual loss alone leaves gray values open"),
    Published("autoencoder.adversarial.kind", "trunk and edge branch", "Eq. 11 to 17"),
    Published("autoencoder.adversarial.adaptive", "lambda is adaptive", "Eq. 7", "as in VQGAN"),
    Published("autoencoder.adversarial.weight", "not stated", "Eq. 7", "VQGAN: 0.8"),
    Published("autoencoder.adversarial.warmup_steps", "not stated", "Eq. 7", "VQGAN: 10 000"),
    Published("autoencoder.adversarial.edge_blocks", "n not stated", "Eq. 13"),
    Published("diffusion.process.num_steps", "T = 100", "4.2"),
    Published("diffusion.process.kind", "not stated", "3.3", "a schedule that ends in noise"),
    Published("diffusion.process.beta_start", "not stated", "3.3", "DDPM's, ten times as large"),
    Published("diffusion.process.beta_end", "not stated", "3.3", "likewise"),
    Published("diffusion.prediction", "epsilon", "Eq. 10"),
    Published("diffusion.denoiser.channels", "2D U-Net, else not stated", "3.3", "DDPM's"),
    Published("diffusion.condition.inject", "label in the decoder", "Eq. 9", "by SPADE"),
    Published("diffusion.condition.stem", "resized to the latents", "Eq. 9", "walls are thinner than a latent"),
    Published("joint.steps", "800 epochs", "4.2", "of 1331 slices, one by one"),
    Published("joint.batch_size", "1", "4.2"),
    Published("joint.learning_rate", "1e-4, AdamW", "4.2"),
    Published("joint.weight_decay", "0.05", "4.2"),
    Published("joint.plateau.factor", "not stated", "4.2", "ReduceLROnPlateau as PyTorch has it"),
    Published("joint.plateau.patience", "not stated", "4.2", "likewise, in epochs"),
    Published("autoencoder.training.steps", "one training of both", "4.2", "two stages, or `train joint`"),
    Published("diffusion.training.steps", "one training of both", "4.2", "likewise"),
    Published("sampler.solver", "as DDPM, with noise", "Algorithm 1"),
    Published("sampler.steps", "100", "4.2"),
    Published("segmenter.network.kind", "U-Net and Swin-UNet", "5.1", "`fqcdm_strategies` trains either"),
)  # fmt: skip


def setting_of(recipe: Recipe, place: str) -> Any:
    """Return a setting by its place, e.g. ``grid.shape``."""
    value: Any = recipe
    for name in place.split("."):
        value = getattr(value, name)
    return value


def published_table(recipe: Recipe, published: Sequence[Published]) -> str:
    """Return the table of published values and the recipe's as Markdown."""
    rows = [("setting", "published", "section", "here", "remark"), ("---",) * 5]
    for row in published:
        here = _shown(setting_of(recipe, row.setting))
        rows.append((f"`{row.setting}`", row.published, row.source, here, row.remark))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    if hasattr(value, "low"):
        return f"[{value.low:g}, {value.high:g}]"
    if isinstance(value, bool | None):
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
