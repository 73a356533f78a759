"""Released files become our checkpoints: strictly, executing nothing, computing what MONAI's classes compute."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi

from cardiosynth.autoencoder.codec import load_codec
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.released import import_autoencoder
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, label_table
from cardiosynth.core.random import generator
from cardiosynth.core.store import read_json, save_tensors
from cardiosynth.data.dataset import write_dataset
from cardiosynth.diffusion.codes import released_labels
from cardiosynth.diffusion.control import Condition
from cardiosynth.diffusion.layouts import LAYOUTS
from cardiosynth.diffusion.records import load_control
from cardiosynth.diffusion.released import ENTRY, import_controlnet, import_unet
from cardiosynth.diffusion.settings import ControlStage
from cardiosynth.diffusion.stages import train_control
from cardiosynth.diffusion.unet import TemplateUNet
from cardiosynth.sampling.generator import load_generator
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.training.released import read_released
from cardiosynth.training.state import load_weights

from .small import TRAINING, case
from .test_layouts import SMALL, inputs, monais, network_time, randomized, sized

NETWORK = AutoencoderSettings(kind="maisi", channels=(8, 8, 8), num_res_blocks=(1, 1, 1), norm_groups=4)
LICENCE = "as stated by the tester"
SCALE = 1.25


def monais_autoencoder():
    return randomized(
        AutoencoderKlMaisi(
            spatial_dims=3, in_channels=1, out_channels=1, latent_channels=4, num_channels=(8, 8, 8),
            num_res_blocks=(1, 1, 1), attention_levels=(False,) * 3, norm_num_groups=4, num_splits=1,
            norm_float16=False, save_mem=False,
        )
    ).eval()  # fmt: skip


@pytest.fixture(scope="module", params=LAYOUTS)
def released(request, tmp_path_factory):
    """Small networks in MONAI's classes, saved as MAISI saves its own, and the run they were imported into."""
    layout = sized(LAYOUTS[request.param], SMALL)
    unet, control = (randomized(module) for module in monais(layout, SMALL, channels=8))
    autoencoder, folder = monais_autoencoder(), tmp_path_factory.mktemp("released")
    contents = {
        "autoencoder.pt": autoencoder.state_dict(),
        "unet.pt": {
            "epoch": 3, "loss": torch.tensor(0.1), "num_train_timesteps": 1000, "scale_factor": torch.tensor(SCALE),
            "unet_state_dict": unet.state_dict(),
        },
        "controlnet.pt": {"epoch": 3, "controlnet_state_dict": control.state_dict()},
    }  # fmt: skip
    for name, content in contents.items():
        torch.save(content, folder / name)
    run = folder / "run"
    import_autoencoder(folder / "autoencoder.pt", run, LICENCE, released_labels(), NETWORK)
    import_unet(folder / "unet.pt", run, layout, LICENCE)
    import_controlnet(folder / "controlnet.pt", run, layout, LICENCE)
    return SimpleNamespace(
        layout=layout, unet=unet, control=control, autoencoder=autoencoder, folder=folder, run=run, contents=contents
    )


def assert_equal_to_rounding(found, expected):
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=2e-5 * float(expected.std()), rtol=0)


def test_an_imported_autoencoder_is_monais(released):
    codec, rng = load_codec(released.run), generator(0, "imported")
    x, z = torch.rand((1, 1, 16, 8, 8), generator=rng), torch.randn((1, 4, 4, 2, 2), generator=rng)
    with torch.no_grad():
        assert_equal_to_rounding(codec.autoencoder.decode(z), released.autoencoder.decode(z))
        mean, std = released.autoencoder.encode(x)
        assert_equal_to_rounding(codec.autoencoder.encode(x)[0], mean)
        assert_equal_to_rounding(codec.autoencoder.encode(x)[1], std)
    assert (codec.scale.window.low, codec.scale.window.high) == (-1000, 1000)


def monais_output(released, x, n, told, mask=None):
    """MAISI's way with 8 bit-planes of one mask."""
    kind = {"class_labels": told.modality} if released.layout.name == "rflow-ct" else {}
    region = {"top_region_index_tensor": told.top_region * 100, "bottom_region_index_tensor": told.bottom_region * 100}
    region = region if released.layout.name == "ddpm-ct" else {}
    down, middle = None, None
    if mask is not None:
        planes = torch.cat([(mask >> bit) & 1 for bit in range(8)], 1).float()
        down, middle = released.control(x, n, planes, **kind)
    extra = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle, **kind, **region}
    return released.unet(x, n, spacing_tensor=told.spacing_mm * 100, **extra)


