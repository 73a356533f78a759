import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cardiosynth.autoencoder.codebook import CodebookSettings
from cardiosynth.autoencoder.codec import load_codec, measure_statistics
from cardiosynth.autoencoder.discriminators import AdversarialSettings, canny_edges
from cardiosynth.autoencoder.losses import Perceptual, ReconstructionSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings, MaisiAutoencoder, build_autoencoder
from cardiosynth.autoencoder.task import AutoencoderStage, AutoencoderTask, load_initial, train_autoencoder
from cardiosynth.autoencoder.verdict import in_words
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator
from cardiosynth.core.store import latest_checkpoint, load_tensors, read_json, read_rows
from cardiosynth.data.loader import CaseCache
from cardiosynth.training.loop import fit
from cardiosynth.training.state import load_weights

from .blobs import SIZE, blob, flat_blob, tiny_stage

SCALE = IntensityScale()


def task(stage, with_mask=True, **options):
    cache = CaseCache([blob(i, with_mask) for i in range(3)], SCALE)
    return AutoencoderTask(cache, build_autoencoder(stage.network), stage, **options)


def test_an_example_is_a_function_of_its_generator_wherever_it_stands_in_the_batch():
    one = task(tiny_stage()).batch([generator(0, "a"), generator(0, "b")])
    other = task(tiny_stage()).batch([generator(0, "b")])
    assert set(one) == {"image", "weight", "noise", "index"}
    assert all(torch.equal(one[name][1], other[name][0]) for name in one)
    assert one["noise"].shape == (2, 4, 4, 4, 4)
    assert not torch.equal(one["noise"][0], one["noise"][1])


def test_a_batch_tells_its_cases():
    subject = task(tiny_stage(crop=(SIZE,) * 3))
    batch = subject.batch([generator(0, i) for i in range(4)])
    whole = {case_id: subject.cache.image(i) for i, case_id in enumerate(subject.cache.case_ids)}
    names = subject.case_names(batch)
    assert len(set(names)) > 1
    assert all(torch.equal(batch["image"][i], whole[name]) for i, name in enumerate(names))


def test_the_loss_is_a_function_of_module_and_batch():
    subject = task(tiny_stage())
    batch, player = subject.batch([generator(0, "a")]), subject.players()[0]
    assert torch.equal(player.loss(batch)["total"], player.loss(batch)["total"])


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_crops_are_centered_on_thin_structures_as_often_as_asked(fraction):
    stage = tiny_stage(thin_fraction=fraction, loss=ReconstructionSettings(heart=0.0, thin_weight=15.0), crop=(4, 4, 4))
    weight = task(stage).batch([generator(0, i) for i in range(40)])["weight"]
    share = float((weight.amax(dim=(1, 2, 3, 4)) > 1).float().mean())
    assert share == 1 if fraction == 1 else share < 0.6


def test_without_masks_every_voxel_counts_alike():
    batch = task(tiny_stage(), with_mask=False).batch([generator(0, "a")])
    assert (batch["weight"] == 1).all()


def test_what_latents_cost_is_added_to_the_reconstruction():
    stage = tiny_stage(loss=ReconstructionSettings(kl=0.5))
    subject = task(stage)
    parts = subject.players()[0].loss(subject.batch([generator(0, "a")]))
    torch.testing.assert_close(parts["total"], parts["reconstruction"] + 0.5 * parts["kl"])
    begun = quantized_task(quantized_stage("gradient", adversarial=None))
    begun.autoencoder.codebook.sizes.fill_(1.0)
    parts = begun.players()[0].loss(begun.batch([generator(0, "a")]))
    cost = 0.25 * parts["commitment"] + parts["attraction"]
    torch.testing.assert_close(parts["total"], parts["reconstruction"] + cost)


def test_the_loss_falls():
    stage = tiny_stage()
    subject = task(stage)
    player, batch = subject.players()[0], subject.batch([generator(0, i) for i in range(2)])
    optimizer = torch.optim.AdamW(player.parameters, lr=5e-3)
    losses = []
    for _ in range(20):
        loss = player.loss(batch)["total"]
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_a_perceptual_weight_needs_a_distance_and_uses_it():
    stage = tiny_stage(loss=ReconstructionSettings(perceptual=1.0))
    with pytest.raises(InputError, match="perceptual"):
        task(stage)
    squared = Perceptual(lambda a, b: (a - b).square().mean(), "squared")
    with pytest.raises(InputError, match="perceptual is 0"):
        task(tiny_stage(), perceptual=squared)
    subject = task(stage, perceptual=squared)
    parts = subject.players()[0].loss(subject.batch([generator(0, "a")]))
    assert float(parts["perceptual"].detach()) > 0


