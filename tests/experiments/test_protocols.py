"""Protocols: what is compared has the same steps, and differs in what it should alone."""

import pydantic
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.splits import read_split
from cardiosynth.experiments.protocols import PROTOCOLS, Arm, Protocol, find_protocol
from cardiosynth.recipes.fcas import DEMO
from cardiosynth.segmentation.losses import ConfidenceWeights

ARMS = [(name, arm) for name, protocol in PROTOCOLS.items() for arm in protocol.arms]


@pytest.mark.parametrize(("protocol", "arm"), ARMS, ids=lambda x: getattr(x, "name", x))
def test_every_arm_has_the_same_steps_and_says_where_it_has_less(protocol: str, arm: Arm):
    whole = arm.stage(DEMO.segmenter, 400, seed=3).training
    assert whole.steps == 400 * arm.steps_share
    assert whole.seed == 3
    if arm.pretraining:
        staged = arm.staged(DEMO.segmenter, 400, seed=3)
        assert staged.pretraining.training.steps + staged.finetuning.training.steps == whole.steps
        assert staged.finetuning.training.warmup_steps <= staged.finetuning.training.steps / 4
    assert arm.steps_share == 1 or arm.name.endswith("short")


def test_real_only_has_the_steps_of_both_stages_and_once_those_of_fine_tuning_alone():
    arms = {arm.name: arm for arm in find_protocol("few-phantoms").arms}
    staged = arms["cal-40"].staged(DEMO.segmenter, 1000, 0)
    assert (staged.pretraining.training.steps, staged.finetuning.training.steps) == (800, 200)
    assert arms["real-only"].stage(DEMO.segmenter, 1000, 0).training.steps == 1000
    assert arms["real-only-short"].stage(DEMO.segmenter, 1000, 0).training.steps == 200


def test_plain_and_cal_differ_in_the_weights_alone():
    arms = {arm.name: arm for arm in find_protocol("few-phantoms").arms}
    plain, cal = (arms[name].staged(DEMO.segmenter, 400, 0).pretraining for name in ("plain-160", "cal-160"))
    assert (plain.confidence, cal.confidence) == (None, ConfidenceWeights())
    assert plain.model_copy(update={"confidence": cal.confidence}) == cal
    assert arms["mixed-160"].stage(DEMO.segmenter, 400, 0).shares == (1, 4)


def test_arms_share_a_pretraining_where_they_differ_in_fine_tuning_alone():
    arms = {arm.name: arm for arm in find_protocol("few-phantoms").arms}
    same = {arms[name].pretraining for name in ("cal-160", "cal-160-rate0.3", "cal-160-rate0.1")}
    assert len(same) == 1
    others = [a for n, a in arms.items() if n not in ("cal-160-rate0.3", "cal-160-rate0.1") and a.pretraining]
    assert len({arm.pretraining for arm in others}) == len(others)
    for name in ("cal-160", "cal-160-rate0.1"):
        assert (
            arms[name].staged(DEMO.segmenter, 400, 0).pretraining
            == arms["cal-160"].staged(DEMO.segmenter, 400, 0).pretraining
        )
    rate = arms["cal-160-rate0.1"].staged(DEMO.segmenter, 400, 0).finetuning.training.learning_rate
    assert rate == pytest.approx(0.1 * DEMO.segmenter.training.learning_rate)


def test_a_protocol_can_be_made_smaller_but_not_empty():
    whole, small = find_protocol("fcas-table-3"), find_protocol("fcas-table-3").scaled(0.05)
    assert [(arm.real, arm.count) for arm in whole.arms] == [(176, 0), (20, 0), (20, 400), (20, 1000)]
    assert [(arm.real, arm.count) for arm in small.arms] == [(9, 0), (2, 0), (2, 20), (2, 50)]
    assert (small.real, small.count("deformed"), small.count("coded")) == (9, 50, 0)
    assert [(arm.real, arm.count) for arm in whole.scaled(0.5, 0.1).arms][1:] == [(10, 0), (10, 20), (10, 50)]


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_real_data_is_split_as_published(protocol: Protocol):
    assert read_split(protocol.split) == {"train": 0.2, "test": 0.8}


def test_what_makes_no_sense_is_refused():
    with pytest.raises(pydantic.ValidationError, match="count must be given with a source"):
        Arm(name="a", real=2, source="deformed")
    with pytest.raises(pydantic.ValidationError, match="nothing to mix or to weigh"):
        Arm(name="a", real=2, shares=(1, 1))
    with pytest.raises(pydantic.ValidationError, match="different names"):
        Protocol(baseline="b", arms=(Arm(name="a", real=2),))
    with pytest.raises(InputError, match="did you mean 'fcas-table-3'"):
        find_protocol("fcas-table3")
