"""The demo at toy size: complete, resumable, and honest."""

import json
import shlex
from pathlib import Path

import pytest

import cardiosynth.experiments.demo as demo
from cardiosynth.core.config import with_overrides
from cardiosynth.core.errors import InputError
from cardiosynth.evaluation.results import read_results
from cardiosynth.experiments.demo import PLANS, STEPS, Demo, run_demo, seed_settings
from cardiosynth.recipes.registry import RECIPES, as_fcas, find_recipe


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run_demo(tmp_path / "unbroken", "fcas/tiny")
    with monkeypatch.context() as patch:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(demo, "generate_cases", killed)
        with pytest.raises(KeyboardInterrupt):
            run_demo(tmp_path / "broken", "fcas/tiny")
    run_demo(tmp_path / "broken", "fcas/tiny")
    unbroken, broken = (read_results(tmp_path / name / "results.json") for name in ("unbroken", "broken"))
    assert broken.tables == unbroken.tables
    assert broken.notes == unbroken.notes
    assert [stage.name for stage in broken.stages] == list(STEPS)

    before = (tmp_path / "broken" / "steps.jsonl").read_text()
    run_demo(tmp_path / "broken", "fcas/tiny")
    assert (tmp_path / "broken" / "steps.jsonl").read_text() == before, "nothing is done twice"
    with pytest.raises(InputError, match="other settings"):
        run_demo(tmp_path / "broken", "fcas/tiny", seed=1)

    page = (tmp_path / "broken" / "report.html").read_text(encoding="utf-8")
    for text in ("real only", "synthetic + CAL", "Contrast kept", "drawn by a program", "cardiosynth train control"):
        assert text in page
    rows = [json.loads(line) for line in (tmp_path / "broken/data/paired/manifest.jsonl").read_text().splitlines()]
    assert all(row["provenance"]["template"] != row["provenance"]["reference"] for row in rows)


def test_the_seed_reaches_every_stage_and_the_printed_commands():
    changed = with_overrides(find_recipe("fcas/tiny"), seed_settings(7)[1::2])
    for stage in ("autoencoder", "diffusion", "control", "segmenter"):
        assert getattr(changed, stage).training.seed == 7
        assert f"{stage}.training.seed=7" in seed_settings(7)
    assert seed_settings(0) == []


def test_the_printed_commands_train_what_the_demo_trains(tmp_path: Path):
    recipe = with_overrides(as_fcas(find_recipe("fcas/demo")), seed_settings(7)[1::2])
    one = Demo(tmp_path, recipe, PLANS["fcas/demo"], 7, "cpu")
    for arm in one.arms:
        staged = one.staged(arm)
        stages = [staged.pretraining, staged.finetuning] if arm.pretrained else [staged.stage]
        commands = [shlex.split(command) for command in one.training_commands(arm).split(" && ")]
        for words, stage in zip(commands, stages, strict=True):
            changes = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
            assert with_overrides(find_recipe("fcas/demo"), changes).segmenter == stage
        if arm.pretrained:
            assert commands[1][-2:] == ["--init", commands[0][4]]
            assert sum(stage.training.steps for stage in stages) == recipe.segmenter.training.steps


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_belongs_to_a_recipe_and_knows_every_step(name: str):
    assert name in RECIPES
    assert tuple(PLANS[name].expected_s) == STEPS


def test_a_recipe_without_a_demo_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="did you mean 'fcas/tiny'"):
        run_demo(tmp_path, "fcas/tinny")