def test_a_flat_crop_for_volumes_is_refused_and_so_is_one_off_the_compression():
    with pytest.raises(InputError, match="compression"):
        parse_settings(AutoencoderStage, {"crop": [63, 64, 64]}, "test")
    flat = AutoencoderStage(network=AutoencoderSettings(spatial_dims=2), crop=(8, 8))
    with pytest.raises(InputError, match="spatial_dims"):
        task(flat)


def with_opponent(warmup_steps=2, **changes):
    training = tiny_stage().training.model_copy(update={"steps": 5, "checkpoint_every": 5, "ema_decay": 0.9})
    opponent = AdversarialSettings(warmup_steps=warmup_steps, channels=4, layers=1)
    return tiny_stage(**{"adversarial": opponent, "training": training, **changes})


def trained(stage, run, stop_at=None):
    return fit(task(stage), stage.training, run, {"stage": "autoencoder"}, stop_at=stop_at)


def test_the_opponent_joins_after_the_warm_up_and_each_loss_moves_its_own_weights():
    subject = task(with_opponent(warmup_steps=2))
    autoencoder, discriminator = subject.players()
    assert (autoencoder.first_step, discriminator.first_step) == (0, 2)
    batch = dict(subject.batch([generator(0, "a"), generator(0, "b")]))
    before = autoencoder.loss(batch | {"step": torch.tensor(1)})
    assert "adversarial" not in before
    now = batch | {"step": torch.tensor(2)}
    after = autoencoder.loss(now)
    torch.testing.assert_close(after["total"], before["total"] + 0.1 * after["adversarial"])
    after["total"].backward()
    assert all(parameter.grad is None for parameter in discriminator.parameters)
    for parameter in autoencoder.parameters:
        parameter.grad = None
    discriminator.loss(now)["total"].backward()
    assert all(parameter.grad is None for parameter in autoencoder.parameters)
    assert all(parameter.grad is not None for parameter in discriminator.parameters)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return trained(with_opponent(), tmp_path_factory.mktemp("unbroken"))


@pytest.mark.parametrize("stop_at", [1, 2, 4])
def test_two_players_stopped_around_the_warm_up_go_on_to_the_same_bits(stop_at, unbroken, tmp_path):
    trained(with_opponent(), tmp_path, stop_at)
    final = trained(with_opponent(), tmp_path)
    for name in ("model.safetensors", "training.safetensors"):
        assert (final / name).read_bytes() == (unbroken / name).read_bytes()


def test_a_checkpoint_holds_the_autoencoder_alone_and_the_opponent_for_going_on(unbroken, tmp_path):
    plain = load_tensors(trained(with_opponent(adversarial=None), tmp_path) / "model.safetensors")
    found = load_tensors(unbroken / "model.safetensors")
    assert found.keys() == plain.keys()
    assert any(not torch.equal(found[name], plain[name]) for name in plain), "the opponent mattered"
    load_weights(build_autoencoder(tiny_stage().network), unbroken)
    assert any(name.startswith("raw.opponent.") for name in load_tensors(unbroken / "training.safetensors"))


def test_before_the_warm_up_ends_the_opponent_changes_no_bit(tmp_path):
    waiting = trained(with_opponent(warmup_steps=9), tmp_path / "waiting")
    alone = trained(with_opponent(adversarial=None), tmp_path / "alone")
    assert (waiting / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()


def test_a_crop_too_small_for_the_opponent_is_refused():
    with pytest.raises(InputError, match=r"at least 24 voxels .* or fewer adversarial.layers"):
        parse_settings(AutoencoderStage, {"crop": [16, 16, 16], "adversarial": {}}, "test")


def test_two_players_are_not_compiled():
    with pytest.raises(InputError, match="compile=false"):
        parse_settings(AutoencoderStage, {"adversarial": {}, "training": {"compile": True}}, "test")


QUANTIZED = AutoencoderSettings(
    spatial_dims=2, channels=(8,), num_res_blocks=(1,), compression=2, codebook=CodebookSettings(codes=8, begin_step=2)
)


def quantized_stage(learning="average", steps=5, **changes):
    """Return a stage whose codes begin after the second step and whose opponent joins after the third."""
    codebook = CodebookSettings(codes=8, begin_step=2, learning=learning, restart_below=0.5)
    opponent = AdversarialSettings(
        kind="dual", judgement="hinge", adaptive=True, norm="batch", warmup_steps=3, channels=4, layers=1, edge_blocks=1
    )
    values = {
        "network": QUANTIZED.model_copy(update={"codebook": codebook}), "crop": (8, 8), "adversarial": opponent,
        "training": tiny_stage().training.model_copy(update={"steps": steps, "checkpoint_every": 9, "log_every": 1}),
    }  # fmt: skip
    return tiny_stage(**{**values, **changes})


def quantized_task(stage):
    return AutoencoderTask(CaseCache([flat_blob(i) for i in range(3)], SCALE), build_autoencoder(stage.network), stage)


def quantized_run(stage, run, stop_at=None):
    return fit(quantized_task(stage), stage.training, run, {"stage": "autoencoder"}, stop_at=stop_at)


@pytest.fixture(scope="module", params=["average", "gradient"])
def quantized(request, tmp_path_factory):
    stage = quantized_stage(request.param)
    return stage, quantized_run(stage, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4])
