"""A request for synthetic cases: which settings of a trained run it may change, and how it is written down."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from diffusion.small import dataset

from cardiosynth.anatomy.template import TemplateSettings
from cardiosynth.cli import main
from cardiosynth.core.errors import InputError
from cardiosynth.recipes import stages
from cardiosynth.recipes.fcas import TINY
from cardiosynth.recipes.registry import keep_recipe
from cardiosynth.recipes.stages import Synthesis, generate_cases


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Runs the command line with networks and synthesis left out; returns what they would have been told."""
    keep_recipe(tmp_path / "run", TINY)
    dataset(tmp_path / "data", 2)
    seen = {}

    def load_generator(run, device, sampler):
        seen.update(sampler=sampler)
        return SimpleNamespace(model=SimpleNamespace(record={"stage": "control"}))

    monkeypatch.setattr(stages, "load_generator", load_generator)

    def synthesize(generator, masks, templates, out, count, seed, shard, choice):
        seen.update(masks=masks, choice=choice)
        return templates

    monkeypatch.setattr(stages, "synthesize", synthesize)

    def run(*words):
        command = ["generate", tmp_path / "run", tmp_path / "out", "--templates", tmp_path / "data", "--cases", 2]
        main([str(word) for word in (*command, *words)])
        return seen

    return run


def test_without_changes_a_run_samples_as_its_recipe_says(asked):
    assert asked()["sampler"] == TINY.sampler


def test_settings_of_sampling_are_changed_where_asked(asked):
    seen = asked("--steps", 7, "--memory-gb", 1.5, "--set", "sampler.guidance_template=2", "--set", "masks.attempts=3")
    changes = {"steps": 7, "decode_budget_gb": 1.5, "guidance_template": 2.0}
    assert seen["sampler"] == TINY.sampler.model_copy(update=changes)
    assert seen["masks"] == TINY.masks.model_copy(update={"attempts": 3})


def test_templates_are_chosen_and_aligned_as_asked(asked):
    assert asked()["choice"] == TINY.templates
    assert asked("--template", "nearest")["choice"] == TemplateSettings(choice="nearest")
    seen = asked("--template", "small-1", "--set", "templates.align=affine")
    assert seen["choice"] == TemplateSettings(case="small-1", align="affine")
    assert asked("--set", "templates.choice=self")["choice"] == TemplateSettings(choice="self")


def test_what_starts_from_an_image_shows_the_images_own_masks(asked):
    assert asked("--start", "noise")["masks"] == TINY.masks
    seen = asked("--start", "image", "--strength", "0.5")
    assert (seen["sampler"].start, seen["sampler"].strength) == ("image", 0.5)
    assert [case.case_id for case in seen["masks"]] == ["small-0", "small-1"]
    assert seen["choice"] == TemplateSettings(choice="self")
    assert asked("--start", "image", "--template", "small-1")["choice"] == TemplateSettings(case="small-1")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--start", "reconstruction", "--strength", "0.5"], "a strength of 0.5 is for start 'image'"),
        (["--start", "picture"], "sampler.start"),
        (["--set", "control.drop_mask=0.1"], "this run is trained; set sampler.*, masks.*, templates.* alone"),
        (["--set", "sampler.guidance=1"], "no setting 'guidance'"),
        (["--template", "smal-1"], "did you mean 'small-1'"),
        (["--set", "templates.align=rigid"], "templates.align"),
        (["--steps", "0"], "sampler.steps"),
        (["--memory-gb", "-1"], "sampler.decode_budget_gb"),
    ],
)
def test_what_cannot_be_changed_is_refused(asked, capsys, words, part):
    with pytest.raises(SystemExit):
        asked(*words)
    assert part in capsys.readouterr().err


def test_a_request_is_written_down_as_the_command_that_does_the_same(tmp_path):
    request = Synthesis(Path("run"), Path("data"), None, 3, 1, overrides=("sampler.steps=7", "sampler.clamp=null"))
    words = shlex.split(request.command(Path("out")))
    assert words[words.index("--set") :] == ["--set", "sampler.steps=7", "--set", "sampler.clamp=null"]


def test_a_run_without_a_recipe_is_named(tmp_path):
    dataset(tmp_path / "data", 2)
    with pytest.raises(InputError, match=str(tmp_path / "run")):
        generate_cases(Synthesis(tmp_path / "run", tmp_path / "data", None, 1, 0), tmp_path / "out")