def test_an_imported_unet_is_monais(released):
    x, n, _, told = inputs((8, 8, 8))
    module = TemplateUNet(4, 4, 3, released.layout.denoiser, None, released_labels()).eval()
    load_weights(module, released.run / "diffusion")
    with torch.no_grad():
        found = module(x, network_time(released.layout, n), None, told)
        assert_equal_to_rounding(found, monais_output(released, x, n, told))


def test_a_widened_controlnet_told_the_template_alone_is_monais(released):
    """The mask of all labels reaches the weights that MAISI trained for it; what else is told changes nothing yet."""
    x, n, given, told = inputs((8, 8, 8))
    network, first, _ = load_control(released.run, load_codec(released.run), "cpu")
    assert (first.process, first.prediction) == (released.layout.process, released.layout.prediction)
    labels = torch.tensor([0, 6, 115, 200], dtype=torch.uint8)
    mask = labels[torch.randint(0, 4, given.reference.shape, generator=generator(0, "labels"))]
    empty = torch.zeros_like(given.reference)
    alone = Condition(empty, mask, torch.zeros_like(given.template_image), given.palette)
    t = network_time(released.layout, n)
    with torch.no_grad():
        embedding = network.embed(alone)
        theirs = released.control.controlnet_cond_embedding(torch.cat([(mask >> b) & 1 for b in range(8)], 1).float())
        assert_equal_to_rounding(embedding, theirs)
        assert_equal_to_rounding(network(x, t, embedding, told), monais_output(released, x, n, told, mask))
        torch.testing.assert_close(network.embed(given._replace(template_mask=mask)), embedding)


def test_records_say_where_weights_come_from_and_under_which_licence(released):
    records = {s: read_json(released.run / s / "step-0000000" / "record.json") for s in ("diffusion", "control")}
    for record in records.values():
        assert record["licences"] == [LICENCE]
        assert record["released"]["layout"] == released.layout.name
        assert record["statistics"] == {"mean": [0.0] * 4, "std": [1 / SCALE] * 4}
    assert records["control"]["diffusion"] == records["diffusion"]["fingerprint"]
    assert records["diffusion"]["released"]["file"] == "unet.pt"
    assert load_codec(released.run).record["licences"] == [LICENCE]


def test_an_imported_run_generates(released):
    """Masks in our codes: the model's table knows our targets, and the body is added and said."""
    steps = SamplerSettings(steps=2, precision="fp32", confidence=None)
    made = load_generator(released.run, sampler=steps).generate(case(0, (32, 32, 32)), case(1, (32, 32, 32)), 0)
    assert np.isfinite(made.image).all()
    assert made.image.std() > 0
    assert made.provenance["body_added"] is True
    assert made.provenance["left_out"] == ["lung"]
    assert made.provenance["licence"] == f"CC0-1.0; {LICENCE}"


def test_control_training_starts_from_imported_weights(released, tmp_path):
    labels = label_table({"coronary_artery": 1, "left_ventricle": 4, "liver": 9}, ["liver"])
    cases = write_dataset((case(i, (32, 32, 32), labels=labels) for i in range(3)), tmp_path / "data")
    training = TRAINING.model_copy(update={"steps": 1})
    stage = ControlStage(condition=released.layout.condition, freeze_unet=True, training=training)
    place = {"autoencoder": released.run, "diffusion": released.run, "init": released.run}
    record = read_json(train_control(cases, tmp_path / "run", stage, **place) / "record.json")
    assert record["init"] == read_json(released.run / "control" / "step-0000000" / "record.json")["fingerprint"]
    assert record["body_added"] == 3
    assert LICENCE in record["licences"]
    own = stage.condition.model_copy(update={"codes": "own"})
    with pytest.raises(InputError, match=r"trained with condition.codes=maisi, not own"):
        train_control(cases, tmp_path / "own", stage.model_copy(update={"condition": own}), **place)
    phantoms = write_dataset((case(i, (32, 32, 32)) for i in range(3)), tmp_path / "phantoms")
    assert phantoms.labels == CARDIAC_CT
    with pytest.raises(InputError, match="MAISI has no code for lung"):
        train_control(phantoms, tmp_path / "phantom-run", stage, **place)


# ---------------------------------------------------------------------------------------------------------------
# What is refused.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("conv_in.conv.bias"), "has no weight 'conv_in.conv.bias'"),
        (lambda w: w.update(another=torch.zeros(1)), "has a weight 'another'"),
        (lambda w: w.update({"conv_in.conv.bias": torch.zeros(3)}), r"'conv_in.conv.bias' has shape \(3,\) instead of"),
        (lambda w: w.update({"conv_in.conv.bias": torch.full((8,), torch.nan)}), "'conv_in.conv.bias' is not finite"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["unet", "controlnet"])
