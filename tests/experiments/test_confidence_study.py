"""The study of confidence maps at toy size, its tables on numbers made up, and costs that follow from each other."""

from pathlib import Path

import numpy as np
import pytest
from diffusion.small import AUTOENCODER, CONTROL, DIFFUSION, case, dataset

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, label_table
from cardiosynth.core.store import read_rows
from cardiosynth.evaluation.results import Estimate, GalleryFigure
from cardiosynth.experiments.confidence_study import MAPS, ConfidencePlan, run_study, wrong_labels
from cardiosynth.experiments.confidence_tables import added_flops, region_table
from cardiosynth.recipes.fcas import TINY
from cardiosynth.report.figures import Library
from cardiosynth.sampling.generator import LatentDiffusionGenerator, LatentDiffusionStages
from cardiosynth.segmentation.predict import load_segmenter
from cardiosynth.segmentation.task import train_segmenter
from tests.segmentation.cases import stage

QUICK = stage(training=stage().training.model_copy(update={"steps": 2}))


def made_up_row(ahead: float) -> dict:
    """A case where the map beats the gradient by ``ahead``, and the heart is judged alone."""
    edges = {"spearman": 0.25, "partial": None, "sparsification": 0.5, "auroc": 0.75, "sparsification_labels": 0.5}
    better = {**edges, "spearman": 0.25 + ahead, "partial": 0.125}
    maps = {"latent": {"heart": better}, "gradient": {"heart": edges}}
    return {"cpu_s": {"latent": 3.5, "": 1.5}, "maps": maps}


def test_a_map_stands_beside_the_gradient_with_the_interval_of_their_difference():
    rows = [[made_up_row(0.25), made_up_row(0.25)], [made_up_row(0.25), made_up_row(0.25)]]
    own, edges = region_table(rows, "heart", "In the heart", "Said.").rows
    certain = [Estimate(value=x, low=x, high=x) for x in (0.5, 0.125, 0.25, 0.0)]
    assert own[:3] == ("latent", *certain[:2])
    assert own[-3:] == (*certain[2:], 2.0)
    assert edges[-3:] == (None, None, 0.0)
    assert edges[2] is None, "the gradient beside itself"


def test_costs_follow_from_each_other():
    share = added_flops(MAPS, TINY)
    assert share["latent"] == 0
    assert share["raw"] == share["decoded"] > 0
    assert share["decoded, moved masks"] == pytest.approx(2 * share["decoded"] + share["latent, moved masks"])
    assert share["ensemble of 4"] == pytest.approx(3)
    assert share["decoded, last half"] == pytest.approx(share["decoded"] * 2 / 3)  # 2 of 3 steps


def test_wrong_labels_are_those_of_target_structures_in_the_masks_codes(tmp_path):
    train_segmenter([case(0), case(1)], tmp_path, QUICK, TINY.intensity)
    segmenter = load_segmenter(tmp_path)
    found = wrong_labels(case(2), segmenter)
    other = label_table({label.name: label.code + 10 for label in CARDIAC_CT.targets})
    codes = np.where(case(2).mask > 8, 0, case(2).mask)
    renamed = case(2).with_(mask=np.where(codes > 0, codes + 10, 0).astype(np.uint8), labels=other)
    assert 0 < found.mean() < 1
    np.testing.assert_array_equal(wrong_labels(renamed, segmenter), found)


@pytest.mark.slow
def test_the_study_is_done_once_and_judges_every_map_on_the_same_images(tmp_path: Path):
    data, run = dataset(tmp_path / "data"), tmp_path / "run"
    stages = LatentDiffusionStages(autoencoder=AUTOENCODER, diffusion=DIFFUSION, control=CONTROL)
    LatentDiffusionGenerator(stages, TINY.sampler).fit(data, run)
    train_segmenter(list(data), tmp_path / "judge", QUICK, TINY.intensity)
    paths = {"runs": (str(run),), "templates": str(data.root), "judge": str(tmp_path / "judge")}
    plan = ConfidencePlan(**paths, first=1, cases=2, seeds=(0, 1), maps=("latent", "decoded, moved masks"))
    found = run_study(tmp_path / "out", plan)
    for table in found.tables[:3]:
        names = [row[0] for row in table.rows]
        assert names == [*plan.maps, "gradient", "gradient, one voxel", "mask's borders", "constant"]
    gallery = found.figures[0]
    assert isinstance(gallery, GalleryFigure)
    library = Library(tmp_path / "out")
    shown = [library.case(tile.case) for row in gallery.rows for tile in row if tile]
    assert [case.origin for case in shown[1:]] == 3 * ["synthetic"]
    assert not np.array_equal(shown[2].confidence, shown[3].confidence)
    assert run_study(tmp_path / "out", plan) == found
    steps = [row["step"] for row in read_rows(tmp_path / "out" / "steps.jsonl")]
    assert steps == ["judge images of seed 0", "judge images of seed 1"]
    with pytest.raises(InputError, match="did you mean 'latent'"):
        run_study(tmp_path / "else", plan.model_copy(update={"maps": ("latents",)}))


def test_test_cases_of_ones_own_need_a_judge():
    with pytest.raises(ValueError, match="--set judge=RUN"):
        ConfidencePlan(runs=("run",), templates="test")
