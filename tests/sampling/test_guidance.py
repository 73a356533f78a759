"""Guidance: closed forms for Gaussians, the direction it takes, and variants that are what training saw."""

import math

import pytest
import torch
from diffusion.test_control import condition
from diffusion.test_task import control_task, generators

from cardiosynth.core.random import generator
from cardiosynth.diffusion.control import Condition, ConditionSettings
from cardiosynth.diffusion.dropout import ConditionDropout, without_mask, without_template
from cardiosynth.diffusion.process import RectifiedFlow, VariancePreserving, times
from cardiosynth.sampling.guidance import Guidance, GuidedDenoiser, Variants, embedded_variants
from cardiosynth.sampling.solvers import heun

PROCESSES = [VariancePreserving(), RectifiedFlow()]
STD = 0.6
MEANS = Variants(*(torch.tensor([[mean]], dtype=torch.float64) for mean in (0.5, 0.2, -0.4)))
"""Of Gaussian data given everything, given no template, and given no mask."""


class Counted:
    """A denoiser of Gaussian data whose mean is the condition; remembers the batches it was called with."""

    def __init__(self, process):
        self.process, self.batches = process, []

    def __call__(self, x, t, mean):
        self.batches.append(len(x))
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        return mean + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * mean)


def start(count=1):
    return torch.randn(count, 1, generator=generator(0, "start"), dtype=torch.float64)


def at(time):
    return torch.tensor(time, dtype=torch.float64)


def test_without_weights_it_is_the_denoiser_itself_called_once():
    plain = Counted(RectifiedFlow())
    found = GuidedDenoiser(plain, Guidance(), clamp=1e-9)(start(), at(0.7), MEANS)
    assert plain.batches == [1]
    assert torch.equal(found, plain(start(), at(0.7), MEANS.full))


@pytest.mark.parametrize("process", PROCESSES, ids=["vp", "flow"])
@pytest.mark.parametrize("guidance", [Guidance(1.5, 0.0), Guidance(0.0, 0.8), Guidance(1.5, 0.8)])
def test_gaussians_of_one_width_are_led_to_a_gaussian_with_the_mean_moved_on(process, guidance):
    """D is linear in the mean, so guidance moves the mean by the weighted differences and keeps the width."""
    moved = MEANS.full + sum(w * (MEANS.full - other) for w, other in zip(guidance, MEANS[1:], strict=True))
    x, points = start(9), times(200, "angle", process)
    variants = Variants(*(mean.expand(9, 1) for mean in MEANS))
    found = heun(GuidedDenoiser(Counted(process), guidance), process, points, x, variants)
    alpha, sigma = float(process.alpha(points[0])), float(process.sigma(points[0]))
    exact = moved + STD * (x - alpha * moved) / math.hypot(alpha * STD, sigma)
    torch.testing.assert_close(found, exact, atol=2e-4, rtol=0)


@pytest.mark.parametrize("process", PROCESSES, ids=["vp", "flow"])
def test_it_climbs_the_likelihood_of_what_was_left_out(process):
    """x0 moves by weight sigma^2 / alpha times the gradient of log p(x | all) - log p(x | rest)."""
    t, x = at(0.6), start(5).requires_grad_()
    alpha, sigma = process.alpha(t), process.sigma(t)

    def log_density(mean):
        return -0.5 * (x - alpha * mean).square() / (alpha**2 * STD**2 + sigma**2)

    odds = log_density(MEANS.full) - log_density(MEANS.without_template)
    (gradient,) = torch.autograd.grad(odds.sum(), x)
    plain = Counted(process)
    guided = GuidedDenoiser(plain, Guidance(template=2.0))(x, t, MEANS)
    torch.testing.assert_close(guided - plain(x, t, MEANS.full), 2.0 * sigma**2 / alpha * gradient)


@pytest.mark.parametrize(("stacked", "batches"), [(True, [6]), (False, [2, 2, 2])])
def test_variants_run_in_one_batch_or_in_turn_with_the_same_result(stacked, batches):
    plain, guidance = Counted(RectifiedFlow()), Guidance(1.5, 0.8)
    variants = Variants(*(mean.expand(2, 1) for mean in MEANS))
    found = GuidedDenoiser(plain, guidance, stacked=stacked)(start(2), at(0.7), variants)
    assert plain.batches == batches
    D = [Counted(RectifiedFlow())(start(2), at(0.7), mean) for mean in MEANS]
    torch.testing.assert_close(found, D[0] + 1.5 * (D[0] - D[1]) + 0.8 * (D[0] - D[2]), atol=1e-12, rtol=0)


def test_a_part_without_weight_costs_no_call_and_needs_no_variant():
    plain = Counted(RectifiedFlow())
    GuidedDenoiser(plain, Guidance(mask=1.0))(start(), at(0.7), Variants(MEANS.full, None, MEANS.without_mask))
    assert plain.batches == [1, 1]
    with pytest.raises(AssertionError, match="needs the variant"):
        GuidedDenoiser(plain, Guidance(template=1.0))(start(), at(0.7), Variants(MEANS.full))


def test_the_guided_x0_is_limited_as_the_denoisers():
    guided = GuidedDenoiser(Counted(RectifiedFlow()), Guidance(template=1e6), clamp=5.0)
    assert float(guided(start(), at(0.7), MEANS)) == 5.0


@pytest.mark.parametrize(
    ("guidance", "wanted"),
    [(Guidance(), [0]), (Guidance(template=1), [0, 1]), (Guidance(mask=1), [0, 2]), (Guidance(1, 1), [0, 1, 2])],
)
def test_each_variant_is_embedded_once_and_only_where_needed(guidance, wanted):
    given, settings, seen = condition(), ConditionSettings(), []
    candidates = [given, without_template(given, settings), without_mask(given)]

    def embed(one: Condition):
        seen.append(one)
        return one.palette

    variants = embedded_variants(embed, given, settings, guidance)
    assert [index for index, variant in enumerate(variants) if variant is not None] == wanted
    for found, index in zip(seen, wanted, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, candidates[index], strict=True))


def test_dropped_variants_are_what_training_saw():
    task = control_task("both", dropout=ConditionDropout(template=0.5, mask=0.5))
    seen, whole = task.batch(generators(8)), control_task("both").batch(generators(8))
    settings = task.module.condition
    shaken = generator(0, "shake")
    for parameter in task.module.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=shaken))
    given = [Condition(*(batch[name] for name in Condition._fields)) for batch in (seen, whole)]
    with torch.no_grad():
        trained = task.module.embed(given[0])
        told = embedded_variants(task.module.embed, given[1], settings, Guidance(1, 1))
    lacks_template, lacks_mask = ((v.flatten(1) == 0).all(1) for v in (given[0].template_mask, given[0].reference))
    for found, rows in (
        (told.full, ~lacks_template & ~lacks_mask),
        (told.without_template, lacks_template & ~lacks_mask),
        (told.without_mask, lacks_mask & ~lacks_template),
    ):
        assert rows.any()
        torch.testing.assert_close(found[rows], trained[rows])
    assert not torch.allclose(told.full, told.without_template)
    assert not torch.allclose(told.full, told.without_mask)