def test_codes_and_a_dual_opponent_stopped_anywhere_go_on_to_the_same_bits(stop_at, quantized, tmp_path):
    stage, unbroken = quantized
    quantized_run(stage, tmp_path, stop_at)
    final = quantized_run(stage, tmp_path)
    for name in ("model.safetensors", "training.safetensors"):
        assert (final / name).read_bytes() == (unbroken / name).read_bytes()


def test_codes_are_weights_of_the_checkpoint_and_their_use_is_in_its_rows(quantized):
    stage, checkpoint = quantized
    assert float(load_tensors(checkpoint / "model.safetensors")["codebook.codes"].abs().max()) > 0
    network = build_autoencoder(stage.network)
    load_weights(network, checkpoint)
    rows = read_rows(checkpoint.parent / "metrics.jsonl")
    assert [row["autoencoder/commitment"] > 0 for row in rows] == [False, False, True, True, True]
    assert all(1 <= row["autoencoder/perplexity"] <= 8 for row in rows)
    assert all(0 < row["autoencoder/codes_met"] <= 1 for row in rows)
    assert ["autoencoder/adversarial_weight" in row for row in rows] == [False, False, False, True, True]
    assert ("autoencoder/attraction" in rows[-1]) == (stage.network.codebook.learning == "gradient")


def test_of_quantized_latents_the_loss_is_a_function_of_module_and_batch(quantized):
    stage, checkpoint = quantized
    subject = quantized_task(stage)
    load_weights(subject.autoencoder, checkpoint)
    batch = dict(subject.batch([generator(0, "a"), generator(0, "b")])) | {"step": torch.tensor(4)}
    assert set(batch) == {"image", "weight", "edges", "index", "step"}
    player, before = subject.players()[0], {n: v.clone() for n, v in subject.module.state_dict().items()}
    assert torch.equal(player.loss(batch)["total"], player.loss(batch)["total"])
    assert all(torch.equal(value, before[name]) for name, value in subject.module.state_dict().items())


def test_edges_are_those_of_the_whole_image_at_the_place_of_the_crop():
    stage = quantized_stage(crop=(SIZE, SIZE))
    subject = quantized_task(stage)
    batch = subject.batch([generator(0, i) for i in range(3)])
    for image, edges in zip(batch["image"], batch["edges"], strict=True):
        assert np.array_equal(edges.numpy(), canny_edges(image.numpy(), stage.adversarial.edge_sigma))
    assert batch["edges"].any()


def test_what_does_not_go_with_codes_and_edges_is_refused():
    with pytest.raises(InputError, match="codebook=null"):
        parse_settings(AutoencoderStage, {"network": {"codebook": {}}, "training": {"compile": True}}, "test")
    with pytest.raises(InputError, match="kind=patch"):
        parse_settings(AutoencoderStage, {"adversarial": {"kind": "dual"}}, "test")


def test_a_quantized_run_is_judged_with_its_codes(tmp_path):
    cases = [flat_blob(i) for i in range(2)]
    train_autoencoder(cases, tmp_path, quantized_stage(steps=4, adversarial=None), SCALE)
    found = read_json(tmp_path / "autoencoder" / "verdict.json")
    assert found["codes"]["count"] == 8
    assert 1 <= found["codes"]["perplexity"] <= found["codes"]["met"] + 1e-3 <= 8 + 1e-3
    assert "codes met" in in_words(found)
    codec = load_codec(tmp_path)
    mean, std = codec.encode_case(cases[0])
    assert not std.any()
    window = codec.window_of(cases[0])
    quantized_mean = codec.quantize(mean[None])
    assert not torch.equal(quantized_mean[0], mean), "what is encoded is not quantized yet"
    np.testing.assert_allclose(codec.decode(quantized_mean[0], window), codec.decode(mean, window), atol=1e-2)
    scaled = codec.with_statistics(measure_statistics([(mean, std)]))
    normalized = scaled.encode_case(cases[0])[0]
    assert torch.equal(scaled.nearest_codes(normalized), codec.nearest_codes(mean))
    np.testing.assert_allclose(scaled.decode(normalized, window), codec.decode(mean, window), atol=1e-2)


