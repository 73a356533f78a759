from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import label_table
from cardiosynth.core.store import save_checkpoint
from cardiosynth.data.dataset import read_dataset, write_dataset
from cardiosynth.data.loader import CaseCache
from cardiosynth.segmentation.medsam import predict
from cardiosynth.segmentation.medsam.chain import predict_dataset
from cardiosynth.segmentation.medsam.predict import GROUND_TRUTH, Medsam, load_medsam, merged, segment
from cardiosynth.segmentation.medsam.task import PUBLISHED_SCALE, SCALE, train_medsam
from cardiosynth.segmentation.networks import build_segmenter, target_classes
from cardiosynth.segmentation.records import training_record

from ..cases import stage as own_stage
from .models import TRAINING, stage

LABELS = label_table({"chamber": 3, "vessel": 7, "lung": 40}, surroundings=["lung"])
AFFINE = np.array([[0, -1.2, 0.1, 5], [0.9, 0, 0, -7], [0, 0.1, 4, 30], [0, 0, 0, 1]], float)


class Seeing(nn.Module):
    """A perfect network: within a box, all that is as bright as its center."""

    def __init__(self):
        super().__init__()
        self.vision_encoder = _Eye()

    def forward(self, image_embeddings, input_boxes, multimask_output):
        masks, grid = [], torch.arange(64.0)
        for left, top, right, bottom in input_boxes[0].tolist():
            inside = ((grid >= top) & (grid <= bottom))[:, None] & ((grid >= left) & (grid <= right))
            center = image_embeddings[0, 0, round((top + bottom) / 2), round((left + right) / 2)]
            masks.append(torch.where(inside & ((image_embeddings[0, 0] - center).abs() < 0.16), 20.0, -20.0))
        return SimpleNamespace(pred_masks=torch.stack(masks)[None, :, None])


class _Eye(nn.Module):
    def forward(self, pixels):
        return SimpleNamespace(last_hidden_state=pixels[:, :1])


def perfect() -> Medsam:
    return Medsam(Seeing(), stage(), SCALE, "0" * 16, torch.device("cpu"))


def volume(index: int, shape=(32, 16, 4)) -> Case:
    mask = np.zeros((1, *shape), np.uint8)
    mask[:, 4 + index : 15, 3:10] = 3
    mask[:, 20:22, 5:13] = 7
    mask[:, 28:] = 40
    image = np.select([mask == 3, mask == 7], [350, -170], 90).astype(np.int16)
    return Case(case_id=f"scan-{index}", image=image, mask=mask, affine=AFFINE, labels=LABELS)


@pytest.fixture
def scans(tmp_path):
    return write_dataset([volume(0), volume(1)], tmp_path / "scans")


def test_a_perfect_networks_masks_come_back_on_the_grid(scans, tmp_path):
    found = segment(perfect(), scans, tmp_path / "out")
    for case in found:
        truth = scans.case(case.case_id)
        assert np.array_equal(case.required_mask(), LABELS.only_targets(truth.required_mask()))
        assert case.grid.same_as(truth.grid)
        assert case.image is None
        assert case.provenance["boxes_of"] == GROUND_TRUTH
        assert case.provenance["segmented_by"] == "0" * 16


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_whatever_the_slice_axis(axes):
    case = volume(0)
    order = [0, *(axis + 1 for axis in axes)]
    turned = case.with_(
        image=case.required_image().transpose(order),
        mask=case.required_mask().transpose(order),
        affine=case.affine[:, [*axes, 3]],
    )
    mask = predict.predict_mask(perfect(), turned, turned)
    assert np.array_equal(mask, LABELS.only_targets(turned.required_mask()))


