"""What a training example holds, where its randomness comes from, and what the loss is."""

import pytest
import torch

from cardiosynth.autoencoder.codec import raw_statistics
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator
from cardiosynth.data.loader import CaseCache
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.latents import Latents
from cardiosynth.diffusion.objective import Objective, ObjectiveSettings, TimeSettings, draw_time, place_weight
from cardiosynth.diffusion.process import RectifiedFlow, TimeShift, VariancePreserving
from cardiosynth.diffusion.task import ControlTask, DiffusionTask, mates
from cardiosynth.diffusion.unet import TemplateUNet
from cardiosynth.diffusion.validation import validation_loss

from .small import DENOISER, case


class FakeLatents(Latents):
    """Normalized latents in memory."""

    def __init__(self, count=4):
        super().__init__([], [f"small-{index}" for index in range(count)], raw_statistics(2))

    def __len__(self):
        return len(self.case_ids)

    def block(self, index, where=()):
        mean = torch.randn(2, 4, 4, 4, generator=generator(0, "latents", index))[(slice(None), *where)]
        return mean, torch.full_like(mean, 0.1)


def cache(count=4):
    return CaseCache([case(index) for index in range(count)], IntensityScale(), needs_masks=True)


def network(inject=None, template="random", **changes):
    torch.manual_seed(0)
    condition = None
    if inject:
        condition = ConditionSettings(inject=inject, features=4, stem_channels=(8,), template=template)
    return TemplateUNet(2, 4, 3, DENOISER.model_copy(update=changes), condition, CARDIAC_CT)


def control_task(inject="concatenate", template="random", objective=None, **options):
    objective = objective or Objective(RectifiedFlow(), "flow", ObjectiveSettings())
    return ControlTask(network(inject, template), cache(), FakeLatents(), objective, **options)


def generators(count, step=0):
    return [generator(0, "batch", step, index) for index in range(count)]


def test_both_directions_of_a_pair_are_stacked():
    task = control_task()
    batch = task.batch(generators(3))
    assert batch["x0"].shape == (6, 2, 4, 4, 4)
    for first in range(0, 6, 2):
        assert torch.equal(batch["reference"][first], batch["template_mask"][first + 1])
        assert torch.equal(batch["reference"][first + 1], batch["template_mask"][first])
        assert not torch.equal(batch["reference"][first], batch["reference"][first + 1])


def test_one_direction_draws_as_many_pairs_that_are_independent():
    task = control_task(bidirectional=False)
    pairs = [task.pairs(generator(0, "pair", index)) for index in range(200)]
    assert all(len(two) == 2 for two in pairs)
    assert all(target != template for two in pairs for target, template in two)
    assert sum(two[1] == two[0][::-1] for two in pairs) < 40  # 1 of 12 ordered pairs, by chance


def test_every_ordered_pair_of_different_cases_is_drawn():
    task = control_task()
    drawn = {pair for index in range(300) for pair in task.pairs(generator(0, "pair", index))}
    assert drawn == {(a, b) for a in range(4) for b in range(4) if a != b}


def test_templates_of_the_same_acquisition_fall_back_to_any_other():
    assert mates(cache(4), "same_acquisition") == [[2], [3], [0], [1]]
    assert mates(cache(3), "same_acquisition") == [[2], [0, 2], [0]]
    assert mates(cache(3), "random") == [[1, 2], [0, 2], [0, 1]]


def test_an_example_depends_on_its_own_generator_only():
    task = control_task()
    together = task.batch(generators(3))
    alone = task.batch(generators(3)[2:])
    for name, value in alone.items():
        assert torch.equal(together[name][4:], value), name


def test_the_loss_is_a_function_of_module_and_batch():
    task = control_task("both")
    batch = task.batch(generators(1))
    assert torch.equal(task.loss(batch)["total"], task.loss(batch)["total"])


@pytest.mark.parametrize(
    ("process", "prediction"),
    [
        (VariancePreserving(), "epsilon"),
        (VariancePreserving(), "v"),
        (RectifiedFlow(), "flow"),
        (RectifiedFlow(), "x0"),
    ],
)
def test_loss_of_a_network_that_says_nothing_is_the_power_of_its_target(process, prediction):
    module = network()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    task = DiffusionTask(module, FakeLatents(), Objective(process, prediction, ObjectiveSettings()))
    batch = task.batch(generators(2))
    shape = (-1, 1, 1, 1, 1)
    alpha, sigma = process.alpha(batch["t"]).view(shape), process.sigma(batch["t"]).view(shape)
    wanted = {
        "epsilon": batch["noise"], "x0": batch["x0"], "flow": batch["noise"] - batch["x0"],
        "v": alpha * batch["noise"] - sigma * batch["x0"],
    }[prediction]  # fmt: skip
    parts = task.loss(batch)
    torch.testing.assert_close(parts["total"], wanted.square().mean())
    torch.testing.assert_close(parts["mse_noisy"] + parts["mse_clean"], parts["mse"])


