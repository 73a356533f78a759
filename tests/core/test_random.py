import numpy as np
import torch
from torch import nn

from cardiosynth.core.random import draw_int, generator, named_seed, named_weights, numpy_generator


def test_a_name_always_draws_the_same_and_no_other_name_does():
    names = [("batch", 0, 1), ("batch", 1, 0), ("batch", 0), ("batch", "0", 1), ("other", 0, 1)]
    seeds = [named_seed(7, *name) for name in names]
    assert seeds == [named_seed(7, *name) for name in names]
    assert len({*seeds, named_seed(8, *names[0])}) == len(names) + 1
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_seed_of_a_name_never_changes_between_versions():
    assert named_seed(0, "sampling", "case-1") == 8586595529275598872


def test_generators_are_fresh_and_leave_global_randomness_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4, generator=generator(0, "a")), torch.rand(4, generator=generator(0, "a")))
    assert np.array_equal(numpy_generator(0, "a").random(4), numpy_generator(0, "a").random(4))
    assert torch.equal(torch.rand(2), expected)


def test_draws_stay_in_range_and_reach_all_of_it():
    rng = generator(0, "draws")
    assert {draw_int(4, rng) for _ in range(100)} == {0, 1, 2, 3}


def test_named_weights_depend_on_their_name_only():
    def weights(seed, name):
        with named_weights(seed, name):
            return nn.Linear(3, 3).weight.detach()

    torch.manual_seed(1)
    first = weights(0, "a")
    torch.manual_seed(2)
    after = torch.rand(1)
    torch.manual_seed(2)
    assert torch.equal(weights(0, "a"), first)
    assert torch.equal(torch.rand(1), after)
    assert not torch.equal(weights(0, "b"), first)
    assert not torch.equal(weights(1, "a"), first)
