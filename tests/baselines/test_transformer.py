"""The transformer over codes: causal, the cache exact, and as good as the best predictor of a small grammar."""

import math

import pytest
import torch
import torch.nn.functional as F

from cardiosynth.baselines.transformer import Transformer, TransformerSettings, draw_codes
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.random import generator, named_weights

SMALL = TransformerSettings(layers=2, heads=2, width=16)


def network(channels=0, codes=5, places=6, settings=SMALL) -> Transformer:
    """Return an untrained network whose logits differ enough to be told apart."""
    with named_weights(0, "transformer"):
        made = Transformer(settings, codes, places, channels)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return made.eval()


def sequence(count=2, codes=5, places=6):
    return torch.randint(codes, (count, places), generator=generator(0, "codes"))


def told(channels=3, count=2, places=6):
    return torch.rand((count, places, channels), generator=generator(0, "told"))


@pytest.mark.parametrize("condition", [None, told()])
def test_a_code_changes_no_logit_of_its_own_place_or_before(condition):
    made, codes = network(0 if condition is None else 3), sequence()
    before = made(codes, condition)
    for place in range(6):
        changed = codes.clone()
        changed[:, place] = (changed[:, place] + 1) % 5
        after = made(changed, condition)
        assert torch.equal(after[:, : place + 1], before[:, : place + 1])
        assert place == 5 or not torch.equal(after[:, place + 1], before[:, place + 1])


def test_every_place_of_the_condition_reaches_every_logit():
    made, codes, condition = network(3), sequence(), told()
    before = made(codes, condition)
    for place in range(6):
        changed = condition.clone()
        changed[:, place] += 1
        assert bool((made(codes, changed) != before).any(2).all())


@pytest.mark.parametrize("condition", [None, told()])
def test_the_cache_gives_what_the_whole_gives(condition):
    made, codes = network(0 if condition is None else 3), sequence()
    first, cache = made.begin(2, condition)
    rest = [made.follow(codes[:, place - 1], place, cache) for place in range(1, 6)]
    torch.testing.assert_close(torch.stack([first, *rest], 1), made(codes, condition), rtol=1e-5, atol=1e-5)


def test_under_bfloat16_the_cache_is_as_close_as_the_whole():
    made, codes, condition = network(3), sequence(), told()
    with torch.no_grad():
        exact = made(codes, condition)
        with torch.autocast("cpu", torch.bfloat16):
            first, cache = made.begin(2, condition)
            rest = [made.follow(codes[:, place - 1], place, cache) for place in range(1, 6)]
    rough = torch.stack([first, *rest], 1)
    assert rough.dtype == torch.float32
    assert float((rough - exact).abs().max()) < 0.05 * float(exact.abs().max())


def grammar(count: int, rng: torch.Generator):
    """Return sequences (count, 8) of 4 codes: any first, then the same or the next with equal chance."""
    first = torch.randint(4, (count, 1), generator=rng)
    steps = torch.randint(2, (count, 7), generator=rng)
    return torch.cat([first, first + steps.cumsum(1)], 1) % 4


def test_it_learns_a_grammar_to_its_entropy_and_draws_from_it():
    with named_weights(0, "grammar"):
        made = Transformer(SMALL, 4, 8)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    for step in range(150):
        codes = grammar(64, generator(0, "batch", step))
        loss = F.cross_entropy(made(codes).flatten(0, 1), codes.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made.eval()
    entropy = (math.log(4) + 7 * math.log(2)) / 8
    codes = grammar(4096, generator(0, "fresh"))
    with torch.no_grad():
        found = float(F.cross_entropy(made(codes).flatten(0, 1), codes.flatten()))
    assert entropy - 0.005 < found < 1.02 * entropy
    drawn = torch.stack([draw_codes(made, generator(seed, "draw")) for seed in range(60)])
    follows = ((drawn[:, 1:] - drawn[:, :-1]) % 4 < 2).float().mean()
    assert float(follows) > 0.97
    assert len(drawn[:, 0].unique()) == 4


def test_draws_are_those_of_their_generator_and_the_likeliest_has_no_chance():
    made = network()
    one, same, other = (draw_codes(made, generator(seed, "draw")) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    greedy = [draw_codes(made, generator(seed, "draw"), top_k=1) for seed in (0, 1)]
    assert torch.equal(*greedy)
    assert torch.equal(made(greedy[0][None]).argmax(2)[0], greedy[0])
    cold = draw_codes(made, generator(2, "draw"), temperature=1e-4)
    assert torch.equal(cold, greedy[0])


def test_only_the_most_likely_codes_are_drawn():
    made = network(places=1)
    likely = set(made(torch.zeros((1, 1), dtype=torch.long))[0, 0].topk(2).indices.tolist())
    assert {int(draw_codes(made, generator(seed, "draw"), top_k=2)) for seed in range(40)} == likely


def test_heads_share_the_width():
    with pytest.raises(InputError, match="heads"):
        parse_settings(TransformerSettings, {"width": 10, "heads": 4}, "test")
