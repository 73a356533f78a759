from pathlib import Path

import pytest

from cardiosynth.core.config import with_overrides
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.diffusion.control import num_channels
from cardiosynth.recipes.published import PUBLISHED, published_table, setting_of
from cardiosynth.recipes.sizes import PAPER, STEPS

DOCUMENT = Path(__file__).parents[2] / "docs" / "papers" / "fcas.md"


def test_the_documents_table_is_the_recipes():
    section = DOCUMENT.read_text(encoding="utf-8").partition("## Published values and ours\n")[2].partition("\n## ")[0]
    assert published_table(PAPER) in section, f"write the new table into {DOCUMENT.name}"
    assert published_table(with_overrides(PAPER, ["control.training.learning_rate=2e-5"])) not in section


def test_every_row_names_a_setting_that_can_be_set():
    for row in PUBLISHED:
        setting_of(PAPER, row.setting)
    assert len({row.setting for row in PUBLISHED}) == len(PUBLISHED)
    with pytest.raises(AttributeError):
        setting_of(PAPER, "control.trainig.steps")


def test_the_published_arithmetic():
    assert STEPS == 200 * 200 / 4 == PAPER.control.training.steps
    assert num_channels(PAPER.control.condition, CARDIAC_CT) == 17
    assert PAPER.sampler.confidence is not None
    assert PAPER.sampler.confidence.num_images(PAPER.sampler.steps) == 10
    latent_values = 4 * (128 // 4) ** 3
    assert PAPER.autoencoder.loss.kl == pytest.approx(1e-7 * latent_values, rel=0.02)
