import numpy as np
import pydantic
import pytest
import torch

from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale, Window
from cardiosynth.core.labels import label_table
from cardiosynth.core.random import generator
from cardiosynth.core.store import load_tensors, read_json, read_rows
from cardiosynth.data.loader import CaseCache
from cardiosynth.segmentation.augmentation import Augmentation
from cardiosynth.segmentation.losses import ConfidenceWeights, cal_loss
from cardiosynth.segmentation.networks import SegmenterSettings, build_segmenter, target_classes
from cardiosynth.segmentation.spatial import SpatialChange
from cardiosynth.segmentation.task import SegmentationTask, train_segmenter, weighted

from .cases import LABELS, SCALE, case, stage

CLASSES = target_classes(LABELS)
STILL = Augmentation(noise=0, contrast=0, brightness=0, flip_axes=(0, 1, 2))
SHORT = stage(training=stage().training.model_copy(update={"steps": 3}))


def task(settings, *cases) -> SegmentationTask:
    cache = CaseCache(cases, SCALE, needs_masks=True)
    return SegmentationTask(cache, build_segmenter(settings.network, CLASSES), settings)


def with_confidence(index: int, value: float | None = None):
    plain = case(index)
    mask = plain.required_mask()
    confidence = (mask / 64).astype(np.float32) if value is None else np.full(mask.shape, value, np.float32)
    return plain.with_(confidence=confidence, origin="synthetic")


def test_image_mask_and_confidence_of_an_example_lie_on_each_other():
    batch = task(stage(augmentation=STILL), with_confidence(0), with_confidence(1)).batch(
        [generator(0, i) for i in range(6)]
    )
    codes = torch.tensor(CLASSES.codes)[batch["classes"].long()]
    lung = batch["image"] < 0.2
    torch.testing.assert_close(batch["confidence"], torch.where(lung, 40, codes) / 64, atol=1 / 255, rtol=0)
    assert (batch["image"][codes == 3] > 0.55).all()


def test_real_voxels_all_count_alike_and_synthetic_ones_by_their_confidence():
    mixed = task(stage(), case(0), with_confidence(1, 0.2))
    confidence = mixed.batch([generator(0, i) for i in range(20)])["confidence"].flatten(1)
    assert (confidence.amin(1) == confidence.amax(1)).all()
    assert confidence.unique().tolist() == pytest.approx([0.2, 1.0])


def test_without_cal_confidence_maps_change_nothing(tmp_path):
    plain = stage(confidence=None, training=SHORT.training)
    one = train_segmenter([case(0), case(1)], tmp_path / "a", plain, SCALE)
    other = train_segmenter([with_confidence(0), with_confidence(1)], tmp_path / "b", plain, SCALE)
    assert (one / "training.safetensors").read_bytes() == (other / "training.safetensors").read_bytes()


@pytest.mark.parametrize(("value", "expected"), [(0.2, 1.0), (1.0, 1.0), (0.0, 1.0)])
def test_relative_weights_of_an_even_map_are_those_of_a_real_case(value, expected):
    settings = stage(confidence=ConfidenceWeights(relative=True, floor=0.1))
    cases = [weighted(c, settings.confidence) for c in (case(0), with_confidence(1, value))]
    confidence = task(settings, *cases).batch([generator(0, i) for i in range(20)])["confidence"]
    torch.testing.assert_close(confidence, torch.full_like(confidence, expected), atol=1e-6, rtol=0)


def test_relative_weights_have_mean_one_over_the_case_and_a_floor():
    settings = stage(confidence=ConfidenceWeights(relative=True, floor=0.25), crop=(12, 12, 12), augmentation=STILL)
    floored = [weighted(with_confidence(i), settings.confidence) for i in range(2)]
    assert floored[0].confidence.min() == 0.25
    confidence = task(settings, *floored).batch([generator(0, 0)])["confidence"]
    assert confidence.mean().item() == pytest.approx(1, abs=1e-5)
    assert (confidence.max() / confidence.min()).item() == pytest.approx(floored[0].confidence.max() / 0.25, rel=0.01)


def test_examples_are_centered_on_every_structure_alike():
    sparse = np.zeros((1, 12, 12, 12), np.uint8)
    sparse[0, 6, 6, 6], sparse[0, 6, 6, 7:] = 3, 7
    both = task(stage(foreground=1.0), *(case(i, mask=sparse) for i in range(2)))
    classes = both.batch([generator(0, i) for i in range(100)])["classes"]
    centers = classes[:, 0, 4, 4, 4].tolist()
    assert centers.count(1) > 30
    assert centers.count(2) > 10  # those near the border cannot be the center


def test_an_example_is_a_function_of_its_generator():
    both = task(stage(), case(0), case(1))
    first = both.batch([generator(0, i) for i in range(3)])
    alone = both.batch([generator(0, 2)])
    assert all(torch.equal(first[name][2:], alone[name]) for name in first)


