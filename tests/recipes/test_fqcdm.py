import numpy as np
import pytest

from cardiosynth.autoencoder.codec import load_codec
from cardiosynth.core.case import Case
from cardiosynth.core.labels import label_table
from cardiosynth.core.store import latest_checkpoint, read_json, read_rows
from cardiosynth.data.dataset import write_dataset
from cardiosynth.recipes.fqcdm import CPU, PAPER, SMALL, TINY
from cardiosynth.recipes.stages import Earlier, train_stage

LABELS = label_table({"right_ventricle": 1, "left_ventricular_myocardium": 2, "left_ventricle": 3})


def slice_of(index: int) -> Case:
    """Return rings and a crescent, as a short axis shows them; normalized MR."""
    side = TINY.slices.size
    x, y = np.meshgrid(*[np.arange(side) - side / 2] * 2, indexing="ij")
    radius = np.hypot(x - index % 3, y)
    mask = np.zeros((1, side, side), np.uint8)
    mask[0][np.hypot(x + 7, y) < 6] = 1
    mask[0][radius < 8], mask[0][radius < 5] = 2, 3
    levels = np.array([100, 700, 200, 800], np.int16)
    noise = np.random.default_rng(index).integers(-20, 20, mask.shape, np.int16)
    return Case(
        case_id=f"patient{index}_slice000", image=levels[mask] + noise, mask=mask, affine=np.eye(4), labels=LABELS,
        intensity_unit="mr", origin="phantom",
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fqcdm")
    write_dataset([slice_of(i) for i in range(4)], folder / "slices")
    train_stage("autoencoder", folder / "slices", folder / "run", TINY, Earlier(), "cpu")
    return folder / "run"


def test_the_autoencoder_is_trained_on_slices_with_codes_and_a_dual_opponent(run):
    rows = read_rows(run / "autoencoder" / "metrics.jsonl")
    assert {"discriminator/total", "autoencoder/adversarial_weight", "autoencoder/perplexity"} <= set(rows[-1])
    verdict = read_json(run / "autoencoder" / "verdict.json")
    assert verdict["codes"]["count"] == TINY.autoencoder.network.codebook.codes
    record = read_json(latest_checkpoint(run / "autoencoder") / "record.json")
    assert record["intensity"] == TINY.intensity.model_dump(mode="json")
    codec, case = load_codec(run), slice_of(0)
    mean, _ = codec.encode_case(case)
    assert mean.shape == (4, 8, 8)
    assert codec.window_of(case).high == 1000
    assert len(np.unique(codec.nearest_codes(mean))) > 1


def test_published_values():
    first = PAPER.autoencoder
    assert (first.network.compression, first.network.codebook.codes) == (4, 1024)
    assert (first.training.learning_rate, first.training.weight_decay, first.training.batch_size) == (1e-4, 0.05, 1)
    assert first.training.steps == 800 * 1331
    assert first.training.plateau is not None
    assert first.adversarial.kind == "dual"
    assert (first.adversarial.norm, first.adversarial.adaptive) == ("batch", True)


@pytest.mark.parametrize("recipe", [TINY, CPU, SMALL, PAPER], ids=lambda recipe: recipe.name)
def test_every_autoencoder_is_of_slices_at_the_size_they_are_cut_to(recipe):
    assert recipe.autoencoder.crop == recipe.shape == recipe.segmenter.crop
    assert recipe.autoencoder.network.spatial_dims == 2
