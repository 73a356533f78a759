"""Experiments by name: what each takes and needs, and where it is run."""

from importlib import import_module

import pydantic
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.experiments.registry import EXPERIMENTS, Experiment, Size, find_experiment, listing, names


def test_every_name_is_one_experiment_and_has_a_function():
    assert len(set(names())) == len(names())
    for experiment in EXPERIMENTS:
        module, _, function = experiment.run.partition(":")
        assert callable(getattr(import_module(module), function)), experiment.name
        assert all(find_experiment(name) is experiment for name in (experiment.name, *experiment.also))
        assert "tiny" in experiment.sizes


def test_a_misspelled_name_is_answered_with_the_right_one():
    with pytest.raises(InputError, match="no experiment 'mask'; did you mean 'masks'"):
        find_experiment("mask")
    with pytest.raises(InputError, match="masks has no scale 'smal'"):
        find_experiment("masks").size("smal")


def test_what_is_needed_must_be_taken_and_made_by_a_command():
    given = {"name": "x", "title": "t", "run": "cardiosynth.core:x", "sizes": {"paper": Size(cost="", needs=("data",))}}
    Experiment.model_validate(given | {"takes": ("data",), "makes": {"data": "cardiosynth prepare"}})
    for lacking in ({"takes": ("data",)}, {"makes": {"data": "cardiosynth prepare"}}):
        with pytest.raises(pydantic.ValidationError, match="x needs data at paper"):
            Experiment.model_validate(given | lacking)


def test_the_list_says_what_everything_costs():
    text = listing()
    for experiment in EXPERIMENTS:
        assert experiment.title in text
        assert all(f"--scale {scale}: {size.cost}" in text for scale, size in experiment.sizes.items())