def test_the_loss_is_cal_on_the_networks_logits():
    mixed = task(stage(), case(0), with_confidence(1))
    batch = mixed.batch([generator(0, i) for i in range(4)])
    assert 0 < batch["confidence"].mean() < 1
    parts = mixed.players()[0].loss(batch)
    expected = cal_loss(mixed.module(batch["image"]), batch["classes"], batch["confidence"])
    torch.testing.assert_close(parts["total"], expected)
    torch.testing.assert_close(parts["total"], parts["cross_entropy"] + parts["dice"])


def test_without_confidence_nothing_is_learned_but_decay(tmp_path):
    training = SHORT.training.model_copy(update={"weight_decay": 0.0, "ema_decay": 0.0})
    settings = stage(training=training)
    final = train_segmenter([with_confidence(0, 0.0), with_confidence(1, 0.0)], tmp_path, settings, SCALE)
    before = build_segmenter(settings.network, CLASSES).state_dict()
    for name, value in load_tensors(final / "model.safetensors").items():
        assert torch.equal(value, before[name])


def test_training_stops_and_goes_on_with_the_same_command(tmp_path):
    cases = [case(0), with_confidence(1)]
    straight = train_segmenter(cases, tmp_path / "a", SHORT, SCALE)
    fewer = stage(training=SHORT.training.model_copy(update={"steps": 2}))
    train_segmenter(cases, tmp_path / "b", fewer, SCALE)
    resumed = train_segmenter(cases, tmp_path / "b", SHORT, SCALE)
    for name in ("model.safetensors", "training.safetensors", "record.json"):
        assert (straight / name).read_bytes() == (resumed / name).read_bytes()


def test_fine_tuning_starts_from_the_pretrained_weights(tmp_path):
    pretrained = train_segmenter([with_confidence(0), with_confidence(1)], tmp_path / "pre", SHORT, SCALE)
    frozen = SHORT.training.model_copy(update={"learning_rate": 1e-30, "weight_decay": 0.0})
    settings = stage(training=frozen)
    tuned = train_segmenter([case(2), case(3)], tmp_path / "tuned", settings, SCALE, init=tmp_path / "pre")
    a, b = (load_tensors(path / "model.safetensors") for path in (pretrained, tuned))
    for name in a:
        torch.testing.assert_close(a[name], b[name])
    assert read_json(tuned / "record.json")["init"] == read_json(pretrained / "record.json")["fingerprint"]


def test_the_loss_falls(tmp_path):
    final = train_segmenter([case(i) for i in range(3)], tmp_path, stage(), SCALE)
    losses = [row["segmenter/total"] for row in read_rows(final.parent / "metrics.jsonl")]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def mixture(shares) -> SegmentationTask:
    settings = stage(shares=shares)
    cache = CaseCache([case(i) for i in range(5)], SCALE, needs_masks=True)
    return SegmentationTask(cache, build_segmenter(settings.network, CLASSES), settings, sizes=(1, 4))


def test_datasets_are_drawn_by_their_shares_and_cases_of_one_alike():
    drawn = mixture((1, 3)).batch([generator(0, i) for i in range(400)])["index"].tolist()
    assert 70 < drawn.count(0) < 130
    assert all(50 < drawn.count(index) < 100 for index in range(1, 5))


def test_without_shares_every_case_is_drawn_alike_and_as_if_of_one_dataset():
    rngs = [[generator(0, i) for i in range(20)] for _ in range(2)]
    mixed, single = mixture(()), task(stage(), *(case(i) for i in range(5)))
    one, other = mixed.batch(rngs[0]), single.batch(rngs[1])
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_mixed_training_stops_and_goes_on_with_the_same_command(tmp_path):
    augmentation = Augmentation(gamma=0.1, spatial=SpatialChange(rotation_deg=20, distortion_mm=1))
    settings = stage(shares=(1, 2), augmentation=augmentation, training=SHORT.training)
    real, synthetic = [case(0)], [with_confidence(1), with_confidence(2)]
    straight = train_segmenter(real, tmp_path / "a", settings, SCALE, mixed_with=[synthetic])
    fewer = settings.model_copy(update={"training": SHORT.training.model_copy(update={"steps": 2})})
    train_segmenter(real, tmp_path / "b", fewer, SCALE, mixed_with=[synthetic])
    resumed = train_segmenter(real, tmp_path / "b", settings, SCALE, mixed_with=[synthetic])
    for name in ("model.safetensors", "training.safetensors", "record.json"):
        assert (straight / name).read_bytes() == (resumed / name).read_bytes()
    assert read_json(straight / "record.json")["datasets"] == [1, 2]


