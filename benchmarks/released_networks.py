"""MAISI's networks at their released sizes on the CPU: ours against MONAI's classes, the same weights and noise.

Ours embeds the condition once and decodes exactly. MONAI's ControlNet embeds it in every step, and its decoder runs
through MAISI's sliding window, which holds a latent of 16 or 32 voxels a side in one window. Every parameter is random.
Both take turns in one process (A B A B ...); medians are written, and how far the images are apart.

    python benchmarks/released_networks.py --sides 64 128 --repeats 3 --threads 2
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from machine import facts
from monai.inferers.inferer import SlidingWindowInferer
from pairs import (
    SPACING_MM,
    TOY,
    Reference,
    Sizes,
    denoised,
    our_autoencoder,
    our_denoiser,
    random_condition,
    reference_autoencoder,
)
from pairs import raw as raw_channels
from torch import Tensor

from cardiosynth.core.store import write_json
from cardiosynth.diffusion.unet import chest_ct

WINDOW = (80, 80, 64)
"""Latent voxels of MAISI's window, cut to the volume."""
OVERLAP = 0.4
Run = Callable[[], tuple[Tensor, dict[str, float]]]
"""Makes an image, and says how long its parts took."""


def main(words: Sequence[str] | None = None) -> None:
    """Measure every size and write the table."""
    options = _options(words)
    torch.set_num_threads(options.threads)
    sizes = TOY if options.toy else Sizes()
    rows = []
    for side in options.sides:
        rows.append(measure(sizes, side, options.steps, options.repeats))
        print(_in_words(rows[-1]), flush=True)
        write_json(options.out, {"machine": facts(), "steps": options.steps, "toy": options.toy, "rows": rows})


@torch.inference_mode()
def measure(sizes: Sizes, side: int, steps: int, repeats: int) -> dict[str, Any]:
    """Return medians in seconds and differences relative to the reference image's range."""
    denoiser, autoencoder = our_denoiser(sizes), our_autoencoder(sizes)
    reference = Reference(denoiser).eval()
    codec = reference_autoencoder(autoencoder, sizes, num_splits=1, norm_float16=False)
    condition = random_condition((side,) * 3)
    noise = torch.randn((1, 4, *[side // 4] * 3), generator=torch.Generator().manual_seed(3))
    told = chest_ct(torch.tensor([SPACING_MM]))
    window = [min(side // 4, n) for n in WINDOW]
    inferer = SlidingWindowInferer(window, sw_batch_size=1, overlap=OVERLAP, mode="gaussian")

    def ours() -> tuple[Tensor, dict[str, float]]:
        start = time.perf_counter()
        embedding = denoiser.embed(condition)
        z = denoised(lambda x, t: denoiser(x, t, embedding, told), noise, steps)
        middle = time.perf_counter()
        return autoencoder.decode(z), _parts(start, middle)

    def theirs() -> tuple[Tensor, dict[str, float]]:
        start = time.perf_counter()
        channels = raw_channels(condition)
        z = denoised(lambda x, t: reference(x, t, channels), noise, steps)
        middle = time.perf_counter()
        return torch.as_tensor(inferer(z, codec.decode)), _parts(start, middle)

    def ours_bfloat16() -> tuple[Tensor, dict[str, float]]:
        with torch.autocast("cpu", torch.bfloat16):
            return ours()

    ways: dict[str, Run] = {"monai": theirs, "ours": ours, "ours_bf16": ours_bfloat16}
    return {"side": side, **_in_turns(ways, repeats)}


def _parts(start: float, middle: float) -> dict[str, float]:
    # The second part's own end is the moment when the dictionary is made, after the decoder has returned.
    end = time.perf_counter()
    return {"denoise_s": middle - start, "decode_s": end - middle, "total_s": end - start}


def _in_turns(ways: dict[str, Run], repeats: int) -> dict[str, Any]:
    times: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    images = {}
    for _ in range(repeats):
        for name, way in ways.items():
            images[name], parts = way()
            times[name].append(parts)
    found = {
        name: {part: statistics.median(row[part] for row in rows) for part in rows[0]} for name, rows in times.items()
    }
    first = images["monai"].float()
    extent = float(first.max() - first.min())
    differences = {name: float((image.float() - first).abs().max()) / extent for name, image in images.items()}
    speedup = found["monai"]["total_s"] / found["ours"]["total_s"]
    return {"seconds": found, "difference": differences, "speedup": speedup}


def _in_words(row: dict[str, Any]) -> str:
    lines = [f"{row['side']}^3 voxels: {row['speedup']:.2f} times faster"]
    for name, parts in row["seconds"].items():
        shown = ", ".join(f"{part.removesuffix('_s')} {value:.2f} s" for part, value in parts.items())
        lines.append(f"  {name}: {shown}; difference {row['difference'][name]:.1e} of the range")
    return "\n".join(lines)


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128], help="voxels per axis")
    parser.add_argument("--steps", type=int, default=5, help="denoising steps")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each way")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--toy", action="store_true", help="small networks, to test this script")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "released_networks.json")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
