"""The verbs of released weights: import into a run with a recipe, and saying what weights are."""

import json
from functools import partial

import pytest
import torch
from diffusion.test_layouts import SMALL, monais, randomized, sized
from diffusion.test_released import LICENCE, NETWORK, SCALE, monais_autoencoder

from cardiosynth.cli import main
from cardiosynth.core.errors import InputError
from cardiosynth.diffusion.layouts import LAYOUTS
from cardiosynth.recipes import weights
from cardiosynth.recipes.registry import recorded_recipe
from cardiosynth.recipes.weights import describe, import_weights, in_words, released_recipe
from cardiosynth.sampling.generator import load_generator


@pytest.fixture
def small(monkeypatch):
    """The layouts in small, so that files of small networks are the released ones."""
    layouts = {name: sized(layout, SMALL) for name, layout in LAYOUTS.items()}
    monkeypatch.setattr(weights, "find_layout", layouts.__getitem__)
    monkeypatch.setattr(weights, "LAYOUTS", layouts)
    monkeypatch.setattr(weights, "NETWORK", NETWORK)
    monkeypatch.setattr(weights, "import_autoencoder", partial(weights.import_autoencoder, network=NETWORK))


@pytest.fixture
def files(tmp_path):
    """What MAISI would release of small rflow-ct networks."""
    unet, control = (randomized(module).state_dict() for module in monais(LAYOUTS["rflow-ct"], SMALL, channels=8))
    contents = {
        "autoencoder": monais_autoencoder().state_dict(),
        "unet": {"unet_state_dict": unet, "scale_factor": SCALE, "num_train_timesteps": 1000},
        "controlnet": {"controlnet_state_dict": control},
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / f"{name}.pt")
    return {name: tmp_path / f"{name}.pt" for name in contents}


@pytest.mark.usefixtures("small")
def test_three_files_become_a_run_that_says_what_it_is(files, tmp_path, capsys):
    run = tmp_path / "run"
    for kind, file in files.items():
        main(["weights", "import", str(file), str(run), "--kind", kind, "--layout", "rflow-ct", "--licence", LICENCE])
    capsys.readouterr()
    main(["weights", "info", str(run), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert [each["stage"] for each in facts] == ["autoencoder", "diffusion", "control"]
    assert [each["layout"] for each in facts] == [None, "rflow-ct", "rflow-ct"]
    assert all(each["licences"] == [LICENCE] and each["steps"] == 0 for each in facts)
    own = sum(value.numel() for value in torch.load(files["autoencoder"], weights_only=True).values())
    assert facts[0]["parameters"] == own
    assert facts[2]["labels"]["coronary_artery"] > 200
    assert facts[2]["labels"]["heart"] == 115
    main(["weights", "info", str(run / "control")])
    text = capsys.readouterr().out
    assert "stage: control" in text
    assert f"licences: {LICENCE}" in text
    assert recorded_recipe(run).sampler.steps == 30
    assert load_generator(run).sampler == released_recipe(LAYOUTS["rflow-ct"]).sampler


@pytest.mark.usefixtures("small")
def test_files_are_recognized_by_their_tensors(files, tmp_path):
    found = {kind: describe(file)[0]["released"]["kind"] for kind, file in files.items()}
    assert found == {"autoencoder": "autoencoder", "unet": "unet rflow-ct", "controlnet": "controlnet rflow-ct"}
    assert describe(files["unet"])[0]["scale_factor"] == SCALE
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    assert "unknown" in in_words(describe(tmp_path / "other.pt"))


@pytest.mark.usefixtures("small")
def test_imports_that_cannot_be_meant_are_refused(files, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(InputError, match=r"--licence TEXT.*contradicts"):
        import_weights(files["autoencoder"], run, "autoencoder", "rflow-ct", " ")
    with pytest.raises(InputError, match="no kind of weights 'vae'"):
        import_weights(files["autoencoder"], run, "vae", "rflow-ct", LICENCE)
    assert not run.exists()
    import_weights(files["autoencoder"], run, "autoencoder", "rflow-ct", LICENCE)
    with pytest.raises(InputError, match="has a stage 'autoencoder' already"):
        import_weights(files["autoencoder"], run, "autoencoder", "rflow-ct", LICENCE)
    with pytest.raises(InputError, match="was begun with recipe maisi/rflowct"):
        import_weights(files["unet"], run, "unet", "ddpm-ct", LICENCE)
    with pytest.raises(InputError, match="holds no checkpoint and is no file"):
        describe(tmp_path / "nothing")


def test_without_a_licence_the_command_says_what_to_do(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["weights", "import", "x.pt", str(tmp_path), "--kind", "unet", "--layout", "ddpm-ct"])
    assert end.value.code == 2
    assert "take the words from what came with your download" in capsys.readouterr().err


@pytest.mark.parametrize("name", LAYOUTS)
def test_released_recipes_are_whole(name):
    """They survive the strict reader, as what a run keeps must."""
    recipe = released_recipe(LAYOUTS[name])
    assert type(recipe).model_validate_json(recipe.model_dump_json()) == recipe
    assert recipe.intensity.window.high == 1000
