"""CycleGAN: its pool, its cycles, and two slices learned without pairs."""

import pytest
import torch

from cardiosynth.baselines.adversarial import AdversarialGenerator, build_game
from cardiosynth.baselines.cycle_gan import CycleGame, CycleGanSettings, Pool
from cardiosynth.baselines.games import PatchSettings, label_map
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.store import load_tensors, read_rows
from cardiosynth.training.processes import ALONE

from .adversaries import boxes, mean_error_hu, stage_of

KEEP, SWAP_FIRST, SWAP_LAST = [0.5, 0.0], [0.49, 0.0], [0.0, 0.99]


def images(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1, 1)


def shown(pool: Pool, values, draws) -> list[float]:
    return pool.exchange(images(*values), torch.tensor(draws)).flatten().tolist()


def test_a_pool_fills_first_and_then_exchanges_by_its_draws():
    pool = Pool(2, 1, (1, 1))
    assert shown(pool, [1], [SWAP_LAST]) == [1], "nothing to exchange yet"
    assert shown(pool, [2, 3], [SWAP_FIRST, SWAP_FIRST]) == [2, 1], "full from the third image on"
    assert pool.images.flatten().tolist() == [3, 2]
    assert shown(pool, [4, 5], [KEEP, SWAP_LAST]) == [4, 2]
    assert pool.images.flatten().tolist() == [3, 5]


def test_a_pool_that_was_saved_goes_on_as_it_would_have():
    draws = torch.rand(12, 2, generator=torch.Generator().manual_seed(0))
    whole, first, second = (Pool(3, 1, (1, 1)) for _ in range(3))
    unbroken = whole.exchange(images(*range(12)), draws)
    begun = first.exchange(images(*range(5)), draws[:5])
    second.load_state_dict(first.state_dict())
    assert torch.equal(torch.cat((begun, second.exchange(images(*range(5, 12)), draws[5:]))), unbroken)
    assert not torch.equal(unbroken, images(*range(12))), "some were exchanged"


def small() -> CycleGame:
    settings = CycleGanSettings(channels=4, blocks=1, discriminators=PatchSettings(channels=2, layers=1), pool=1)
    torch.manual_seed(0)
    game = settings.build((1, 2), (8, 8))
    assert isinstance(game, CycleGame)
    return game


def batch(whether: float):
    mask = torch.randint(0, 3, (1, 1, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return {"mask": mask, "image": torch.rand(1, 1, 8, 8), "exchange": torch.full((1, 2, 2), whether)}


def test_both_cycles_come_back_to_where_they_began():
    game, given = small(), batch(0.9)
    parts = game.generators_loss(given)
    labels, image = label_map(given["mask"], (1, 2)), given["image"]

    def there(x):
        return torch.tanh(game.used(x))

    def back(x):
        return game.back(x).softmax(1)

    torch.testing.assert_close(parts["cycle_labels"], (back(there(labels)) - labels).abs().sum(1).mean())
    torch.testing.assert_close(parts["cycle_images"], (there(back(image)) - image).abs().mean())
    fooled = (game.judges[0](there(labels))[-1] - 1).square().mean() + (
        game.judges[1](back(image))[-1] - 1
    ).square().mean()
    torch.testing.assert_close(parts["adversarial"], fooled)
    cycles = parts["cycle_labels"] + parts["cycle_images"]
    torch.testing.assert_close(parts["total"], parts["adversarial"] + 10 * cycles)


def test_discriminators_are_shown_what_the_pools_give():
    game, first, second = small(), batch(0.9), batch(0.1)
    game.generators_loss(first)
    game.follow(first, ALONE)
    before = game.discriminators_loss(first)["total"]
    with torch.no_grad():
        for parameter in game.used.parameters():
            parameter.add_(0.1)
    game.generators_loss(second)
    game.follow(second, ALONE)
    # Both pools hold one image, that of the first step, and the draws say to exchange.
    again = game.discriminators_loss(second)["total"]
    second["image"] = first["image"]
    assert not torch.equal(before, again)
    torch.testing.assert_close(game.discriminators_loss(second)["total"], before)


@pytest.mark.slow
def test_it_learns_two_slices_without_pairs(tmp_path):
    stage = stage_of("cyclegan", learning_rate=1e-3, checkpoint_every=1000)
    cases, errors = boxes(tmp_path / "data", stage.shape), []
    for steps in (1, 60):
        training = stage.training.model_copy(update={"steps": steps})
        made = AdversarialGenerator(stage.model_copy(update={"training": training}))
        made.fit(cases, tmp_path / "run")
        errors.append(mean_error_hu(made, cases))
    assert errors[1] < 0.5 * errors[0]
    rows = read_rows(tmp_path / "run" / "adversarial" / "metrics.jsonl")
    for part in ("cycle_labels", "cycle_images"):
        values = [row[f"generator/{part}"] for row in rows]
        assert sum(values[-5:]) < 0.5 * sum(values[:5]), part


def test_pools_are_in_the_checkpoint_and_not_in_what_one_uses(tmp_path):
    stage = stage_of("cyclegan", steps=2)
    AdversarialGenerator(stage).fit(boxes(tmp_path / "data", stage.shape), tmp_path / "run")
    folder = tmp_path / "run" / "adversarial" / "step-0000002"
    state = load_tensors(folder / "training.safetensors")
    assert int(state["raw.opponent.pools.0.count"]) == 4
    assert state["raw.opponent.pools.1.images"].shape[1] == 1 + len(CARDIAC_CT)
    assert load_tensors(folder / "model.safetensors").keys() == build_game(stage, CARDIAC_CT).used.state_dict().keys()
