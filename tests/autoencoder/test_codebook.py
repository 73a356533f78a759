import math

import pytest
import torch
from monai.networks.layers.vector_quantizer import EMAQuantizer

from cardiosynth.autoencoder.codebook import Codebook, CodebookSettings, code_usage, codebook_losses, straight_through
from cardiosynth.core.random import generator


def book(codes, sizes=None, **settings) -> Codebook:
    """Return a codebook that has begun, of codes in rows."""
    values = torch.tensor(codes)
    made = Codebook(CodebookSettings(codes=len(values), **settings), values.shape[1])
    with torch.no_grad():
        made.codes.copy_(values)
    made.sizes.copy_(torch.ones(len(values)) if sizes is None else torch.tensor(sizes))
    made.sums.copy_(values * made.sizes[:, None])
    return made


def latents(rows):
    """Return latents (1, c, 1, n) of given rows (n, c)."""
    return torch.tensor(rows).T[None, :, None]


def drawn(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dims", [2, 3])
def test_every_latent_becomes_the_code_nearest_to_it(dims):
    made, z = book(drawn((7, 3)).tolist()), drawn((2, 3, *(4,) * dims), 1)
    distances = (z.unsqueeze(1) - made.codes.reshape(1, 7, 3, *(1,) * dims)).square().sum(2)
    assert torch.equal(made.nearest(z), distances.argmin(1))
    assert torch.equal(made.quantize(z), made.codes[distances.argmin(1)].movedim(-1, 1))


def test_autocast_changes_no_code():
    made, z = book(drawn((64, 3)).tolist()), drawn((2, 3, 8, 8), 1)
    plain = made.nearest(z)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made.nearest(z), plain)


def test_before_codes_are_begun_latents_pass_and_cost_nothing():
    made, z = Codebook(CodebookSettings(codes=4, begin_step=3), 2), drawn((1, 2, 4, 4)).requires_grad_()
    made.follow(z, 2, generator(0))
    assert torch.equal(made.quantize(z), z)
    assert float(codebook_losses(z, made.quantize(z))["commitment"].detach()) == 0
    made.follow(z, 3, generator(0))
    assert not torch.equal(made.quantize(z), z)


def test_gradients_pass_straight_through_and_the_commitment_pulls_latents_only():
    made, z = book([[0.0], [4.0]]), latents([[1.0], [3.5]]).requires_grad_()
    quantized = made.quantize(z)
    (3 * straight_through(z, quantized)).sum().backward()
    assert z.grad is not None
    assert z.grad.flatten().tolist() == [3.0, 3.0]
    assert torch.equal(straight_through(z, quantized), quantized)
    z.grad = None
    losses = codebook_losses(z, quantized)
    assert set(losses) == {"commitment"}, "averaged codes have no gradient"
    assert float(losses["commitment"].detach()) == pytest.approx((1 + 0.25) / 2)
    losses["commitment"].backward()
    assert z.grad.flatten().tolist() == [1.0, -0.5]


def test_codes_that_learn_by_gradient_are_drawn_to_their_latents():
    made, z = book([[0.0], [4.0]], learning="gradient"), latents([[1.0], [3.5]]).requires_grad_()
    loss = codebook_losses(z, made.quantize(z))["attraction"]
    assert float(loss.detach()) == pytest.approx((1 + 0.25) / 2)
    loss.backward()
    assert z.grad is None
    assert made.codes.grad is not None
    assert made.codes.grad.flatten().tolist() == [-1.0, 0.5]
    before = made.codes.detach().clone()
    made.follow(z, 9, generator(0))
    assert torch.equal(made.codes.detach(), before), "averages move no code that learns by gradient"


def test_a_code_is_the_moving_average_of_its_latents():
    made = book([[0.0], [10.0]], sizes=[2.0, 1.0], decay=0.75, restart_below=0.0)
    made.follow(latents([[1.0], [3.0], [4.0], [12.0]]), 9, generator(0))
    # 0.75 * 2 + 0.25 * 3 latents whose sum is 0.75 * 0 + 0.25 * 8; 0.75 + 0.25 latents of 0.75 * 10 + 0.25 * 12.
    torch.testing.assert_close(made.sizes, torch.tensor([2.25, 1.0]))
    torch.testing.assert_close(made.codes, torch.tensor([[2 / 2.25], [10.5]]), rtol=1e-4, atol=0)


