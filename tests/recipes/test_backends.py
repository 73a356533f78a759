"""Three segmenters behind one contract: the same options, and how long each would be trained."""

import json
from pathlib import Path

import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.recipes.backends import BACKENDS, Backend, find_backend

RECIPE = {"own": "fcas/tiny"}


def backend(kind: str, *overrides: str) -> Backend:
    return find_backend(kind, RECIPE.get(kind), overrides=overrides)


@pytest.mark.parametrize("kind", BACKENDS)
def test_every_segmenter_answers_to_the_contract(kind: str):
    chosen = backend(kind)
    assert isinstance(chosen, Backend)
    assert chosen.changed(None, plain=False, folds=1) == chosen
    weighed = [json.dumps(chosen.changed(None, plain=plain, folds=1).record()) for plain in (False, True)]
    assert ['"confidence": null' in record for record in weighed] == [False, True]


@pytest.mark.parametrize(
    ("kind", "both", "real"),
    [
        ("own", ["pre-train: 6 steps on 9 cases", "fine-tune: 2 steps on 4 cases"], ["train: 8 steps on 4 cases"]),
        (
            "nnunet",
            ["pre-train: 800 epochs on 9 cases", "fine-tune: 200 epochs on 4 cases, fold all"],
            ["train: 1000 epochs on 4 cases, fold all"],
        ),
        (
            "medsam",
            ["pre-train: 800 epochs on 9 cases", "fine-tune: 200 epochs on 4 cases"],
            ["train: 1000 epochs on 4 cases"],
        ),
    ],
)
def test_plans_are_the_published_ones(kind: str, both: list[str], real: list[str]):
    chosen = backend(kind)
    assert chosen.plan(9, 4) == both
    assert chosen.plan(0, 4) == real
    assert chosen.plan(9, 0) == both[:1]


def test_a_share_is_of_steps_or_epochs():
    assert backend("own").changed(0.5, plain=False, folds=1).plan(9, 4)[0] == "pre-train: 4 steps on 9 cases"
    for kind in ("nnunet", "medsam"):
        first, second = backend(kind).changed(0.3, plain=False, folds=1).plan(9, 4)
        assert first.startswith("pre-train: 300 epochs")
        assert second.startswith("fine-tune: 700 epochs")
    with pytest.raises(InputError, match="leaves a stage empty"):
        backend("own").changed(0.01, plain=False, folds=1).plan(9, 4)


def test_folds_are_of_the_real_cases():
    assert backend("own").changed(None, plain=False, folds=3).plan(9, 4)[1].endswith("3 times without a fold")
    assert backend("nnunet").changed(None, plain=False, folds=3).plan(9, 4)[1].endswith("fold 0, 1, 2")
    assert "fold" not in " ".join(backend("own").changed(None, plain=False, folds=3).plan(9, 0))


def test_a_device_that_nnunet_does_not_know_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="--device gpu: nnU-Net takes auto, cpu, cuda"):
        backend("nnunet").train(None, None, tmp_path, "gpu")


def test_numbers_with_boxes_around_the_truth_say_so():
    assert "as published" in backend("medsam").prompts
    assert "runs/own" in backend("medsam", "prompts_of=runs/own").prompts
    assert "true" not in backend("medsam", "prompts_of=runs/own").prompts
    assert backend("own").prompts == backend("nnunet").prompts == ""


def test_what_may_change_when_nnunet_goes_on_is_not_in_its_record():
    assert backend("nnunet", "nnunet.processes=2").record() == backend("nnunet").record()
    assert backend("nnunet", "nnunet.iterations=2").record() != backend("nnunet").record()


def test_settings_of_a_file_and_of_the_command_line(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("nnunet: {pretrain_epochs: 3, finetune_epochs: 2}\n")
    chosen = find_backend("nnunet", config=file, overrides=["nnunet.finetune_epochs=5"])
    assert [line.split()[1] for line in chosen.plan(1, 1)] == ["3", "5"]
    with pytest.raises(InputError, match="did you mean 'nnunet'"):
        find_backend("nnunet", overrides=["nnunt.folds=[0]"])
