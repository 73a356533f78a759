"""Who looks while a network trains sees the averaged weights and changes nothing."""

import pydantic
import pytest
import torch
from safetensors.torch import load_file

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import read_rows
from cardiosynth.training.loop import fit
from cardiosynth.training.watch import Watch, WatchSettings

from .tasks import Denoising
from .test_loop import RECORD, SETTINGS, assert_same_files


def watching(task: Denoising, seen: dict) -> Watch:
    """Draws from the global generators and disturbs the module, as a careless look might."""

    def look(step: int) -> dict[str, float]:
        seen[step] = {name: value.clone() for name, value in task.module.state_dict().items()}
        assert not task.module.training
        assert not torch.is_grad_enabled()
        torch.rand(7)
        with torch.random.fork_rng():
            task.module[0].weight.zero_()
        return {"validation/sum": float(sum(value.sum() for value in seen[step].values()))}

    return Watch(5, look)


@pytest.mark.parametrize("stop_at", [4, 5, 7])
def test_looking_changes_no_weight_and_survives_a_stop(stop_at, tmp_path):
    straight = fit(Denoising(), SETTINGS, tmp_path / "straight", RECORD)
    task = Denoising()
    fit(task, SETTINGS, tmp_path / "watched", RECORD, watches=[watching(task, {})], stop_at=stop_at)
    task, seen = Denoising(), {}
    watched = fit(task, SETTINGS, tmp_path / "watched", RECORD, watches=[watching(task, seen)])
    assert_same_files(watched, straight)
    rows = read_rows(tmp_path / "watched" / "metrics.jsonl")
    assert {row["step"]: "validation/sum" in row for row in rows} == {
        2: False, 4: False, 5: True, 6: False, 8: False, 10: True, 12: False
    }  # fmt: skip
    plain = [{k: v for k, v in row.items() if k != "validation/sum"} for row in rows if row["step"] != 5]
    assert plain == read_rows(tmp_path / "straight" / "metrics.jsonl")


def test_what_is_seen_are_the_averaged_weights(tmp_path):
    task, seen = Denoising(), {}
    fit(task, SETTINGS, tmp_path, RECORD, watches=[watching(task, seen)])
    saved = load_file(tmp_path / "step-0000010" / "model.safetensors")
    assert seen.keys() == {5, 10}
    assert all(torch.equal(value, saved[name]) for name, value in seen[10].items())


def test_validation_needs_cases():
    with pytest.raises(pydantic.ValidationError, match=r"set watch\.cases"):
        WatchSettings(validate_every=10)


def test_a_run_that_goes_on_may_be_looked_at_otherwise_but_not_hold_out_other_cases(tmp_path):
    def record(**values) -> dict:
        return {"settings": {"watch": WatchSettings(**values).model_dump(mode="json")}}

    fit(Denoising(), SETTINGS, tmp_path, record(cases=1), stop_at=1)
    fit(Denoising(), SETTINGS, tmp_path, record(cases=1, validate_every=3, sheet_every=5), stop_at=2)
    with pytest.raises(InputError, match=r"settings\.watch\.cases = 1, not 2"):
        fit(Denoising(), SETTINGS, tmp_path, record(cases=2))
