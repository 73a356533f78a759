import numpy as np
import pydantic
import pytest
import torch
from monai.losses.dice import DiceLoss

from cardiosynth.core.errors import InputError
from cardiosynth.core.random import generator
from cardiosynth.core.store import load_tensors, read_json
from cardiosynth.data.loader import CaseCache
from cardiosynth.segmentation.losses import ConfidenceWeights
from cardiosynth.segmentation.medsam.embeddings import EmbeddingCache, read_embedding
from cardiosynth.segmentation.medsam.losses import medsam_parts
from cardiosynth.segmentation.medsam.network import build_medsam
from cardiosynth.segmentation.medsam.slices import upright
from cardiosynth.segmentation.medsam.task import SCALE, MedsamTask, train_medsam

from ..cases import case
from .models import TINY, TRAINING, stage

SHAPE = (12, 12, 6)


def cases(confidence: float | None = None):
    found = [case(index, SHAPE) for index in range(2)]
    if confidence is None:
        return found
    even = np.full((1, *SHAPE), confidence, np.float32)
    return [found[0], found[1].with_(confidence=even, origin="synthetic")]


def task(settings=None, given=None) -> MedsamTask:
    return MedsamTask(CaseCache(given or cases(), SCALE, needs_masks=True), build_medsam(TINY), settings or stage())


def batch_of(one: MedsamTask, number: int = 3):
    return one.batch([generator(0, index) for index in range(number)])


def gradients(one: MedsamTask, batch):
    one.module.zero_grad()
    one.players()[0].loss(batch)["total"].backward()
    return {name: p.grad.clone() for name, p in one.module.named_parameters() if p.grad is not None}


def test_image_target_and_box_of_an_example_lie_on_each_other():
    batch = batch_of(task(stage(box_shift=0.0)), 8)
    assert batch["image"].shape == batch["target"].shape == batch["confidence"].shape == (8, 1, 64, 64)
    for image, target, box in zip(batch["image"], batch["target"], batch["box"], strict=True):
        rows, columns = torch.nonzero(target[0], as_tuple=True)
        span = [columns.min(), rows.min(), columns.max(), rows.max()]
        torch.testing.assert_close(box[0], torch.stack(span).float(), rtol=0, atol=1)
        assert image[target > 0].mean() > image[target == 0].mean()  # the structures are the bright ones
    assert batch["confidence"].unique().tolist() == [1.0]


def test_each_slice_with_a_structure_is_a_place_and_thin_slices_are_cut_across():
    one = task(given=[case(0, SHAPE), case(1, (12, 12))])
    assert {place.axis for place in one.places} == {2, None}
    for place in one.places:
        mask = one.cache.cases[place.case].required_mask()[0]
        shown = mask if place.axis is None else mask[..., place.position]
        assert set(place.codes) == set(np.unique(shown)) & {3, 7}
    first = one.places[0]
    plane = one.cache.image(0)[0, :, :, first.position]
    back = torch.nn.functional.interpolate(one.picture(first)[None], (12, 12), mode="area")
    assert torch.corrcoef(torch.stack([upright(plane).flatten(), back.flatten()]))[0, 1] > 0.98


def test_the_loss_is_medsams_on_the_enlarged_logits_and_the_prompt_encoder_does_not_move():
    one = task(given=cases(0.5))
    batch = batch_of(one)
    parts = one.players()[0].loss(batch)
    torch.testing.assert_close(parts["total"], parts["dice"] + parts["cross_entropy"])
    logits = one.module(
        pixel_values=batch["image"].expand(-1, 3, -1, -1), input_boxes=batch["box"], multimask_output=False
    ).pred_masks[:, 0]
    logits = torch.nn.functional.interpolate(logits, (64, 64), mode="bilinear")
    wanted = medsam_parts(logits, batch["target"], batch["confidence"])
    torch.testing.assert_close(parts["dice"], wanted["dice"])
    assert not {name for name in gradients(one, batch) if name.startswith(("prompt_encoder", "shared"))}


