"""Exactness: decoding and encoding in slabs against the whole volume and against MAISI's blended sliding window.

The network has MAISI's released sizes and random parameters; half of the volume is shifted, as soft tissue is beside
air, so that statistics of a tile are not those of the volume. Every way runs in a fresh process, which measures its
own peak memory and CPU time. All ways compute the same layers; only the tiling differs.

    python benchmarks/exactness.py                     # latent 24 x 24 x 24
    python benchmarks/exactness.py --latent 32 32 32 --threads 2 --out benchmarks/results/exactness.json
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import facts
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cardiosynth.autoencoder.networks import Autoencoder, AutoencoderSettings, build_autoencoder
from cardiosynth.autoencoder.streaming import decode, encode, plan_decode, plan_encode
from cardiosynth.core.store import write_json

SHARES = {"half": 0.5, "quarter": 0.25}
"""Ways in slabs, and their budgets as shares of what the whole volume needs."""

WAYS = ("whole", *SHARES, "window")
OVERLAP = 0.4


def main() -> None:
    """Measure every way of both halves and write the table."""
    options = _options()
    if options.way:
        _measure(options)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for half in options.halves:
            for way in WAYS:
                rows.append(_in_fresh_process(options, half, way, Path(folder)))
                print(_in_words(rows[-1]), flush=True)
    shape = {"latent": options.latent, "window": options.window, "overlap": OVERLAP, "channels": options.channels}
    write_json(options.out, {"machine": facts(), **shape, "rows": rows})
    print(f"written to {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--latent", type=int, nargs=3, default=[24, 24, 24], help="latent voxels per axis")
    parser.add_argument("--window", type=int, nargs=3, default=[16, 16, 16], help="latent voxels of a blended window")
    parser.add_argument("--channels", type=int, nargs=3, default=[64, 128, 256], help="released: 64 128 256")
    parser.add_argument("--halves", nargs="+", choices=("decode", "encode"), default=["decode", "encode"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "exactness.json")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_fresh_process(options: argparse.Namespace, half: str, way: str, folder: Path) -> dict[str, Any]:
    """Run one way in a process of its own and compare its result with the whole volume's."""
    values = {"latent": options.latent, "window": options.window, "channels": options.channels, "halves": [half]}
    words = [word for name, numbers in values.items() for word in (f"--{name}", *map(str, numbers))]
    command = [sys.executable, __file__, *words, "--threads", str(options.threads), "--way", way]
    # The C library keeps freed blocks of up to 32 MB otherwise, which hides what is in use.
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [*command, "--result", str(folder / f"{way}.npy")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found, whole = np.load(folder / f"{way}.npy"), np.load(folder / "whole.npy")
    difference = np.abs(found - whole) / np.ptp(whole)
    return {
        "half": half,
        "way": way,
        "max_difference_of_range": float(difference.max()),
        "mean_difference_of_range": float(difference.mean()),
        **json.loads(done.stdout.splitlines()[-1]),
    }


@torch.no_grad()
def _measure(options: argparse.Namespace) -> None:
    """Compute one way here, save its result and print what it took as JSON."""
    torch.set_num_threads(options.threads)
    autoencoder = _network(options.channels)
    factor, channels = (
        (1, autoencoder.latent_channels) if options.halves == ["decode"] else (autoencoder.compression, 1)
    )
    x = _two_regions((1, channels, *(factor * n for n in options.latent)))
    autoencoder.decode(torch.zeros(1, autoencoder.latent_channels, 8, 8, 8))  # loads what is loaded on first use
    Path("/proc/self/clear_refs").write_text("5")
    before, cpu, wall = _memory_gb("VmRSS"), time.process_time(), time.perf_counter()
    with FlopCounterMode(display=False) as counter:
        result = _run(options, autoencoder, x)
    measured = {
        "cpu_s": round(time.process_time() - cpu, 2),
        "wall_s": round(time.perf_counter() - wall, 2),
        "peak_gb": round(_memory_gb("VmHWM") - before, 3),
        "tflop": round(counter.get_total_flops() / 1e12, 3),
        **_planned(options, autoencoder, x),
    }
    np.save(options.result, result.numpy())
    print(json.dumps(measured))


def _run(options: argparse.Namespace, autoencoder: Autoencoder, x: Tensor) -> Tensor:
    """Return images, or latents' means."""
    decoding = options.halves[0] == "decode"
    if options.way in SHARES:
        budget_gb = SHARES[options.way] * _plan(options, autoencoder, x, None).untiled_peak_gb
        return decode(autoencoder, x, budget_gb) if decoding else encode(autoencoder, x, budget_gb)[0]
    if options.way == "window":
        from monai.inferers.inferer import SlidingWindowInferer

        window = [n * (1 if decoding else autoencoder.compression) for n in options.window]
        inferer = SlidingWindowInferer(window, overlap=OVERLAP, mode="gaussian")
        return inferer(x, autoencoder.decode if decoding else lambda part: autoencoder.encode(part)[0])
    return autoencoder.decode(x) if decoding else autoencoder.encode(x)[0]


def _planned(options: argparse.Namespace, autoencoder: Autoencoder, x: Tensor) -> dict[str, Any]:
    if options.way not in SHARES:
        return {}
    untiled_gb = _plan(options, autoencoder, x, None).untiled_peak_gb
    plan = _plan(options, autoencoder, x, SHARES[options.way] * untiled_gb)
    return {
        "planned_peak_gb": round(plan.peak_gb, 3),
        "planned_tflop": round(plan.flops / 1e12, 3),
        "slabs": plan.num_slabs,
        "plan": plan.in_words().splitlines(),
    }


def _plan(options: argparse.Namespace, autoencoder: Autoencoder, x: Tensor, budget_gb: float | None):
    plan = plan_decode if options.halves[0] == "decode" else plan_encode
    return plan(autoencoder, tuple(x.shape), budget_gb)


def _network(channels: list[int]) -> Autoencoder:
    """Return MAISI's autoencoder, every parameter drawn: kernels that keep the variance, norms around one."""
    settings = AutoencoderSettings(
        kind="maisi", channels=tuple(channels), num_res_blocks=(2, 2, 2), norm_groups=min(32, channels[0] // 2)
    )
    autoencoder = build_autoencoder(settings).eval().requires_grad_(False)
    rng = torch.Generator().manual_seed(0)
    for name, parameter in autoencoder.named_parameters():
        drawn = torch.randn(parameter.shape, generator=rng)
        if parameter.ndim > 1:
            parameter.copy_(drawn * (2 / parameter[0].numel()) ** 0.5)
        else:
            parameter.copy_(0.3 * drawn + ("norm" in name and name.endswith("weight")))
    return autoencoder


def _two_regions(shape: tuple[int, ...]) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x[:, :, shape[2] // 2 :] += 2
    return x


def _memory_gb(name: str) -> float:
    """Return VmRSS, what is in use, or VmHWM, the most since it was last cleared; Linux only."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e9


def _in_words(row: dict[str, Any]) -> str:
    return (
        f"{row['half']:6} {row['way']:8} max difference {row['max_difference_of_range']:.1e} of the range, "
        f"{row['peak_gb']:.3f} GB, {row['cpu_s']:.1f} CPU-s, {row['tflop']:.2f} TFLOP"
    )


if __name__ == "__main__":
    main()