def test_averages_are_those_of_monai():
    theirs = EMAQuantizer(2, 16, 3, decay=0.9, ddp_sync=False)
    made = book(theirs.embedding.weight.tolist(), decay=0.9, restart_below=0.0)
    theirs.ema_cluster_size.copy_(made.sizes)
    theirs.ema_w.copy_(made.sums)
    for step in range(5):
        z = drawn((2, 3, 8, 8), step)
        quantized, commitment, index = theirs(z)
        assert torch.equal(made.nearest(z), index)
        torch.testing.assert_close(made.quantize(z), quantized)
        torch.testing.assert_close(0.25 * codebook_losses(z, made.quantize(z))["commitment"], commitment)
        made.follow(z, 9, generator(step))
        torch.testing.assert_close(made.codes, theirs.embedding.weight)


def test_codes_begin_as_the_means_of_the_latents_that_are_nearest_to_them():
    z = drawn((1, 2, 10, 20))
    made = Codebook(CodebookSettings(codes=5, begin_step=1, kmeans_rounds=100), 2)
    made.follow(z, 1, generator(0))
    rows, index = z[0].flatten(1).T, made.nearest(z).flatten()
    assert torch.equal(made.sizes, torch.bincount(index, minlength=5).float())
    for code in range(5):
        torch.testing.assert_close(made.codes[code], rows[index == code].mean(0))
    torch.testing.assert_close(made.sums, made.codes * made.sizes[:, None])


def test_fewer_latents_than_codes_begin_what_they_can():
    made = Codebook(CodebookSettings(codes=8, begin_step=1, kmeans_rounds=2), 1)
    made.follow(latents([[1.0], [2.0], [5.0]]), 1, generator(0))
    assert sorted(set(made.codes.flatten().tolist())) == [1.0, 2.0, 5.0]
    assert float(made.sizes.sum()) == 3


def test_codes_that_stand_for_nothing_are_put_where_latents_are():
    made = book([[0.0], [1.0], [99.0], [-99.0]], sizes=[10.0, 10.0, 0.01, 5.0], decay=0.99, restart_below=0.1)
    z = latents([[0.1], [0.9], [1.2]])
    made.follow(z, 9, generator(0))
    assert made.codes[2] in z, "the dead one is where a latent of the batch is"
    assert float(made.codes[3]) == pytest.approx(-99.0, rel=1e-4), "one that was met not long ago stays"
    mean = 0.99 * (10 + 10 + 0.01 + 5) / 4 + 0.01 * 3 / 4
    assert float(made.sizes[2]) == pytest.approx(mean)
    assert float(made.sums[2] / made.sizes[2]) == pytest.approx(float(made.codes[2]))
    made.follow(z, 10, generator(1))
    assert float((made.codes[2] - z).abs().min()) < 0.02, "and stays there"


def test_no_more_codes_are_restarted_than_there_are_latents():
    made = book([[0.0]] + [[99.0 + i] for i in range(9)], sizes=[10.0] + [0.01] * 9, restart_below=0.5)
    z = latents([[0.0], [0.5]])
    made.follow(z, 9, generator(0))
    moved = (made.codes[1:, 0, None] == z.flatten()).any(1)
    assert int(moved.sum()) == 2
    assert len(set(made.codes[1:][moved].flatten().tolist())) == 2


def test_what_follows_is_a_function_of_the_generator():
    z, ways = drawn((1, 2, 8, 8)), []
    for seed in (0, 0, 1):
        made = Codebook(CodebookSettings(codes=16, begin_step=1, restart_below=0.5), 2)
        for step in range(1, 4):
            made.follow(z, step, generator(seed, step))
        ways.append(made.codes)
    assert torch.equal(ways[0], ways[1])
    assert not torch.equal(ways[0], ways[2])


def test_usage_counts_codes_and_perplexity_the_codes_that_matter():
    alike = code_usage(torch.arange(6).repeat(3), 8)
    assert (float(alike["codes_met"]), float(alike["perplexity"])) == (0.75, pytest.approx(6.0))
    one = code_usage(torch.zeros(2, 4, 4, dtype=torch.long), 8)
    assert (float(one["codes_met"]), float(one["perplexity"])) == (0.125, 1.0)
    skewed = code_usage(torch.tensor([0, 0, 0, 1]), 2)
    assert float(skewed["perplexity"]) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