def test_a_run_is_trained_recorded_and_judged(tmp_path):
    cases = [blob(0), blob(1), blob(2, with_mask=False)]
    checkpoint = train_autoencoder(cases, tmp_path, tiny_stage(), SCALE)
    record = read_json(checkpoint / "record.json")
    assert record["stage"] == "autoencoder"
    assert record["grid"] == {"shape": [16, 16, 16], "spacing_mm": [1.0, 1.0, 1.0]}
    assert record["licences"] == ["CC0-1.0"]
    assert record["labels"] == CARDIAC_CT.model_dump(mode="json")
    found = read_json(tmp_path / "autoencoder" / "verdict.json")
    assert (tmp_path / "autoencoder" / "verdict.png").exists()
    assert not found["held_out"]
    assert found["cases"] == ["blob-0", "blob-1", "blob-2"]
    assert found["fingerprint"] == record["fingerprint"]
    assert np.isfinite(found["contrast_kept"]["left_ventricle"])
    assert found["contrast_kept"]["left_atrium"] is None
    codec = load_codec(tmp_path)
    assert codec.fingerprint == record["fingerprint"]
    assert train_autoencoder(cases, tmp_path, tiny_stage(), SCALE, held_out=[blob(4)]) == checkpoint
    assert read_json(tmp_path / "autoencoder" / "verdict.json")["cases"] == ["blob-4"]


def frame(patient: int, moment: int, **provenance):
    return blob(moment).with_(case_id=f"patient{patient:03d}_frame{moment}", provenance=provenance)


def test_cases_are_kept_aside_patient_by_patient_and_judged(tmp_path):
    cases = [frame(patient, moment) for patient in range(3) for moment in range(2)]
    checkpoint = train_autoencoder(cases, tmp_path, tiny_stage(held_out=1), SCALE)
    record, found = (read_json(file) for file in (checkpoint / "record.json", checkpoint.parent / "verdict.json"))
    assert found["held_out"]
    assert found["cases"] == record["held_out"]
    assert len({case_id.split("_")[0] for case_id in record["held_out"]}) == 1
    assert len(record["held_out"]) == 2
    kept = [case.case_id for case in cases if case.case_id not in record["held_out"]]
    assert record["cases"] == CaseCache([case for case in cases if case.case_id in kept], SCALE).fingerprint


def test_whom_the_provenance_calls_one_patient_stays_together(tmp_path):
    cases = [blob(i).with_(provenance={"patient": "twice" if i in (1, 3) else f"once-{i}"}) for i in range(5)]
    for count in range(1, 4):
        run = tmp_path / str(count)
        held = read_json(train_autoencoder(cases, run, tiny_stage(held_out=count), SCALE) / "record.json")["held_out"]
        assert ("blob-1" in held) == ("blob-3" in held)
        assert count <= len(held) <= 3


def test_a_tenth_of_the_patients_is_kept_aside_and_of_few_none(tmp_path):
    ten = read_json(
        train_autoencoder([blob(i) for i in range(10)], tmp_path / "a", tiny_stage(), SCALE) / "record.json"
    )
    nine = read_json(
        train_autoencoder([blob(i) for i in range(9)], tmp_path / "b", tiny_stage(), SCALE) / "record.json"
    )
    assert (len(ten["held_out"]), len(nine["held_out"])) == (1, 0)


def test_two_training_cases_must_be_left(tmp_path):
    with pytest.raises(InputError, match="fewer than two"):
        train_autoencoder([blob(i) for i in range(3)], tmp_path, tiny_stage(held_out=2), SCALE)


def test_training_can_start_from_another_run(tmp_path):
    stage = tiny_stage()
    train_autoencoder([blob(0), blob(1)], tmp_path / "one", stage, SCALE)
    network = build_autoencoder(stage.network, seed=7)
    used = load_initial(network, tmp_path / "one")
    assert used == read_json(latest_checkpoint(tmp_path / "one" / "autoencoder") / "record.json")["fingerprint"]
    trained = load_codec(tmp_path / "one").autoencoder.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("prefix", ["", MaisiAutoencoder.PREFIX])
def test_maisi_weights_are_taken_in_the_released_layout_and_in_ours(tmp_path, prefix):
    settings = AutoencoderSettings(kind="maisi", channels=(8, 8, 8), num_res_blocks=(1, 1, 1), norm_groups=8)
    source, target = build_autoencoder(settings, 1), build_autoencoder(settings, 2)
    assert isinstance(source, MaisiAutoencoder)
    file = tmp_path / "weights.safetensors"
    save_file({prefix + name: value for name, value in source.released().items()}, file)
    load_initial(target, file)
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())


def test_pickles_are_not_opened(tmp_path):
    file = tmp_path / "autoencoder.pt"
    file.write_bytes(b"\x80\x02.")
    with pytest.raises(InputError, match="safetensors"):
        load_initial(build_autoencoder(tiny_stage().network), file)