def test_labels_where_confidence_is_zero_change_no_gradient_of_the_network():
    one = task()
    batch = dict(batch_of(one))
    batch["confidence"] = batch["confidence"].clone()
    batch["confidence"][..., :30] = 0
    scrambled = {**batch, "target": torch.where(batch["confidence"] == 0, 1 - batch["target"], batch["target"])}
    here, there = gradients(one, batch), gradients(one, scrambled)
    assert max(float(value.abs().max()) for value in here.values()) > 0
    assert all(torch.equal(value, there[name]) for name, value in here.items())


def test_labels_of_a_case_where_its_confidence_is_zero_change_nothing_that_is_learned():
    """Not the slices, not the structures drawn, not the boxes: all gradients are bit for bit the same."""
    confidence = np.ones((1, *SHAPE), np.float32)
    confidence[:, 5:] = 0
    given = [c.with_(confidence=confidence, origin="synthetic") for c in cases()]
    mask = [c.required_mask().copy() for c in given]
    for one in mask:
        one[:, 5:] = np.where(one[:, 5:] == 7, 3, 7)
    scrambled = [c.with_(mask=m) for c, m in zip(given, mask, strict=True)]
    honest, other = task(given=given), task(given=scrambled)
    assert honest.places == other.places
    here, there = gradients(honest, batch_of(honest, 6)), gradients(other, batch_of(other, 6))
    assert max(float(value.abs().max()) for value in here.values()) > 0
    assert all(torch.equal(value, there[name]) for name, value in here.items())


