"""Condition dropout: what is left out leaves no trace in any channel, and nothing else changes."""

import pytest
import torch

from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator
from cardiosynth.diffusion.control import ConditionSettings, num_channels, raw_condition
from cardiosynth.diffusion.dropout import ConditionDropout, dropped, without_mask, without_template
from cardiosynth.diffusion.settings import ControlStage

from .test_control import condition
from .test_task import control_task, generators

KINDS = [
    ConditionSettings(kind=kind, encoding=encoding, intensity_center=0.4, intensity_gain=8.0)
    for kind in ("template", "painted")
    for encoding in ("bits", "one_hot", "scalar")
]


def raw(given, settings):
    return raw_condition(given, settings, CARDIAC_CT)


def reference_channels(settings):
    return {"bits": 8, "one_hot": 8, "scalar": 1}[settings.encoding]


@pytest.mark.parametrize("settings", KINDS, ids=lambda s: f"{s.kind}-{s.encoding}")
def test_without_its_template_only_the_reference_mask_is_told(settings):
    given, count = condition(), reference_channels(settings)
    found = raw(without_template(given, settings), settings)
    assert torch.equal(found[:, :count], raw(given, settings)[:, :count])
    assert (found[:, count:] == 0).all(), "the palette shines through"


@pytest.mark.parametrize("settings", KINDS, ids=lambda s: f"{s.kind}-{s.encoding}")
def test_without_its_mask_no_reference_can_be_told_from_another(settings):
    given, count = condition(), reference_channels(settings)
    other = given._replace(reference=condition(seed=1).reference)
    assert not torch.equal(raw(given, settings), raw(other, settings))
    found = raw(without_mask(given), settings)
    assert torch.equal(found, raw(without_mask(other), settings))
    assert (found[:, :count] == 0).all()
    template = slice(count, num_channels(settings, CARDIAC_CT) - (settings.kind == "painted"))
    assert torch.equal(found[:, template], raw(given, settings)[:, template])


def test_without_both_nothing_is_told():
    for settings in KINDS:
        assert (raw(without_mask(without_template(condition(), settings)), settings) == 0).all()


def test_each_part_is_left_out_as_often_as_said_and_independently():
    given, settings, count = condition(batch=1, grid=(2, 2, 2)), ConditionSettings(), 2000
    dropout = ConditionDropout(template=0.3, mask=0.1)
    found = [dropped(given, settings, dropout, generator(0, "drop", index)) for index in range(count)]
    template = torch.tensor([bool((one.template_mask == 0).all()) for one in found]).float()
    mask = torch.tensor([bool((one.reference == 0).all()) for one in found]).float()
    for lacks, probability in ((template, 0.3), (mask, 0.1), (template * mask, 0.03)):
        assert abs(float(lacks.mean()) - probability) < 4 * (probability * (1 - probability) / count) ** 0.5


@pytest.mark.parametrize("bidirectional", [True, False])
def test_dropout_changes_no_other_draw(bidirectional):
    plain = control_task(bidirectional=bidirectional).batch(generators(8))
    dropout = ConditionDropout(template=0.5, mask=0.5)
    found = control_task(bidirectional=bidirectional, dropout=dropout).batch(generators(8))
    for name in plain.keys() - {"reference", "template_mask", "template_image", "palette"}:
        assert torch.equal(plain[name], found[name]), name
    lacks_mask, lacks_template = ((found[name].flatten(1) == 0).all(1) for name in ("reference", "template_mask"))
    for lacks, names in ((lacks_mask, ["reference"]), (lacks_template, ["template_mask", "template_image", "palette"])):
        assert 0 < lacks.sum() < 16
        for name in names:
            assert torch.equal(plain[name][~lacks], found[name][~lacks]), name


def test_a_stage_without_a_template_has_none_to_drop():
    with pytest.raises(ValueError, match="no template to drop"):
        ControlStage(condition=ConditionSettings(kind="mask"), drop_template=0.1)
