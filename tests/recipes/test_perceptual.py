"""A segmenter of another run compares images for the autoencoder."""

from pathlib import Path

import pytest

from cardiosynth.cli import main
from cardiosynth.core.config import with_overrides
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale, Window
from cardiosynth.core.store import latest_checkpoint, read_json, read_rows
from cardiosynth.data.dataset import write_dataset
from cardiosynth.data.sources.phantom.source import phantoms
from cardiosynth.recipes.registry import find_recipe
from cardiosynth.recipes.stages import Earlier, segmenter_distance, train_stage

TINY = find_recipe("fcas/tiny")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("perceptual")
    write_dataset(phantoms(2, (32, 32, 32)), root / "data")
    train_stage("segmenter", root / "data", root / "judge", TINY, Earlier(), "cpu")
    return root / "data", root / "judge"


def test_its_fingerprint_and_its_part_of_the_loss_are_recorded(judged: tuple[Path, Path], tmp_path: Path):
    data, judge = judged
    words = ["train", "autoencoder", str(data), str(tmp_path), "--recipe", "fcas/tiny", "--perceptual", str(judge)]
    main([*words, "--set", "autoencoder.loss.perceptual=0.3"])
    record = read_json(latest_checkpoint(tmp_path / "autoencoder") / "record.json")
    assert record["perceptual"] == read_json(latest_checkpoint(judge / "segmenter") / "record.json")["fingerprint"]
    assert read_rows(tmp_path / "autoencoder" / "metrics.jsonl")[0]["autoencoder/perceptual"] > 0


def test_a_segmenter_that_does_not_suit_is_refused(judged: tuple[Path, Path]):
    narrow = IntensityScale(window=Window(low=-500.0, high=500.0))
    with pytest.raises(InputError, match="intensity window"):
        segmenter_distance(judged[1], TINY.model_copy(update={"intensity": narrow}), "cpu")
    odd = with_overrides(TINY, ["autoencoder.network.compression=2", "autoencoder.network.channels=[8]",
                                "autoencoder.network.num_res_blocks=[1]", "autoencoder.crop=[18, 18, 18]"])  # fmt: skip
    assert segmenter_distance(judged[1], odd, "cpu").fingerprint
    odd = odd.model_copy(update={"autoencoder": odd.autoencoder.model_copy(update={"crop": (17, 18, 18)})})
    with pytest.raises(InputError, match="multiples of 2"):
        segmenter_distance(judged[1], odd, "cpu")


def test_only_a_u_net_compares_images(judged: tuple[Path, Path], tmp_path: Path):
    settings = ["kind=segresnet", "segresnet.features=8", "segresnet.blocks_down=[1, 1]", "segresnet.blocks_up=[1]"]
    overrides = [f"segmenter.network.{setting}" for setting in settings]
    other = with_overrides(TINY, [*overrides, "segmenter.training.steps=1", "segmenter.training.warmup_steps=0"])
    train_stage("segmenter", judged[0], tmp_path, other, Earlier(), "cpu")
    with pytest.raises(InputError, match="is a segresnet and only a unet's levels"):
        segmenter_distance(tmp_path, TINY, "cpu")