def test_full_confidence_is_medsams_own_training_in_loss_and_gradients():
    one = task(given=cases(1.0))
    batch = batch_of(one)
    weighted = gradients(one, batch)
    one.module.zero_grad()
    logits = one.module(
        pixel_values=batch["image"].expand(-1, 3, -1, -1), input_boxes=batch["box"], multimask_output=False
    ).pred_masks[:, 0]
    logits = torch.nn.functional.interpolate(logits, (64, 64), mode="bilinear")
    stock = DiceLoss(sigmoid=True, squared_pred=True)(logits, batch["target"])
    stock = stock + torch.nn.BCEWithLogitsLoss()(logits, batch["target"])
    torch.testing.assert_close(one.players()[0].loss(batch)["total"], stock, rtol=1e-5, atol=0)
    stock.backward()
    for name, parameter in one.module.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(weighted[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_training_stops_and_goes_on_with_the_same_command(tmp_path):
    straight = train_medsam(cases(0.5), tmp_path / "a", stage())
    train_medsam(cases(0.5), tmp_path / "b", stage(training=TRAINING.model_copy(update={"steps": 2})))
    resumed = train_medsam(cases(0.5), tmp_path / "b", stage())
    for name in ("model.safetensors", "training.safetensors", "record.json"):
        assert (straight / name).read_bytes() == (resumed / name).read_bytes()
    before, after = build_medsam(TINY).state_dict(), load_tensors(straight / "model.safetensors")
    moved = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert moved == {"vision_encoder", "mask_decoder"}


def test_fine_tuning_starts_from_the_pretrained_weights_and_epochs_are_passes_over_the_slices(tmp_path):
    pretrained = train_medsam(cases(), tmp_path / "pre", stage(epochs=1, training=TRAINING))
    frozen = TRAINING.model_copy(update={"learning_rate": 1e-30, "weight_decay": 0.0, "steps": 1})
    tuned = train_medsam(cases(), tmp_path / "tuned", stage(training=frozen), init=tmp_path / "pre")
    a, b = (load_tensors(path / "model.safetensors") for path in (pretrained, tuned))
    for name in a:
        torch.testing.assert_close(a[name], b[name])
    record = read_json(pretrained / "record.json")
    assert read_json(tuned / "record.json")["init"] == record["fingerprint"]
    assert record["step"] == -(-len(task().places) // TRAINING.batch_size)


def test_cached_embeddings_are_those_computed_anew_and_are_computed_once(tmp_path, monkeypatch):
    frozen = stage(freeze_encoder=True, cache_embeddings=True)
    plain, kept = task(stage(freeze_encoder=True)), task(frozen)
    cache = EmbeddingCache(tmp_path / "embeddings", kept.module, torch.device("cpu"), "fp32")
    place = kept.places[1]
    file = cache.keep(kept.picture(place))
    assert torch.equal(read_embedding(file), cache.compute(plain.picture(place)))
    kept.keep_embeddings(cache)
    assert "embedding" in batch_of(kept)
    torch.testing.assert_close(gradients(kept, batch_of(kept)), gradients(plain, batch_of(plain)), rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(EmbeddingCache, "compute", lambda *_: pytest.fail("computed again"))
    again = task(frozen)
    again.keep_embeddings(EmbeddingCache(tmp_path / "embeddings", again.module, torch.device("cpu"), "fp32"))
    assert all(torch.equal(value, batch_of(again)[name]) for name, value in batch_of(kept).items())


def test_what_was_computed_in_bfloat16_is_kept_in_half_the_room(tmp_path):
    one = task()
    picture = one.picture(one.places[0])
    rooms = []
    for precision in ("fp32", "bf16"):
        cache = EmbeddingCache(tmp_path, one.module, torch.device("cpu"), precision)
        file, computed = cache.keep(picture), cache.compute(picture)
        kept = load_tensors(file)["embedding"]
        assert kept.nbytes / 1e9 == cache.size_gb(1, TINY)
        torch.testing.assert_close(read_embedding(file), computed, rtol=0 if precision == "fp32" else 2**-11, atol=1e-7)
        rooms.append(kept.nbytes)
    assert rooms[0] == 2 * rooms[1]


def test_another_encoder_window_or_slice_is_another_embedding(tmp_path):
    one, other = task(), build_medsam(TINY, seed=1)
    cache = EmbeddingCache(tmp_path, one.module, torch.device("cpu"), "fp32")
    picture = one.picture(one.places[0])
    files = {cache.file(picture), cache.file(one.picture(one.places[1])), cache.file(picture * 0.99)}
    files.add(EmbeddingCache(tmp_path, other, torch.device("cpu"), "fp32").file(picture))
    files.add(EmbeddingCache(tmp_path, one.module, torch.device("cpu"), "bf16").file(picture))
    assert len(files) == 5


def test_a_run_with_cached_embeddings_goes_on_and_leaves_the_encoder_alone(tmp_path):
    frozen = stage(freeze_encoder=True, cache_embeddings=True)
    straight = train_medsam(cases(), tmp_path / "a", frozen, embeddings=tmp_path / "shared")
    two = stage(freeze_encoder=True, cache_embeddings=True, training=TRAINING.model_copy(update={"steps": 2}))
    train_medsam(cases(), tmp_path / "b", two)
    resumed = train_medsam(cases(), tmp_path / "b", frozen)
    assert (straight / "training.safetensors").read_bytes() == (resumed / "training.safetensors").read_bytes()
    assert {p.name for p in (tmp_path / "shared").rglob("*.*")} == {
        p.name for p in (tmp_path / "b" / "embeddings").rglob("*.*")
    }
    before, after = build_medsam(TINY).state_dict(), load_tensors(straight / "model.safetensors")
    assert {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])} == {"mask_decoder"}


def test_what_cannot_be_learned_from_is_said(tmp_path):
    with pytest.raises(InputError, match="no slice shows a target structure with 999 pixels"):
        task(stage(smallest_area=999))
    with pytest.raises(pydantic.ValidationError, match="cache_embeddings needs freeze_encoder"):
        stage(cache_embeddings=True)
    floor = stage(confidence=ConfidenceWeights(relative=True))
    batch = batch_of(task(floor, cases(0.25)), 6)
    assert batch["confidence"].unique().tolist() == pytest.approx([1.0], abs=0.01)