def test_latents_are_drawn_afresh_from_mean_and_std():
    latents, objective = FakeLatents(), Objective(RectifiedFlow(), "flow", ObjectiveSettings())
    draws = torch.stack([objective.example(latents, 0, (), generator(0, index))["x0"] for index in range(500)])
    torch.testing.assert_close(draws.mean(0), latents[0][0], atol=0.03, rtol=0)
    torch.testing.assert_close(draws.std(0), latents[0][1], atol=0.02, rtol=0)
    fixed = Objective(RectifiedFlow(), "flow", ObjectiveSettings(latents="mean"))
    assert torch.equal(fixed.example(latents, 0, (), generator(0, 0))["x0"], latents[0][0])


def test_uniform_times_are_uniform_and_never_zero():
    drawn = torch.stack([draw_time(TimeSettings(), (4, 4, 4), generator(0, index)) for index in range(2000)])
    assert drawn.min() > 0
    assert drawn.max() <= 1
    assert abs(float(drawn.mean()) - 0.5) < 0.03
    assert abs(float(drawn.var()) - 1 / 12) < 0.01


def test_logit_normal_times_are_normal_after_the_logit():
    settings = TimeSettings(distribution="logit_normal", location=0.5, scale=1.2, uniform_share=0)
    logits = torch.stack([draw_time(settings, (4, 4, 4), generator(0, index)) for index in range(2000)]).logit()
    assert abs(float(logits.mean()) - 0.5) < 0.1
    assert abs(float(logits.std()) - 1.2) < 0.1


def test_cubic_times_are_those_of_a_cube():
    """1 - t is u^3: its cube root is uniform, and noise is trained most often."""
    settings = TimeSettings(distribution="cubic", uniform_share=0)
    drawn = torch.stack([draw_time(settings, (4, 4), generator(0, index)) for index in range(2000)])
    even = (1 - drawn) ** (1 / 3)
    assert drawn.min() > 0
    assert drawn.max() <= 1
    assert abs(float(even.mean()) - 0.5) < 0.03
    assert abs(float(even.var()) - 1 / 12) < 0.01


def test_absolute_errors_are_what_is_descended_where_the_settings_say_so():
    plain = control_task("control")
    batch = plain.batch(generators(2))
    with torch.no_grad():
        squared = plain.loss(batch)
        absolute = control_task(
            "control", objective=Objective(RectifiedFlow(), "flow", ObjectiveSettings(error="absolute"))
        ).loss(batch)
    wanted = batch["noise"] - batch["x0"]  # an untrained network predicts 0
    assert float(absolute["total"]) == pytest.approx(float(wanted.abs().mean()), rel=1e-5)
    assert float(absolute["mse"]) == pytest.approx(float(squared["mse"]), rel=1e-5)


def test_freezing_leaves_the_unet_as_it_was():
    task = control_task("control", freeze_unet=True)
    (player,) = task.players()
    with torch.no_grad():
        task.module.unet.out[2].conv.weight.fill_(0.1)  # zero at first, as if the first stage had learned nothing
    before = [p.detach().clone() for p in task.module.unet.parameters()]
    optimizer = torch.optim.SGD(player.parameters, lr=1.0)
    for step in range(2):
        task.loss(task.batch(generators(1, step)))["total"].backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, task.module.unet.parameters(), strict=True))
    assert len(player.parameters) == len(list(task.module.parameters())) - len(before)
    assert any(bool((p != 0).any()) for p in task.module.control.controlnet_mid_block.parameters())


def test_places_that_touch_a_structure_count_more():
    mask = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    mask[0, 0, 0, 0], mask[0, 7, 7, 7], mask[0, 4, 0, 0] = 1, 4, 9
    weight = place_weight(mask, CARDIAC_CT, ObjectiveSettings(target_weight=1.0, thin_weight=3.0), 4)
    assert weight.shape == (1, 2, 2, 2)
    assert float(weight.mean()) == pytest.approx(1)
    relative = weight[0] / weight[0, 0, 0, 1]
    assert [float(relative[i]) for i in ((0, 0, 0), (1, 1, 1), (1, 0, 0))] == pytest.approx([5, 2, 1])


