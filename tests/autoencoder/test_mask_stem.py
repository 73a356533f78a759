"""A decoder that is told of the mask: what it sees, where it matters, and who tells it."""

import numpy as np
import pytest
import torch

from cardiosynth.autoencoder import mask_stem
from cardiosynth.autoencoder.chain import trace
from cardiosynth.autoencoder.codebook import CodebookSettings
from cardiosynth.autoencoder.codec import load_codec
from cardiosynth.autoencoder.layers import Rows
from cardiosynth.autoencoder.networks import AutoencoderSettings, build_autoencoder
from cardiosynth.autoencoder.streaming import decode, plan_decode
from cardiosynth.autoencoder.task import AutoencoderTask, load_initial, train_autoencoder
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import CARDIAC_CT, LabelTable, relabel
from cardiosynth.core.random import generator
from cardiosynth.core.store import read_json
from cardiosynth.data.loader import CaseCache
from cardiosynth.training.cost import Meter
from cardiosynth.training.loop import fit

from .blobs import SIZE, blob, tiny_stage
from .random_networks import randomized

PLAIN = AutoencoderSettings(channels=(8,), num_res_blocks=(1,), compression=2)
TOLD = PLAIN.model_copy(update={"mask_features": 4})
COMPACT = AutoencoderSettings(channels=(8, 16), num_res_blocks=(1, 2), mask_features=4)
VQGAN = AutoencoderSettings(
    kind="vqgan", spatial_dims=2, channels=(8, 16, 16), num_res_blocks=(1, 1, 1), norm_groups=4, mask_features=4,
    codebook=CodebookSettings(codes=8),
)  # fmt: skip
SCALE = IntensityScale()
VENTRICLE, ARTERY, LIVER = (CARDIAC_CT.named(name).code for name in ("left_ventricle", "coronary_artery", "liver"))


def network(settings):
    return randomized(build_autoencoder(settings, labels=CARDIAC_CT)).eval().requires_grad_(False)


def latents_and_mask(settings, latent):
    """Return latents and a mask of three structures and nothing, voxel by voxel at random."""
    rng = torch.Generator().manual_seed(0)
    z = torch.randn((1, settings.latent_channels, *latent), generator=rng)
    shape = (1, 1, *(n * settings.compression for n in latent))
    codes = torch.tensor([0, VENTRICLE, ARTERY, LIVER], dtype=torch.uint8)
    return z, codes[torch.randint(4, shape, generator=rng)]


def stage(**changes):
    return tiny_stage(**({"network": TOLD} | changes))


def task(settings, with_mask=True):
    cache = CaseCache([blob(i, with_mask) for i in range(3)], SCALE)
    return AutoencoderTask(cache, build_autoencoder(settings.network, 0, CARDIAC_CT), settings)


def test_as_published_a_decoder_takes_its_latents_alone():
    autoencoder = network(PLAIN)
    z, mask = latents_and_mask(PLAIN, (4, 4, 4))
    assert autoencoder.told(z, mask) is z
    assert not any("mask" in name for name in autoencoder.state_dict())
    assert "mask" not in task(tiny_stage()).batch([generator(0, "a")])


def test_an_encoder_begins_the_same_whatever_its_decoder_is_told():
    told, plain = (build_autoencoder(settings, 3, CARDIAC_CT).state_dict() for settings in (TOLD, PLAIN))
    encoder = [name for name in plain if name.startswith(("down", "to_latent"))]
    assert encoder
    assert all(torch.equal(told[name], plain[name]) for name in encoder)


def test_a_voxel_of_the_mask_changes_the_image_around_it_and_nowhere_else():
    autoencoder, (z, mask) = network(TOLD), latents_and_mask(TOLD, (16, 4, 4))
    changed = mask.clone()
    changed[0, 0, 17, 4, 4] = ARTERY if mask[0, 0, 17, 4, 4] != ARTERY else VENTRICLE
    found = (autoencoder.decode(z, changed) - autoencoder.decode(z, mask)).abs().amax((0, 1, 3, 4)) > 0
    chain = autoencoder.decoding()
    lengths = [shape[1] for shape in chain.shapes((autoencoder.decoder_channels, 16, 4, 4))]
    read = [trace(chain, lengths, 0, len(chain.layers), Rows(row, row + 1), False)[0][0] for row in range(32)]
    # A latent on either side is what the stem's own convolution of three adds; the voxel lies in latent 8.
    reached = torch.tensor([int(rows.start) - 1 <= 8 < int(rows.stop) + 1 for rows in read])
    assert torch.equal(found, reached)
    assert not reached.all()


def test_no_mask_is_an_empty_one_and_surroundings_are_not_told():
    autoencoder, (z, mask) = network(TOLD), latents_and_mask(TOLD, (4, 4, 4))
    assert torch.equal(autoencoder.decode(z), autoencoder.decode(z, torch.zeros_like(mask)))
    assert not torch.equal(autoencoder.decode(z), autoencoder.decode(z, mask))
    bare = torch.where(mask == LIVER, 0, mask)
    assert torch.equal(autoencoder.decode(z, bare), autoencoder.decode(z, mask))


@pytest.mark.parametrize(("settings", "latent"), [(COMPACT, (41, 3, 5)), (VQGAN, (11, 43))])
def test_decoding_in_slabs_is_decoding_the_whole(settings, latent, monkeypatch):
    autoencoder, (z, mask) = network(settings), latents_and_mask(settings, latent)
    whole = autoencoder.decode(z, mask)
    budget_gb = 0.5 * plan_decode(autoencoder, latent, None).untiled_peak_gb
    monkeypatch.setattr(mask_stem, "SLAB_VOXELS", 1)
    with Meter() as meter, torch.no_grad():
        found, streamed = decode(autoencoder, z, budget_gb, mask=mask), meter.take()
    assert plan_decode(autoencoder, latent, budget_gb).num_slabs > 1
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-5 * float(whole.max() - whole.min()))
    assert streamed.peak_bytes <= 1.05e9 * budget_gb + z.nbytes + mask.nbytes