def test_every_tensor_must_fit(released, tmp_path, kind, change, message):
    content = dict(released.contents[f"{kind}.pt"])
    weights = dict(content[f"{kind}_state_dict"])
    change(weights)
    torch.save({**content, f"{kind}_state_dict": weights}, tmp_path / "bad.pt")
    take_in = {"unet": import_unet, "controlnet": import_controlnet}[kind]
    before = sorted(released.run.rglob("*"))
    with pytest.raises(InputError, match=message):
        take_in(tmp_path / "bad.pt", released.run, released.layout, LICENCE)
    assert sorted(released.run.rglob("*")) == before


def test_an_autoencoder_of_another_size_is_refused(released, tmp_path):
    with pytest.raises(InputError, match="has shape"):
        import_autoencoder(released.folder / "autoencoder.pt", tmp_path, LICENCE, released_labels())
    assert list(tmp_path.iterdir()) == []


def test_a_stem_that_reads_no_mask_of_8_planes_is_refused(released, tmp_path):
    weights = dict(released.contents["controlnet.pt"]["controlnet_state_dict"])
    weights[ENTRY] = torch.zeros(8, 3, 3, 3, 3)
    torch.save(weights, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="reads 3 channels instead of the 8 bit-planes"):
        import_controlnet(tmp_path / "bad.pt", released.run, released.layout, LICENCE)


def test_unets_need_their_scale_and_timesteps(released, tmp_path):
    content = dict(released.contents["unet.pt"])
    for change, message in (({"scale_factor": 0.0}, "no positive 'scale_factor'"),
                            ({"num_train_timesteps": 50}, "trained with 50 timesteps")):  # fmt: skip
        torch.save(content | change, tmp_path / "bad.pt")
        with pytest.raises(InputError, match=message):
            import_unet(tmp_path / "bad.pt", released.run, released.layout, LICENCE)


def test_weights_come_in_order_and_of_one_layout(released, tmp_path):
    with pytest.raises(InputError, match="--kind autoencoder"):
        import_unet(released.folder / "unet.pt", tmp_path, released.layout, LICENCE)
    import_autoencoder(released.folder / "autoencoder.pt", tmp_path, LICENCE, released_labels(), NETWORK)
    with pytest.raises(InputError, match="--kind unet"):
        import_controlnet(released.folder / "controlnet.pt", tmp_path, released.layout, LICENCE)
    with pytest.raises(InputError, match="is not a U-Net of layout"):
        import_controlnet(
            released.folder / "controlnet.pt", released.run, LAYOUTS[released.layout.name], LICENCE
        )  # of the full size


class Malicious:
    """Unpickled, it would write a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_pickles_that_do_more_than_hold_tensors_are_refused_and_not_executed(tmp_path, how):
    target, file = tmp_path / "executed", tmp_path / "bad.pt"
    content = {"unet_state_dict": {"a": torch.zeros(1)}, "more": Malicious(target)}
    if how == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(InputError, match=r"nothing in it was executed.*\.safetensors"):
        read_released(file, "unet_state_dict")
    assert not target.exists()
    torch.load(file, weights_only=False) if how == "torch" else pickle.loads(file.read_bytes())
    assert target.exists(), "the test's pickle is harmless, so it shows nothing"


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut short"])
def test_broken_files_are_refused(tmp_path, content):
    (tmp_path / "bad.pt").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as tensors alone"):
        read_released(tmp_path / "bad.pt", "unet_state_dict")
    with pytest.raises(InputError, match="is not there"):
        read_released(tmp_path / "absent.pt", "unet_state_dict")


def test_state_dicts_are_found_under_their_name_alone_or_plain(tmp_path):
    weights, file = {"a": torch.ones(2, dtype=torch.float16)}, tmp_path / "weights.pt"
    for content in (weights, {"unet_state_dict": weights, "ema": weights}, {"other": weights, "epoch": 3}):
        torch.save(content, file)
        found, extras = read_released(file, "unet_state_dict")
        assert found.keys() == {"a"}
        assert found["a"].dtype == torch.float32
        assert extras == {}
    save_tensors({**weights, "scale_factor": torch.tensor(1.5)}, tmp_path / "weights.safetensors")
    found, extras = read_released(tmp_path / "weights.safetensors", "unet_state_dict")
    assert found.keys() == {"a"}
    assert extras == {"scale_factor": 1.5}
    for content in ({"one": weights, "two": weights}, {"epoch": 3}):
        torch.save(content, file)
        with pytest.raises(InputError, match="no 'unet_state_dict'"):
            read_released(file, "unet_state_dict")
    torch.save([1, 2], file)
    with pytest.raises(InputError, match="no state dict but a list"):
        read_released(file, "unet_state_dict")
