"""The peers that are made of codes: their sizes on the terms of a comparison, and the codec of volumes at 32^3."""

import numpy as np
import pytest
import torch

from cardiosynth.autoencoder.codebook import CodebookSettings
from cardiosynth.autoencoder.discriminators import AdversarialSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage, train_autoencoder
from cardiosynth.baselines import vqgan, vqvae
from cardiosynth.baselines.latent_diffusion import EVEN
from cardiosynth.baselines.method import Terms
from cardiosynth.baselines.tokens import TokenStages
from cardiosynth.baselines.transformer import Transformer
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.store import latest_checkpoint, read_rows

from .slices import TRAINING, slice_case, slices

METHODS = {module.METHOD.name: module for module in (vqvae, vqgan)}


@pytest.mark.parametrize("name", METHODS)
def test_tiny_learns_slices_on_the_terms_of_a_comparison_and_draws_one(name, tmp_path):
    generator = METHODS[name].METHOD.build("tiny", Terms((64, 64), IntensityScale(), steps=8, seed=2))
    generator.fit(slices(tmp_path / "data", 2, 64), tmp_path / "run")
    steps = [latest_checkpoint(tmp_path / "run" / stage).name for stage in ("autoencoder", "prior")]
    assert steps == ["step-0000004"] * 2
    made = generator.generate(slice_case(0, 64), slice_case(1, 64), 0)
    np.testing.assert_array_equal(made.mask, np.where(slice_case(0, 64).mask == 4, 4, 0))
    assert len(np.unique(made.required_image())) > 1


@pytest.mark.parametrize("name", METHODS)
def test_published_sizes_are_the_published_ones(name):
    stages = METHODS[name].PAPER
    assert TokenStages.model_validate(stages.model_dump()) == stages
    size = stages.prior.transformer
    with torch.device("meta"):
        network = Transformer(size, 1024, 256)
    # Attention and the two linear maps hold 4 and 8 squares of the width; GPT-2 medium, so sized, has 0.3e9 weights.
    weights = sum(parameter.numel() for parameter in network.layers.parameters())
    assert weights == pytest.approx(12 * 24 * 1024**2, rel=0.002)


def ball(index: int, size: int = 32):
    """Return a volume with a bright ball; patients differ in size and place."""
    x, y, z = np.meshgrid(*[np.arange(size) - size / 2] * 3, indexing="ij")
    inside = (x - 4 * index) ** 2 + y**2 + z**2 < (6 + 2 * index) ** 2
    image = np.where(inside, 400, -100).astype(np.int16)[None]
    return slice_case(index).with_(
        case_id=f"ball-{index}", image=image, mask=(4 * inside[None]).astype(np.uint8), affine=np.eye(4)
    )


@pytest.mark.slow
def test_the_quantized_codec_of_volumes_learns_two_alone_and_against_an_opponent(tmp_path):
    """What Medical Diffusion needs, smaller: averaged codes, restarted, hinge loss, volumes of 32 voxels."""
    codebook = CodebookSettings(codes=64, begin_step=10)
    sizes = {"channels": (4, 8, 16), "num_res_blocks": (1, 1, 1), "norm_groups": 4, "latent_channels": 8}
    stage = AutoencoderStage(
        network=AutoencoderSettings(kind="vqgan", codebook=codebook, **sizes),
        loss=EVEN,
        thin_fraction=0.0,
        adversarial=AdversarialSettings(judgement="hinge", weight=0.1, channels=4, layers=1, warmup_steps=70),
        crop=(32, 32, 32),
        training=TRAINING.model_copy(update={"steps": 80, "checkpoint_every": 80, "log_every": 1}),
    )
    train_autoencoder([ball(0), ball(1)], tmp_path, stage, IntensityScale())
    rows = read_rows(tmp_path / "autoencoder" / "metrics.jsonl")
    begun, alone, opposed = (rows[index]["autoencoder/l1"] for index in (0, 69, 79))
    assert alone < 0.1 * begun
    assert opposed < 0.3 * begun
    assert rows[-1]["autoencoder/perplexity"] > 4
    assert "discriminator/total" in rows[-1]
