from pathlib import Path

import pytest

from cardiosynth.core.config import with_overrides
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.diffusion.control import num_channels
from cardiosynth.recipes import fqcdm
from cardiosynth.recipes.published import FCAS, FQCDM, published_table, setting_of
from cardiosynth.recipes.sizes import PAPER, STEPS

PAPERS = Path(__file__).parents[2] / "docs" / "papers"
SYSTEMS = {"fcas": (PAPER, FCAS), "fqcdm": (fqcdm.PAPER, FQCDM)}


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_documents_table_is_the_recipes(system: str):
    (recipe, rows), document = SYSTEMS[system], PAPERS / f"{system}.md"
    section = document.read_text(encoding="utf-8").partition("## Published values and ours\n")[2].partition("\n## ")[0]
    assert published_table(recipe, rows) in section, f"write the new table into {document.name}"
    changed = with_overrides(recipe, ["diffusion.prediction=x0"])
    assert published_table(changed, rows) not in section


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_row_names_a_setting_that_can_be_set(system: str):
    recipe, rows = SYSTEMS[system]
    for row in rows:
        setting_of(recipe, row.setting)
    assert len({row.setting for row in rows}) == len(rows)
    with pytest.raises(AttributeError):
        setting_of(PAPER, "control.trainig.steps")


def test_the_published_arithmetic():
    assert STEPS == 200 * 200 / 4 == PAPER.control.training.steps
    assert num_channels(PAPER.control.condition, CARDIAC_CT) == 17
    assert PAPER.sampler.confidence is not None
    assert PAPER.sampler.confidence.num_images(PAPER.sampler.steps) == 10
    latent_values = 4 * (128 // 4) ** 3
    assert PAPER.autoencoder.loss.kl == pytest.approx(1e-7 * latent_values, rel=0.02)


def test_fqcdms_published_arithmetic():
    assert fqcdm.PAPER.joint.steps == 800 * round(0.7 * 1902)
    for stage in (fqcdm.PAPER.joint, fqcdm.PAPER.autoencoder.training, fqcdm.PAPER.diffusion.training):
        assert stage.plateau is not None
        assert (stage.plateau.every, stage.batch_size) == (1331, 1)
