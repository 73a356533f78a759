"""The demo at toy size: complete, resumable, and honest."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

import cardiosynth.experiments.demo as demo
from cardiosynth.cli import main
from cardiosynth.core.config import with_overrides
from cardiosynth.core.errors import InputError
from cardiosynth.evaluation.results import read_results
from cardiosynth.experiments.demo import PLANS, SHORT_PLANS, SHORT_STEPS, STEPS, Demo, DemoPlan, run_demo, seed_settings
from cardiosynth.recipes.packing import Packing, pack_run
from cardiosynth.recipes.phantoms import Population
from cardiosynth.recipes.registry import RECIPES, as_fcas, find_recipe
from cardiosynth.segmentation.staged import FINETUNED


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo that trained everything, never stopped."""
    out = tmp_path_factory.mktemp("demo") / "unbroken"
    main(["demo", str(out), "--recipe", "fcas/tiny", "--from-scratch"])
    return out


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_finds_the_same(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(demo, "generate_cases", killed)
        with pytest.raises(KeyboardInterrupt):
            run_demo(tmp_path / "broken", "fcas/tiny")
    run_demo(tmp_path / "broken", "fcas/tiny")
    whole, broken = (read_results(folder / "results.json") for folder in (unbroken, tmp_path / "broken"))
    assert broken.tables == whole.tables
    assert broken.notes == whole.notes
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


@pytest.mark.slow
def test_with_packed_weights_nothing_is_trained_but_segmenters(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    judge = unbroken / "segmenters" / "real-only" / FINETUNED
    packed = pack_run(
        Packing(unbroken / "generator", judge=judge, data=unbroken / "data/training"), tmp_path / "packed"
    )
    monkeypatch.setattr(demo, "shipped_for", lambda recipe: packed if recipe == "fcas/tiny" else None)
    main(["demo", str(tmp_path / "out"), "--recipe", "fcas/tiny"])
    results = read_results(tmp_path / "out" / "results.json")
    assert [stage.name for stage in results.stages] == list(SHORT_STEPS)
    assert "Agreement with the mask" in [table.title for table in results.tables], "the packed judge is asked"
    assert any("'synthetic'. `cardiosynth demo OUT --from-scratch`" in note for note in results.notes)
    assert "came with the program" in results.summary
    assert not (tmp_path / "out" / "generator").exists()
    rows = [json.loads(line) for line in (tmp_path / "out/data/paired/manifest.jsonl").read_text().splitlines()]
    assert all(row["provenance"]["packed_from"].keys() == {"autoencoder", "control"} for row in rows)

    before = (tmp_path / "out" / "steps.jsonl").read_text()
    main(["demo", str(tmp_path / "out"), "--recipe", "fcas/tiny"])
    assert (tmp_path / "out" / "steps.jsonl").read_text() == before, "nothing is done twice"
    with pytest.raises(InputError, match="other settings"):
        run_demo(tmp_path / "out", "fcas/tiny", generator=unbroken / "generator")


def test_where_no_weights_are_shipped_the_demo_says_how_to_train_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main(["demo", str(tmp_path / "out"), "--recipe", "fcas/tiny"])
    assert ended.value.code == 2
    assert "--from-scratch" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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


@pytest.mark.parametrize(("plans", "steps"), [(PLANS, STEPS), (SHORT_PLANS, SHORT_STEPS)], ids=["whole", "short"])
def test_every_plan_belongs_to_a_recipe_and_knows_every_step(plans: dict[str, DemoPlan], steps: tuple[str, ...]):
    for name, plan in plans.items():
        assert name in RECIPES
        assert tuple(plan.expected_s) == steps
        assert [f"train segmenter: {arm}" for arm in plan.arms] == [s for s in steps if s.startswith("train segmenter")]


def test_the_printed_commands_draw_what_the_demo_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: dict[str, Population] = {}

    def write(population: Population, out: Path) -> list:
        drawn[out.name] = population
        return []

    monkeypatch.setattr("cardiosynth.recipes.phantoms.write_phantoms", write)
    one = Demo(tmp_path, as_fcas(find_recipe("fcas/demo")), PLANS["fcas/demo"], 7, "cpu")
    for name, population in one.populations().items():
        main(shlex.split(one.drawing_command(name, population))[1:])
        spacing_mm = drawn[name].spacing_mm
        assert replace(drawn[name], spacing_mm=(spacing_mm,) * 3) == population
    with pytest.raises(SystemExit):
        main(["phantom", str(tmp_path / "never"), "--cases", "1", "--first", "-1"])


def test_no_test_patient_is_one_that_anything_was_chosen_on(tmp_path: Path):
    for name, plan in PLANS.items():
        population = Demo(tmp_path, as_fcas(find_recipe(name)), plan, 0, "cpu").populations()["test"]
        assert (population.first, population.first_protocol) == (40_000, 2_000)


def test_a_recipe_without_a_demo_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="did you mean 'fcas/tiny'"):
        run_demo(tmp_path, "fcas/tinny")