def test_weights_enter_the_total_only():
    latents, weights = FakeLatents(), {index: torch.full((1, 4, 4, 4), 2.0) for index in range(4)}
    task = DiffusionTask(network(), latents, Objective(RectifiedFlow(), "flow", ObjectiveSettings(), weights))
    parts = task.loss(task.batch(generators(2)))
    torch.testing.assert_close(parts["total"], 2 * parts["mse"])


def test_a_batch_knows_its_cases():
    batch = DiffusionTask(network(), FakeLatents(), Objective(RectifiedFlow(), "flow", ObjectiveSettings()))
    drawn = batch.batch(generators(3))
    for index, x0 in zip(drawn["index"].tolist(), drawn["x0"], strict=True):
        assert float((x0 - FakeLatents()[index][0]).abs().max()) < 0.6  # noise of standard deviation 0.1
    assert batch.case_names(drawn) == [f"small-{index}" for index in drawn["index"].tolist()]
    task = control_task()
    drawn = task.batch(generators(1))
    target, template, *back = task.case_names(drawn)
    assert back == [template, target]
    assert torch.equal(drawn["template_mask"][0], cache().mask(int(template.removeprefix("small-"))))


def test_times_lean_to_noise_by_the_size_of_what_is_trained():
    settings = TimeSettings(shift=TimeShift(by_volume=True))
    for shape, ratio in (((32, 32, 32), 1.0), ((128, 128, 32), 16 ** (1 / 3)), ((16, 16, 16), 0.5)):
        for index in range(20):
            plain = draw_time(TimeSettings(), shape, generator(0, index))
            leaning = draw_time(settings, shape, generator(0, index))
            torch.testing.assert_close(leaning, ratio * plain / (1 + (ratio - 1) * plain))


def test_held_out_cases_are_neither_targets_nor_templates():
    task = control_task(held_out=(1,))
    seen = {index for i in range(200) for pair in task.pairs(generator(0, "pair", i)) for index in pair}
    assert seen == {0, 2, 3}
    batch = task.held_out_batch(1, generator(0))
    assert task.case_names(batch)[0] == "small-1"
    assert "small-1" not in task.case_names(batch)[1:]
    first = DiffusionTask(network(), FakeLatents(), Objective(RectifiedFlow(), "flow", ObjectiveSettings()), (0, 3))
    assert set(first.batch(generators(100))["index"].tolist()) == {1, 2}
    assert first.case_names(first.held_out_batch(3, generator(0))) == ["small-3"]


def test_validation_is_a_function_of_names_alone():
    objective = Objective(RectifiedFlow(), "flow", ObjectiveSettings(times=TimeSettings(distribution="logit_normal")))
    task = control_task(objective=objective, held_out=(1, 2))
    with torch.no_grad():
        task.module.unet.out[2].conv.weight.normal_(generator=generator(0, "out"))
        torch.manual_seed(1)
        found = validation_loss(task, "fp32")
        torch.manual_seed(2)
        assert validation_loss(task, "fp32") == found
        other = control_task(objective=Objective(RectifiedFlow(), "flow", ObjectiveSettings()), held_out=(1, 2))
        other.module.load_state_dict(task.module.state_dict())
        assert validation_loss(other, "fp32") == found
        assert found.keys() == {f"validation/{name}" for name in ("total", "mse", "mse_noisy", "mse_clean")}
        assert found["validation/mse"] == pytest.approx(found["validation/mse_noisy"] + found["validation/mse_clean"])
        first = DiffusionTask(network(), FakeLatents(), objective, (1,))
        assert validation_loss(first, "fp32") == validation_loss(first, "fp32")


def test_a_network_is_told_the_voxel_size():
    told = network(spacing_input=True)
    spacings = {index: torch.tensor([0.5, 0.5, 1.0 + index]) for index in range(4)}
    objective = Objective(RectifiedFlow(), "flow", ObjectiveSettings(), spacings_mm=spacings)
    task = DiffusionTask(told, FakeLatents(), objective)
    with torch.no_grad():
        for parameter in told.parameters():
            parameter.normal_(std=0.1, generator=generator(0, "weights"))
    batch = task.batch(generators(3))
    assert batch["spacing_mm"].tolist() == [[0.5, 0.5, 1.0 + index] for index in batch["index"].tolist()]
    assert task.loss(batch)["total"] != task.loss({**batch, "spacing_mm": batch["spacing_mm"] * 2})["total"]