def test_memory_for_inner_values_is_spared_with_the_same_gradients():
    gradients = []
    for sparing in (False, True):
        settings = stage(network=TOLD.model_copy(update={"checkpointing": sparing}))
        subject = task(settings)
        subject.players()[0].loss(subject.batch([generator(0, "a")]))["total"].backward()
        gradients.append([parameter.grad for parameter in subject.module.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    assert all(bool(gradient.any()) for gradient in gradients[0][-4:]), "the stem learns"


def test_an_example_tells_the_mask_of_its_crop():
    subject = task(stage(crop=(SIZE,) * 3, drop_mask=0.0))
    batch = subject.batch([generator(0, i) for i in range(4)])
    for mask, index in zip(batch["mask"], batch["index"].tolist(), strict=True):
        assert torch.equal(mask, subject.cache.mask(index))


def test_masks_are_left_out_as_often_as_asked_and_nothing_else_changes():
    whole, some, without = (
        task(stage(drop_mask=share, thin_fraction=1.0)).batch([generator(0, i) for i in range(40)])
        for share in (0.0, None, 1.0)
    )
    told = [float(batch["mask"].flatten(1).any(1).float().mean()) for batch in (whole, some, without)]
    assert told[0] == 1
    assert 0.7 < told[1] < 1
    assert told[2] == 0
    assert all(torch.equal(whole[name], without[name]) for name in whole if name != "mask")


def test_images_without_masks_are_learned_from(tmp_path):
    subject = task(stage(), with_mask=False)
    assert not subject.batch([generator(0, "a")])["mask"].any()
    train_autoencoder([blob(i, with_mask=False) for i in range(2)], tmp_path, stage(), SCALE)
    assert np.isfinite(read_json(tmp_path / "autoencoder" / "verdict.json")["psnr_db"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("told")
    train_autoencoder([blob(i) for i in range(3)], folder, stage(), SCALE)
    return folder


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path):
    for folder, stops in (("whole", [None]), ("stopped", [1, None])):
        for stop_at in stops:
            final = fit(task(stage()), stage().training, tmp_path / folder, {"stage": "autoencoder"}, stop_at=stop_at)
    one, other = ((tmp_path / folder / final.name / "model.safetensors") for folder in ("whole", "stopped"))
    assert one.read_bytes() == other.read_bytes()


def test_a_case_is_reconstructed_with_its_own_mask_and_judged_so(run):
    codec, case = load_codec(run), blob(0)
    mean, window = codec.encode_case(case)[0], codec.window_of(case)
    made = codec.reconstruct(case)
    np.testing.assert_array_equal(made, codec.decode(mean, window, mask=case.mask))
    unknown = codec.reconstruct(case.with_(mask=None))
    np.testing.assert_array_equal(unknown, codec.decode(mean, window))
    assert (made != unknown).any()
    budget_gb = 0.95 * plan_decode(codec.autoencoder, (8, 8, 8), None).peak_gb
    within = codec.decode(mean, window, budget_gb, case.mask)
    np.testing.assert_allclose(within, made, atol=0.05)
    assert load_codec(run).record["settings"]["network"]["mask_features"] == 4


def recoded(names):
    """Return the cardiac table with codes in another order, some structures under other names."""
    labels = [
        label.model_copy(update={"code": 18 - label.code, "name": names.get(label.name, label.name)})
        for label in CARDIAC_CT
    ]
    return LabelTable(labels=tuple(labels))


def with_table(case, table):
    codes = {label.code: 18 - label.code for label in CARDIAC_CT}
    mask = np.zeros_like(case.mask)
    for old, new in codes.items():
        mask[case.mask == old] = new
    return case.with_(mask=mask, labels=table)


def test_masks_of_other_codes_are_matched_by_name_and_other_structures_are_refused(run):
    codec, case, table = load_codec(run), blob(0), recoded({})
    other = with_table(case, table)
    np.testing.assert_array_equal(relabel(other.mask, table, CARDIAC_CT)[0], case.mask)
    np.testing.assert_array_equal(codec.reconstruct(other), codec.reconstruct(case))
    renamed = with_table(case, recoded({"coronary_artery": "graft"}))
    with pytest.raises(InputError, match="blob-0: the autoencoder's decoder never learned of graft;"):
        codec.reconstruct(renamed)
    absent = renamed.with_(mask=np.where(renamed.mask == 18 - ARTERY, 0, renamed.mask).astype(np.uint8))
    assert np.isfinite(codec.reconstruct(absent)).all()


def test_a_decoder_does_not_begin_as_one_of_other_structures(run):
    same, other = (build_autoencoder(TOLD, 1, table) for table in (CARDIAC_CT, recoded({"left_atrium": "atrium"})))
    assert load_initial(same, run) == load_codec(run).fingerprint
    with pytest.raises(InputError, match="was told of coronary_artery"):
        load_initial(other, run)


def test_the_published_layout_has_no_place_for_masks():
    with pytest.raises(InputError, match="mask_features=null"):
        parse_settings(
            AutoencoderSettings, {"kind": "maisi", "channels": [32] * 3, "num_res_blocks": [1] * 3, "mask_features": 4},
            "test",
        )  # fmt: skip
