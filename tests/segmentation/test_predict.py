import numpy as np
import pytest
import torch
from torch import nn

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import latest_checkpoint, read_json, write_json
from cardiosynth.metrics.overlap import dice
from cardiosynth.segmentation.networks import target_classes
from cardiosynth.segmentation.predict import Segmenter, load_segmenter, predict_logits, predict_mask
from cardiosynth.segmentation.task import train_segmenter

from .cases import LABELS, SCALE, case, stage


class Thresholds(nn.Module):
    """A network whose answer is known: chamber above 0.55 (650 HU), wall above 0.38, else background."""

    def forward(self, x):
        assert all(n % 2 == 0 for n in x.shape[2:])
        chamber, wall = (x > 0.55).float(), (x > 0.38).float()
        return torch.cat([torch.full_like(x, 0.5), 2 * chamber, wall], dim=1)


def by_thresholds(**changes) -> Segmenter:
    return Segmenter(
        Thresholds(), stage(**changes), LABELS, target_classes(LABELS), SCALE, "0" * 16, torch.device("cpu")
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train_segmenter([case(i) for i in range(3)], folder, stage(), SCALE)
    return folder


@pytest.mark.parametrize("shape", [(12, 12, 12), (13, 17, 12), (12, 12, 31)])
def test_masks_are_label_codes_on_the_cases_grid(shape):
    original = case(0, shape, provenance={"source": "boxes"})
    predicted = predict_mask(by_thresholds(), original)
    assert np.array_equal(predicted.required_mask(), LABELS.only_targets(original.required_mask()))
    assert predicted.provenance == {"source": "boxes", "segmented_by": "0" * 16}
    assert predicted.image is original.image


@pytest.mark.parametrize("shape", [(5, 3, 7), (5, 40, 7)])
def test_what_is_smaller_than_the_window_is_filled_up_and_cut_back(shape):
    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    logits = predict_logits(by_thresholds(), image)
    torch.testing.assert_close(
        logits, torch.cat([torch.full_like(image, 0.5), 2 * (image > 0.55), image > 0.38], dim=1)
    )


def test_a_volume_of_one_window_is_the_networks_own_answer(run):
    segmenter = load_segmenter(run)
    image = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(predict_logits(segmenter, image), segmenter.network(image), rtol=1e-4, atol=1e-4)


def test_a_trained_network_finds_the_structures_of_a_new_case(run):
    new = case(7)
    predicted, truth = predict_mask(load_segmenter(run), new).required_mask(), new.required_mask()
    assert dice(predicted == 3, truth == 3) > 0.6
    assert dice(predicted == 7, truth == 7) > 0.6
    assert set(np.unique(predicted)) <= {0, 3, 7}


def test_a_run_a_stage_and_a_checkpoint_are_the_same_segmenter(run):
    for place in (run, run / "segmenter", latest_checkpoint(run / "segmenter")):
        segmenter = load_segmenter(place)
        assert segmenter.fingerprint == read_json(latest_checkpoint(run / "segmenter") / "record.json")["fingerprint"]
        assert (segmenter.labels, segmenter.scale, segmenter.classes.codes) == (LABELS, SCALE, (0, 3, 7))


def test_a_checkpoint_of_another_stage_is_refused(tmp_path):
    write_json(tmp_path / "step-0000001" / "record.json", {"stage": "autoencoder"})
    with pytest.raises(InputError, match="is a 'autoencoder', not a segmenter"):
        load_segmenter(tmp_path)


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no checkpoint"):
        load_segmenter(tmp_path)


def test_slices_and_other_units_are_refused(run):
    segmenter = load_segmenter(run)
    with pytest.raises(InputError, match="has 2 axes and the segmenter takes 3"):
        predict_mask(segmenter, case(0, (12, 12)))
    with pytest.raises(InputError, match="is in 'mr'"):
        predict_mask(segmenter, case(0, intensity_unit="mr"))
