import json
from functools import partial

import pytest
import torch

from cardiosynth.cli import main
from cardiosynth.core.errors import InputError
from cardiosynth.core.store import load_tensors, read_json, save_tensors
from cardiosynth.recipes.weights import import_weights
from cardiosynth.segmentation.medsam.network import build_medsam, image_embeddings, mask_logits
from cardiosynth.segmentation.medsam.predict import load_medsam
from cardiosynth.segmentation.medsam.released import SHARED, SHARED_AGAIN, import_medsam, read_medsam
from cardiosynth.training.state import load_strictly

from .models import TINY

ATTENTION = ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


def both(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")}


def original_names() -> dict[str, str]:
    """The name of every tensor of a network of two layers: transformers' -> segment_anything's, written out."""
    names = {
        SHARED_AGAIN: "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "vision_encoder.pos_embed": "image_encoder.pos_embed",
        "vision_encoder.neck.conv1.weight": "image_encoder.neck.0.weight",
        "vision_encoder.neck.conv2.weight": "image_encoder.neck.2.weight",
        "prompt_encoder.no_mask_embed.weight": "prompt_encoder.no_mask_embed.weight",
        "prompt_encoder.not_a_point_embed.weight": "prompt_encoder.not_a_point_embed.weight",
        "mask_decoder.iou_token.weight": "mask_decoder.iou_token.weight",
        "mask_decoder.mask_tokens.weight": "mask_decoder.mask_tokens.weight",
        **both("vision_encoder.patch_embed.projection", "image_encoder.patch_embed.proj"),
        **both("vision_encoder.neck.layer_norm1", "image_encoder.neck.1"),
        **both("vision_encoder.neck.layer_norm2", "image_encoder.neck.3"),
        **both("mask_decoder.upscale_conv1", "mask_decoder.output_upscaling.0"),
        **both("mask_decoder.upscale_layer_norm", "mask_decoder.output_upscaling.1"),
        **both("mask_decoder.upscale_conv2", "mask_decoder.output_upscaling.3"),
        **both("mask_decoder.transformer.layer_norm_final_attn", "mask_decoder.transformer.norm_final_attn"),
    }
    for ours, theirs in zip(("conv1", "layer_norm1", "conv2", "layer_norm2", "conv3"), (0, 1, 3, 4, 6), strict=True):
        names |= both(f"prompt_encoder.mask_embed.{ours}", f"prompt_encoder.mask_downscaling.{theirs}")
    for index in range(4):
        names[f"prompt_encoder.point_embed.{index}.weight"] = f"prompt_encoder.point_embeddings.{index}.weight"
    for ours, theirs in (("proj_in", 0), ("layers.0", 1), ("proj_out", 2)):
        names |= both(f"mask_decoder.iou_prediction_head.{ours}", f"mask_decoder.iou_prediction_head.layers.{theirs}")
        for index in range(4):
            mlp = f"mask_decoder.output_hypernetworks_mlps.{index}"
            names |= both(f"{mlp}.{ours}", f"{mlp}.layers.{theirs}")
    for layer in range(2):
        ours, theirs = f"vision_encoder.layers.{layer}", f"image_encoder.blocks.{layer}"
        names |= {f"{ours}.attn.rel_pos_{axis}": f"{theirs}.attn.rel_pos_{axis}" for axis in "hw"}
        for part in ("attn.qkv", "attn.proj", "mlp.lin1", "mlp.lin2"):
            names |= both(f"{ours}.{part}", f"{theirs}.{part}")
        names |= both(f"{ours}.layer_norm1", f"{theirs}.norm1") | both(f"{ours}.layer_norm2", f"{theirs}.norm2")
        same = f"mask_decoder.transformer.layers.{layer}"
        for part in ("mlp.lin1", "mlp.lin2", *(f"{a}.{p}" for a in ATTENTION for p in PROJECTIONS)):
            names |= both(f"{same}.{part}", f"{same}.{part}")
        for index in (1, 2, 3, 4):
            names |= both(f"{same}.layer_norm{index}", f"{same}.norm{index}")
    for projection in PROJECTIONS:
        same = f"mask_decoder.transformer.final_attn_token_to_image.{projection}"
        names |= both(same, same)
    return names


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same random weights in both layouts, every tensor of them away from its initial value."""
    folder, rng = tmp_path_factory.mktemp("weights"), torch.Generator().manual_seed(0)
    state = {name: 0.2 * torch.randn(v.shape, generator=rng) for name, v in build_medsam(TINY).state_dict().items()}
    state[SHARED_AGAIN] = state[SHARED]
    (folder / "hub").mkdir()
    save_tensors({name: v for name, v in state.items() if name != SHARED_AGAIN}, folder / "hub" / "model.safetensors")
    original = {theirs: state[ours] for ours, theirs in original_names().items()}
    torch.save(original | {"pixel_mean": torch.zeros(3, 1, 1)}, folder / "medsam.pth")
    saved = {"model": {f"module.{name}": value for name, value in original.items()}, "epoch": 3}
    torch.save(saved, folder / "training.pth")
    return folder


def answer(network):
    rng = torch.Generator().manual_seed(1)
    boxes = torch.tensor([[[4.0, 8, 40, 60], [0, 0, 63, 63]]])
    with torch.no_grad():
        return mask_logits(network, image_embeddings(network, torch.rand(1, 1, 64, 64, generator=rng)), boxes)


def test_both_layouts_are_the_same_network(files, tmp_path):
    loaded = build_medsam(TINY)
    load_strictly(loaded, load_tensors(files / "hub" / "model.safetensors") | {
        SHARED_AGAIN: load_tensors(files / "hub" / "model.safetensors")[SHARED]
    }, files)  # fmt: skip
    wanted = answer(loaded.eval())
    assert wanted.std() > 1e-3
    for name in ("hub", "medsam.pth", "training.pth"):
        import_medsam(files / name, tmp_path / name, "Apache-2.0", TINY)
        medsam = load_medsam(tmp_path / name)
        torch.testing.assert_close(answer(medsam.network), wanted, rtol=1e-4, atol=1e-7)
        state = medsam.network.state_dict()
        assert all(torch.equal(value, state[tensor]) for tensor, value in loaded.state_dict().items())
    record = read_json(tmp_path / "hub" / "medsam" / "step-0000000" / "record.json")
    assert record["licences"] == ["Apache-2.0"]
    assert record["released"]["file"] == "model.safetensors"


def test_weights_that_lack_something_or_have_no_licence_are_refused(files, tmp_path):
    with pytest.raises(InputError, match="travel with their licence"):
        import_medsam(files / "hub", tmp_path / "run", " ", TINY)
    with pytest.raises(InputError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        import_medsam(tmp_path, tmp_path / "run", "Apache-2.0", TINY)
    weights = read_medsam(files / "medsam.pth")
    del weights["vision_encoder.pos_embed"]
    save_tensors({name: value.clone() for name, value in weights.items()}, tmp_path / "less.safetensors")
    with pytest.raises(InputError, match=r"less.safetensors has no weight 'vision_encoder.pos_embed'"):
        import_medsam(tmp_path / "less.safetensors", tmp_path / "run", "Apache-2.0", TINY)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["hub", "medsam.pth", "hub/model.safetensors"])
def test_the_command_imports_each_form_and_says_what_it_is(files, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr("cardiosynth.recipes.weights.import_medsam", partial(import_medsam, network=TINY))
    run = tmp_path / "run"
    main(["weights", "import", str(files / name), str(run), "--kind", "medsam", "--licence", "Apache-2.0"])
    capsys.readouterr()
    main(["weights", "info", str(run), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert [(each["stage"], each["licences"], each["steps"]) for each in facts] == [("medsam", ["Apache-2.0"], 0)]
    assert facts[0]["parameters"] == sum(value.numel() for value in build_medsam(TINY).state_dict().values())
    if name != "hub":
        main(["weights", "info", str(files / name)])
        assert "kind medsam" in capsys.readouterr().out


def test_imports_of_medsam_that_cannot_be_meant_are_refused(files, tmp_path):
    with pytest.raises(InputError, match=r"--layout ddpm-ct is MAISI's"):
        import_weights(files / "hub", tmp_path, "medsam", "ddpm-ct", "Apache-2.0")
    with pytest.raises(InputError, match=r"say --licence TEXT"):
        import_weights(files / "hub", tmp_path, "medsam", "", "")
    with pytest.raises(InputError, match=r"weight 'vision_encoder.pos_embed' has shape"):
        import_medsam(files / "hub", tmp_path, "Apache-2.0", TINY.model_copy(update={"image_size": 128}))
