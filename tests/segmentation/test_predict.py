import numpy as np
import pytest
import torch
from torch import nn

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import latest_checkpoint, read_json, write_json
from cardiosynth.metrics.overlap import dice
from cardiosynth.segmentation.networks import Classes, SegmenterSettings, target_classes
from cardiosynth.segmentation.predict import (
    PredictionSettings,
    Segmenter,
    load_segmenter,
    predict_ensemble,
    predict_logits,
    predict_mask,
    predict_probabilities,
)
from cardiosynth.segmentation.task import train_segmenter

from .cases import LABELS, SCALE, case, stage


class Thresholds(nn.Module):
    """A network whose answer is known: chamber above 0.55 (650 HU), wall above 0.38, else background."""

    def forward(self, x):
        assert all(n % 2 == 0 for n in x.shape[2:])
        chamber, wall = (x > 0.55).float(), (x > 0.38).float()
        return torch.cat([torch.full_like(x, 0.5), 2 * chamber, wall], dim=1)


class Upward(nn.Module):
    """A network that leans to one side: chamber grows along X, whatever it is shown."""

    def forward(self, x):
        along = torch.linspace(-1, 1, x.shape[2]).reshape(1, 1, -1, *[1] * (x.ndim - 3)).expand_as(x)
        return torch.cat([torch.zeros_like(x), 3 * along, torch.full_like(x, -9.0)], dim=1)


class Certain(nn.Module):
    """A network that gives every voxel the same probabilities."""

    def __init__(self, *probabilities):
        super().__init__()
        self.logits = torch.tensor(probabilities).log()

    def forward(self, x):
        return self.logits.reshape(1, -1, *[1] * (x.ndim - 2)).expand(x.shape[0], -1, *x.shape[2:]).clone()


def with_network(network: nn.Module, name: str = "0" * 16, /, **changes) -> Segmenter:
    return Segmenter(network, stage(**changes), LABELS, target_classes(LABELS), SCALE, name, torch.device("cpu"))


def by_thresholds(**changes) -> Segmenter:
    return with_network(Thresholds(), **changes)


FLAT = {"network": SegmenterSettings(spatial_dims=2, channels=(4, 8), strides=(2,)), "crop": (8, 8)}


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


def test_a_network_for_slices_sees_volumes_slice_by_slice():
    volume = case(0, (12, 13, 19))
    predicted = predict_mask(by_thresholds(**FLAT), volume).required_mask()
    assert np.array_equal(predicted, LABELS.only_targets(volume.required_mask()))
    leaning = predict_mask(with_network(Upward(), **FLAT), case(0, (8, 13, 19))).required_mask()
    assert (leaning[:, 4:] == 3).all()
    assert (leaning[:, :4] == 0).all()


def test_mirroring_takes_the_side_from_a_network_that_leans():
    image = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    mirrored = predict_probabilities(with_network(Upward()), image, PredictionSettings(mirror_axes=(0,)))
    torch.testing.assert_close(mirrored, mirrored.flip(2))
    plain = predict_probabilities(with_network(Upward()), image, PredictionSettings())
    torch.testing.assert_close(mirrored, (plain + plain.flip(2)) / 2)


def test_mirroring_changes_nothing_for_a_network_that_does_not_lean():
    image = torch.rand(1, 1, 8, 9, 8, generator=torch.Generator().manual_seed(0))
    one, two = (
        predict_probabilities(by_thresholds(), image, PredictionSettings(mirror_axes=a)) for a in ((), (0, 1, 2))
    )
    torch.testing.assert_close(one, two)


def test_several_networks_decide_by_their_mean_probability():
    names = ("a" * 16, "b" * 16, "c" * 16)
    networks = (Certain(0.5, 0.4, 0.1), Certain(0.5, 0.4, 0.1), Certain(0.1, 0.8, 0.1))
    together = [with_network(network, name) for network, name in zip(networks, names, strict=True)]
    predicted = predict_ensemble(together, case(0))
    assert (predicted.required_mask() == 3).all()
    assert predicted.provenance["segmented_by"] == "+".join(names)
    assert (predict_ensemble(together[:2], case(0)).required_mask() == 0).all()


def test_networks_of_other_structures_do_not_decide_together():
    other = Segmenter(Thresholds(), stage(), LABELS, Classes(codes=(0, 3)), SCALE, "1" * 16, torch.device("cpu"))
    with pytest.raises(InputError, match="were trained on other structures or intensities"):
        predict_ensemble([by_thresholds(), other], case(0))


@pytest.mark.parametrize("axes", [(3,), (0, 0)])
def test_axes_to_mirror_are_the_cases_own(axes):
    with pytest.raises(InputError, match=r"must be different ones of 0 \.\. 2, the axes of box-0"):
        predict_mask(by_thresholds(), case(0), PredictionSettings(mirror_axes=axes))


def test_slices_and_other_units_are_refused(run):
    segmenter = load_segmenter(run)
    with pytest.raises(InputError, match="has 2 axes and the segmenter takes 3"):
        predict_mask(segmenter, case(0, (12, 12)))
    with pytest.raises(InputError, match="is in 'mr'"):
        predict_mask(segmenter, case(0, intensity_unit="mr"))