def test_boxes_of_a_segmenters_masks_lead_to_the_same_and_are_named(scans, tmp_path):
    guesses = []
    for case in scans:
        mask = LABELS.only_targets(case.required_mask())
        for code in (3, 7):  # a hole, and the box is the same
            voxels = np.argwhere(mask == code)
            mask[tuple(voxels[len(voxels) // 2])] = 0
        guesses.append(case.with_(image=None, mask=mask, provenance={"segmented_by": "1" * 16}))
    prompts = write_dataset(guesses, tmp_path / "guesses", name="first look")
    found = segment(perfect(), scans, tmp_path / "out", prompts=prompts)
    truth = scans.case("scan-1").required_mask()
    assert np.array_equal(found.case("scan-1").required_mask(), LABELS.only_targets(truth))
    boxes = found.case("scan-1").provenance["boxes_of"]
    assert (boxes["dataset"], boxes["segmented_by"]) == ("first look", ["1" * 16])
    with pytest.raises(InputError, match="was made with other settings"):
        segment(perfect(), scans, tmp_path / "out")


def test_prediction_goes_on_where_it_stopped(scans, tmp_path, monkeypatch):
    honest, seen = predict.predict_mask, []

    def once(medsam, case, prompts):
        if seen:
            raise KeyboardInterrupt
        seen.append(case.case_id)
        return honest(medsam, case, prompts)

    monkeypatch.setattr(predict, "predict_mask", once)
    with pytest.raises(KeyboardInterrupt):
        segment(perfect(), scans, tmp_path / "out")
    left = []
    monkeypatch.setattr(predict, "predict_mask", lambda m, c, p: left.append(c.case_id) or honest(m, c, p))
    segment(perfect(), scans, tmp_path / "out")
    assert (seen, left) == (["scan-0"], ["scan-1"])
    assert read_dataset(tmp_path / "out").case_ids == ("scan-0", "scan-1")


def test_the_highest_probability_wins_and_below_one_half_is_background():
    probabilities = torch.tensor([[[0.9, 0.6, 0.2]], [[0.8, 0.7, 0.5]]])
    assert merged(probabilities, [3, 7]).tolist() == [[3, 7, 0]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run of one step."""
    run = tmp_path_factory.mktemp("medsam")
    train_medsam([volume(0), volume(1)], run, stage(training=TRAINING.model_copy(update={"steps": 1})))
    return run


def test_cases_that_the_prompts_lack_are_named_before_anything_is_written(scans, tmp_path):
    guesses = write_dataset([volume(0).with_(image=None)], tmp_path / "guesses")
    with pytest.raises(InputError, match="has no mask of case scan-1 to draw boxes around"):
        segment(perfect(), scans, tmp_path / "out", guesses)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_masks_prompts_or_a_run_of_our_own_segmenter_whose_masks_are_made_first(run, scans, tmp_path):
    scale = IntensityScale()
    record = training_record("segmenter", own_stage(), CaseCache(list(scans), scale), scale, None)
    record["classes"] = target_classes(LABELS).model_dump(mode="json")
    network = build_segmenter(own_stage().network, target_classes(LABELS))
    save_checkpoint(tmp_path / "own" / "segmenter", 1, network.state_dict(), {}, record)
    by_run = predict_dataset(run, scans, tmp_path / "by-run", prompts=tmp_path / "own")
    guesses = read_dataset(tmp_path / "by-run-prompts")
    by_folder = predict_dataset(run, scans, tmp_path / "folder", prompts=guesses.root)
    for one in by_run:
        assert np.array_equal(one.required_mask(), by_folder.case(one.case_id).required_mask())
        assert one.provenance["boxes_of"]["segmented_by"] == [guesses[0].provenance["segmented_by"]]
    published = predict_dataset(run, scans, tmp_path / "published")
    assert published.description.facts["boxes_of"] == GROUND_TRUTH
    assert published.description.facts["licences"] == ["unknown"]
    with pytest.raises(InputError, match="was made with other settings"):
        predict_dataset(run, scans, tmp_path / "published", scale=PUBLISHED_SCALE)


def test_a_trained_network_predicts_and_cached_embeddings_change_nothing(run, scans, tmp_path):
    case = scans.case("scan-0")
    plain, cached = load_medsam(run), load_medsam(run, embeddings=tmp_path / "seen")
    masks = [predict.predict_mask(medsam, case, case) for medsam in (plain, cached, cached)]
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[0], masks[2])
    assert set(np.unique(masks[0])) <= {0, 3, 7}
    assert list((tmp_path / "seen").rglob("*.safetensors"))


def test_masks_of_another_grid_and_images_of_another_unit_are_refused(scans):
    case = scans.case("scan-0")
    with pytest.raises(InputError, match="the mask for its boxes has another grid"):
        predict.predict_mask(perfect(), case, case.with_(affine=np.eye(4)))
    with pytest.raises(InputError, match="is in 'mr'"):
        predict.predict_mask(perfect(), case.with_(intensity_unit="mr"), case)
