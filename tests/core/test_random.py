import torch
from torch import nn

from cardiosynth.core.random import generator, named_weights


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


def test_generators_depend_on_seed_and_names():
    draws = [
        torch.rand(1, generator=generator(*key)).item() for key in ((0, "a", 1), (0, "a", 2), (0, "a1"), (1, "a", 1))
    ]
    assert len(set(draws)) == 4
    assert torch.rand(1, generator=generator(0, "a", 1)).item() == draws[0]
