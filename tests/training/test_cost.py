import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from cardiosynth.training.cost import Cost, count_training_step, counterfeit, counting
from cardiosynth.training.settings import TrainingSettings
from tests.training.tasks import Denoising

KB = 1024


def test_a_linear_layer_costs_two_operations_per_weight_and_example():
    with counting(gpu=False) as meter:
        layer, x = nn.Linear(32, 64, bias=False), torch.empty(16, 32)
        before = meter.live_bytes
        meter.take()
        y = layer(x)
        cost = meter.take()
    assert before == 4 * (32 * 64 + 16 * 32)
    assert cost == Cost(flops=2 * 16 * 32 * 64, moved_bytes=0, peak_bytes=before + 4 * 16 * 64)
    assert y.shape == (16, 64)


def test_a_chain_of_convolutions_holds_two_tensors_at_a_time_and_all_of_them_for_its_gradient():
    def chain(learns: bool) -> tuple[int, int]:
        with counting(gpu=True) as meter:
            layers = nn.Sequential(*(nn.Conv3d(8, 8, 3, padding=1, bias=False) for _ in range(5)))
            x = torch.empty(1, 8, 16, 16, 16)
            weights = meter.live_bytes - x.nbytes
            meter.take()
            with torch.set_grad_enabled(learns):
                layers(x)
            cost = meter.take()
            assert cost.flops == 5 * 2 * 8 * 8 * 27 * 16**3
            return cost.peak_bytes - weights, x.nbytes

    without, tensor = chain(learns=False)
    assert without == 3 * tensor, "the input, which is the caller's, and two more"
    assert chain(learns=True)[0] == 6 * tensor


def test_in_place_takes_no_memory_and_what_is_dropped_gives_it_back():
    with counting(gpu=False) as meter:
        x = torch.zeros(KB)
        x.add_(1).mul_(2)
        assert meter.take().peak_bytes == 4 * KB
        y = x + 1
        del y
        assert meter.live_bytes == 4 * KB
        cost = meter.take()
    assert cost.peak_bytes == 8 * KB
    assert cost.moved_bytes == 8 * KB, "x is read and y is written"


def test_views_cost_nothing():
    with counting(gpu=False) as meter:
        x = torch.zeros(4, KB)
        meter.take()
        x.view(2, -1).transpose(0, 1)[:5].unsqueeze(0)
        assert meter.take() == Cost(0, 0, 16 * KB)


def test_attention_counts_its_two_products_and_five_more_for_the_gradient():
    with counting(gpu=False) as meter:
        q = torch.empty(1, 4, 64, 32, requires_grad=True)
        y = F.scaled_dot_product_attention(q, q, q)
        product = 2 * 4 * 64 * 64 * 32
        assert meter.take().flops == 2 * product
        y.sum().backward()
        assert meter.take().flops == 5 * product


def test_checkpointing_computes_again_and_keeps_less():
    def step(spares: bool) -> Cost:
        with counting(gpu=True) as meter:
            blocks = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.SiLU()) for _ in range(6)]
            x = torch.empty(1, 8, 64, 64, requires_grad=True)
            with torch.autocast("cpu", torch.bfloat16):
                for block in blocks:
                    x = checkpoint(block, x, use_reentrant=False) if spares else block(x)
            x.sum().backward()
            return meter.take()

    plain, spared = step(spares=False), step(spares=True)
    assert spared.flops == plain.flops * 4 / 3
    assert spared.peak_bytes < 0.6 * plain.peak_bytes


def test_autocast_of_gpus_normalizes_in_float32():
    def dtype_of(gpu: bool) -> torch.dtype:
        with counting(gpu=gpu), torch.autocast("cpu", torch.bfloat16):
            return nn.GroupNorm(4, 8)(nn.Conv2d(8, 8, 3)(torch.empty(1, 8, 9, 9))).dtype

    assert dtype_of(gpu=True) == torch.float32
    assert dtype_of(gpu=False) == torch.bfloat16
    assert F.group_norm.__module__ == "torch.nn.functional", "everything is as it was afterwards"


def test_on_cpus_a_convolution_copies_what_is_not_stored_channels_last():
    def peak(layout: torch.memory_format) -> int:
        with counting(gpu=False) as meter, torch.no_grad():
            with torch.device("meta"):
                layer = nn.Conv3d(16, 16, 3, padding=1, bias=False)
            counterfeit(layer)
            layer.weight = nn.Parameter(layer.weight.contiguous(memory_format=layout))
            x = torch.empty(1, 16, 8, 8, 8).contiguous(memory_format=layout)
            meter.take()
            layer(x)
            return meter.take().peak_bytes

    assert peak(torch.contiguous_format) - peak(torch.channels_last_3d) == 4 * 16 * 8**3


def test_times_add_arithmetic_and_movement_and_costs_add_up():
    cost = Cost(flops=3, moved_bytes=10, peak_bytes=7)
    assert cost.seconds(flops_per_s=1, bytes_per_s=5) == 5
    assert cost + Cost(1, 2, 9) == Cost(4, 12, 9)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_between_steps_weights_average_and_two_moments_stay(bfloat16: bool):
    task = Denoising(norm=False)
    size = sum(p.nbytes for p in task.module.parameters())
    with counting(gpu=True) as meter:
        counterfeit(task.module)
        task.unused = task.module.get_parameter("unused")
        batch = {name: torch.empty(4, 1, 16, 16, 16) for name in ("clean", "noisy")}
        step, held = count_training_step(meter, task, batch, TrainingSettings(), bfloat16=bfloat16)
    counters = 8 * len(list(task.module.parameters())) + 8
    assert 4 * size <= held <= 4 * size + counters
    assert step.peak_bytes > held + 3 * 4 * 4 * 16**3
