"""How fast a machine computes and moves memory: measured here in half a second, assumed for what is not here."""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

ASSUMED_TFLOPS = 100.0
"""Sustained on convolutions in bfloat16: a third of an A100's dense peak of 312, a tenth of an H100's."""
ASSUMED_GB_PER_S = 1500.0
"""An A100's memory."""
GPU_OVERHEAD_GB = 1.5
"""The CUDA context, cuDNN's workspaces, and blocks that the allocator cannot use."""
MEASURED_S = 0.25


class Rates(NamedTuple):
    """What a machine sustains.

    Attributes:
        device: cpu or gpu.
        memory_gb: in all, 1e9 bytes.
        tflops: 1e12 operations per second.
        gb_per_s: bytes read and written.
        overhead_gb: memory that is not the tensors'.
        origin: how the numbers are known, for the reader.
    """

    device: str
    memory_gb: float
    tflops: float
    gb_per_s: float
    overhead_gb: float
    origin: str


def machine_rates(gpu_mem_gb: float | None, gpu_tflops: float | None, *, bfloat16: bool) -> Rates:
    """Return the rates of a GPU where one is asked for or here, else of this machine's processor.

    Args:
        gpu_mem_gb: memory of the GPU in mind; None for this machine.
        gpu_tflops: what it sustains, where that is known.
        bfloat16: whether to measure the processor in bfloat16.
    """
    if gpu_mem_gb is None and not torch.cuda.is_available():
        memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        rates = measured_rates(torch.device("cpu"), torch.bfloat16 if bfloat16 else torch.float32)
        return Rates("cpu", memory_gb, *rates, 0.0, "measured in half a second on this machine, by one convolution")
    here = torch.cuda.is_available()
    memory_gb = gpu_mem_gb or torch.cuda.get_device_properties(0).total_memory / 1e9
    tflops, gb_per_s = ASSUMED_TFLOPS, ASSUMED_GB_PER_S
    origin = "assumed, give --gpu-tflops for another"
    if here:
        tflops, gb_per_s = measured_rates(torch.device("cuda"), torch.bfloat16)
        origin = "measured on this machine's GPU, by one convolution"
    if gpu_tflops is not None:
        tflops, origin = gpu_tflops, "as given"
    return Rates("gpu", memory_gb, tflops, gb_per_s, GPU_OVERHEAD_GB, origin)


@torch.no_grad()
def measured_rates(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Return (TFLOP/s, GB/s) of a 3x3x3 convolution of 64 channels and of a copy."""
    side = 32 if device.type == "cpu" else 128
    x = torch.randn(1, 64, side, side, side, dtype=dtype, device=device).contiguous(
        memory_format=torch.channels_last_3d
    )
    weight = torch.randn(64, 64, 3, 3, 3, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last_3d)
    flops = 2 * 64 * 64 * 27 * side**3
    values = torch.empty(2**24, device=device)
    convolutions = _per_second(lambda: F.conv3d(x, weight, padding=1), device)
    copies = _per_second(lambda: values.clone(), device)
    return flops * convolutions / 1e12, 2 * values.nbytes * copies / 1e9


def _per_second(work: Callable[[], torch.Tensor], device: torch.device) -> float:
    """Return how often ``work`` is done per second, warmed up."""
    work()
    count, start = 0, _now(device)
    while (elapsed := _now(device) - start) < MEASURED_S:
        work()
        count += 1
    return count / elapsed


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