@pytest.mark.parametrize("axes", [2, 3])
def test_a_map_of_the_structures_lies_on_them_after_all_changes(axes):
    """The nearest voxel has at least (1/2)^axes of the weight of a linear interpolation."""
    cases = [case(i, (16,) * axes) for i in range(2)]
    cases = [c.with_(confidence=np.isin(c.required_mask(), (3, 7)).astype(np.float32)) for c in cases]
    spatial = SpatialChange(rotation_deg=30, scaling=0.2, shift_mm=2, distortion_mm=2, distortion_spacing_mm=6)
    augmentation = Augmentation(flip_axes=(0, 1), gamma=0.2, blur_voxels=1, spatial=spatial)
    network = SegmenterSettings(spatial_dims=axes, channels=(4, 8), strides=(2,))
    settings = stage(network=network, crop=(12,) * axes, augmentation=augmentation)
    batch = task(settings, *cases).batch([generator(0, "map", i) for i in range(8)])
    inside, least = batch["classes"] > 0, 0.5**axes
    assert batch["confidence"][inside].min() >= least - 1e-3
    assert batch["confidence"][~inside].max() <= 1 - least + 1e-3
    assert 0.1 < inside.float().mean() < 0.9
    assert batch["confidence"].roll(2, -1)[inside].min() < least / 2, "a map elsewhere would be seen"


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_labels_of_a_case_where_its_confidence_is_zero_change_nothing_that_is_learned(level):
    """Not the places of crops, and not through neighbors after rotation: all gradients are bit for bit the same."""
    confidence = np.ones((1, 12, 12, 12), np.float32)
    confidence[:, 6:] = level
    given = [case(i, confidence=confidence, origin="synthetic") for i in range(2)]
    scrambled = []
    for one in given:
        mask = one.required_mask().copy()
        mask[:, 6:] = np.where(mask[:, 6:] == 7, 3, 7)
        scrambled.append(one.with_(mask=mask))
    settings = stage(augmentation=Augmentation(spatial=SpatialChange(rotation_deg=20, scaling=0.1)))
    gradients = []
    for cases in (given, scrambled):
        learner = task(settings, *cases)
        learner.players()[0].loss(learner.batch([generator(0, i) for i in range(6)]))["total"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in learner.module.parameters() if p.grad is not None]))
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients) == (level == 0)


def test_full_confidence_is_the_bits_of_none_whatever_is_augmented():
    augmentation = Augmentation(flip_axes=(0,), spatial=SpatialChange(rotation_deg=30, shift_mm=4))
    settings = stage(augmentation=augmentation)
    plain, full = (
        task(settings, *cases) for cases in ([case(0), case(1)], [with_confidence(0, 1.0), with_confidence(1, 1.0)])
    )
    one, other = (each.batch([generator(0, i) for i in range(4)]) for each in (plain, full))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["confidence"].min() < 1, "some examples reach beyond the case"


@pytest.mark.parametrize(
    ("others", "shares", "message"),
    [
        ([[case(2)]], (1.0,), "segmenter.shares has 1 numbers for 2 datasets"),
        ([], (1.0, 2.0), "segmenter.shares has 2 numbers for 1 datasets"),
        ([[case(2, labels=label_table({"atrium": 3, "wall": 7, "lung": 40}, ["lung"]))]], (), "code 3 is atrium"),
        ([[case(2, intensity_unit="mr")]], (), "case box-2 is in 'mr'"),
    ],
)
def test_datasets_that_cannot_be_mixed_are_refused(others, shares, message, tmp_path):
    settings = stage(shares=shares, training=SHORT.training)
    with pytest.raises(InputError, match=message):
        train_segmenter([case(0), case(1)], tmp_path, settings, SCALE, mixed_with=others)


def test_weights_of_other_structures_or_another_window_are_refused(tmp_path):
    once = stage(training=SHORT.training.model_copy(update={"steps": 1}))
    train_segmenter([case(0), case(1)], tmp_path / "pre", once, SCALE)
    other = [case(i, labels=OTHER_TABLE) for i in range(2)]
    with pytest.raises(InputError, match="pre/segmenter: code 3 is chamber and atrium in the cases"):
        train_segmenter(other, tmp_path / "tuned", once, SCALE, init=tmp_path / "pre")
    narrow = IntensityScale(window=Window(low=-500, high=800))
    with pytest.raises(InputError, match="was trained on intensities as hu -1000 to 2000, not hu -500 to 800"):
        train_segmenter([case(0), case(1)], tmp_path / "tuned", once, narrow, init=tmp_path / "pre")


OTHER_TABLE = label_table({"atrium": 3, "wall": 7, "lung": 40}, ["lung"])


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ([case(0)], "1 case is too few"),
        ([case(0), case(1, (12, 12))], "case box-1 has 2 axes and the segmenter takes 3"),
        ([case(0), case(1, mask=np.zeros((1, 12, 12, 12), np.uint8))], "case box-1: its mask is empty"),
        ([case(0), case(1, intensity_unit="mr")], "case box-1 is in 'mr'"),
        ([case(0), case(1, labels=OTHER_TABLE)], "case box-1: code 3 is atrium and chamber in the other cases"),
        ([case(0), case(1, mask=None)], "case box-1 has no mask"),
    ],
)
def test_cases_that_cannot_be_trained_on_are_named(cases, message, tmp_path):
    with pytest.raises(InputError, match=message):
        train_segmenter(cases, tmp_path / "run", SHORT, SCALE)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": (8, 8)}, "3 multiples of 2"),
        ({"crop": (8, 8, 7)}, "3 multiples of 2"),
        ({"augmentation": Augmentation(flip_axes=(3,))}, "must lie in 0 .. 2"),
    ],
)
def test_settings_that_do_not_suit_each_other_are_refused(change, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        stage(**change)
