"""The published size on one GPU: 512 x 512 x 256 voxels in 30 steps, and a ControlNet training step at 512 x 512 x 128.

Two operating points of synthesis: *fast*, where memory is free, and *16 GB*. The image and the latent confidence (the
spread of the predictions in latent space, which needs no decoding) are timed together; the decoded confidence beside
it, with its number of decodes. The reference is MONAI's classes as they are shipped: norm_float16, num_splits 4, a
window of 80 x 80 x 64 latents at overlap 0.4, float16 autocast, the stem in every step. Every parameter is random.

Each result is written as soon as it is measured, so a run that is cut short leaves something. Beyond torch it needs
monai, einops, numpy, scipy, pydantic, pyyaml, jaxtyping, safetensors, nibabel, rich and this package, nothing from the
network.

    python benchmarks/gpu_paper_scale.py --out results.json --minutes 8
    python benchmarks/gpu_paper_scale.py --toy --device cpu --grid 32 32 32 --training-grid 32 32 32 --steps 2
"""

import argparse
import time
import traceback
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
from torch import Tensor, nn

from cardiosynth.autoencoder.streaming import decode
from cardiosynth.core.store import write_json
from cardiosynth.diffusion.unet import TemplateUNet, chest_ct

FLOOR_S = 0.72
"""Of 30 steps and one decode on an H200: counted operations at its peak."""
WINDOW, OVERLAP = (80, 80, 64), 0.4


class Bench:
    """Runs measurements one after the other until the time is up, and keeps the file of results current."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.device = options, torch.device(options.device)
        self.sizes = TOY if options.toy else Sizes()
        self.grid, self.training_grid = tuple(options.grid), tuple(options.training_grid)
        self.ends = time.monotonic() + 60 * options.minutes
        shapes = {"grid": self.grid, "training_grid": self.training_grid, "steps": options.steps, "floor_s": FLOOR_S}
        self.results: dict[str, Any] = {"machine": facts(), "toy": options.toy, **shapes, "measured": {}}

    def measure(self, name: str, work: Callable[[], Any], repeats: int = 2) -> None:
        """Time ``work`` after one warm-up, with its peak memory; a failure is a result too."""
        if time.monotonic() > self.ends:
            found: dict[str, Any] = {"skipped": "time is up"}
        else:
            try:
                found = self._timed(work, repeats)
            except Exception as error:  # an out-of-memory error ends one measurement, not all
                found = {"failed": f"{type(error).__name__}: {error}"[:300], "where": traceback.format_exc()[-600:]}
        self.results["measured"][name] = found
        write_json(self.options.out, self.results)
        print(name, {key: value for key, value in found.items() if key != "where"}, flush=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _timed(self, work: Callable[[], Any], repeats: int) -> dict[str, Any]:
        cuda = self.device.type == "cuda"
        warm_up = self._seconds(work)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = [self._seconds(work) for _ in range(repeats)]
        peak_gb = torch.cuda.max_memory_allocated() / 1e9 if cuda else None
        return {"seconds": min(seconds), "all": seconds, "warm_up_s": warm_up, "peak_gb": peak_gb}

    def _seconds(self, work: Callable[[], Any]) -> float:
        start = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def main(words: Sequence[str] | None = None) -> None:
    """Measure ours, then the reference, first synthesis, then training."""
    bench = Bench(_options(words))
    denoiser = our_denoiser(bench.sizes)
    reference = Reference(denoiser).eval()
    ours = denoiser.to(bench.device)
    with torch.no_grad():
        _synthesis(bench, ours)
        _reference_synthesis(bench, reference.to(bench.device))
    # One of both at a time, so that the other's weights are not in the peak.
    reference.cpu()
    _training(bench, ours)
    ours.cpu()
    _reference_training(bench, reference.to(bench.device))
    _conclude(bench)


def _synthesis(bench: Bench, denoiser: TemplateUNet) -> None:
    device, steps = bench.device, bench.options.steps
    autoencoder = our_autoencoder(bench.sizes).to(device, memory_format=torch.channels_last_3d)
    condition, told = random_condition(bench.grid, bench.options.device), _told(1, device)
    noise = _noise(bench.grid, 1, device)

    def latent() -> Tensor:
        with _bfloat16(device):
            embedding = denoiser.embed(condition)
            spread = _Spread()

            def predict(x: Tensor, t: Tensor) -> Tensor:
                output = denoiser(x, t, embedding, told)
                spread.add(x - t.view(-1, 1, 1, 1, 1) * output.float())
                return output

            z = denoised(predict, noise, steps)
            spread.std()
            return z

    def image(z: Tensor, budget_gb: float | None) -> Tensor:
        with _bfloat16(device):
            return autoencoder.decode(z) if budget_gb is None else decode(autoencoder, z, budget_gb)

    bench.measure("ours, condition", lambda: _embedded(denoiser, condition, device))
    bench.measure("ours, 30 steps with latent confidence", latent)
    z = noise  # costs the same to decode as what it would become
    for point, budget_gb in (("fast", None), ("16 GB", bench.options.budget_gb)):
        bench.measure(f"ours, {point}, decode", lambda budget=budget_gb: image(z, budget))
        bench.measure(f"ours, {point}, whole case", lambda budget=budget_gb: image(latent(), budget))
        decodes = -(-steps // bench.options.interval)
        name = f"ours, {point}, {decodes} decodes of a decoded confidence"
        bench.measure(name, lambda budget=budget_gb, n=decodes: _spread_of_images(image, z, budget, n), repeats=1)


def _reference_synthesis(bench: Bench, reference: Reference) -> None:
    device, cuda = bench.device, bench.device.type == "cuda"
    codec = reference_autoencoder(
        our_autoencoder(bench.sizes), bench.sizes, num_splits=4 if cuda else 1, norm_float16=cuda
    ).to(device)
    noise = _noise(bench.grid, 1, device)
    channels = raw_channels(random_condition(bench.grid, bench.options.device))
    window = [min(n // 4, size) for n, size in zip(bench.grid, WINDOW, strict=True)]
    inferer = SlidingWindowInferer(window, sw_batch_size=1, overlap=OVERLAP, mode="gaussian", sw_device=device)

    def latent() -> Tensor:
        with torch.autocast(device.type, torch.float16 if cuda else torch.bfloat16, enabled=cuda):
            return denoised(lambda x, t: reference(x, t, channels), noise, bench.options.steps)

    def image(z: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.float16 if cuda else torch.bfloat16, enabled=cuda):
            return torch.as_tensor(inferer(z, codec.decode))

    bench.measure("monai, 30 steps", latent, repeats=1)
    bench.measure("monai, decode", lambda: image(noise), repeats=1)


def _training(bench: Bench, denoiser: TemplateUNet) -> None:
    """Train our ControlNet, with the U-Net frozen, on one direction and on a pair."""
    device = bench.device
    denoiser.train().requires_grad_(True)
    denoiser.unet.requires_grad_(False)
    learning = torch.optim.AdamW([p for p in denoiser.parameters() if p.requires_grad], lr=1e-5)
    for name, count in (("one direction", 1), ("a bidirectional pair", 2)):
        condition = random_condition(bench.training_grid, bench.options.device)
        condition = type(condition)(*(torch.cat([x] * count) for x in condition))
        noise, told = _noise(bench.training_grid, count, device), _told(count, device)

        def loss(condition=condition, noise=noise, told=told, count=count) -> Tensor:
            with _bfloat16(device):
                t = torch.full((count,), 0.5, device=device)
                return (denoiser(noise, t, denoiser.embed(condition), told).float() - noise).square().mean()

        bench.measure(f"ours, training step, {name}", lambda loss=loss: _step(loss, learning), repeats=3)
    learning.zero_grad(set_to_none=True)


def _reference_training(bench: Bench, reference: Reference) -> None:
    """Train MONAI's ControlNet as MAISI's script does: float16 with a scaler, the absolute error, the U-Net frozen."""
    device, cuda = bench.device, bench.device.type == "cuda"
    reference.train().requires_grad_(True)
    reference.unet.requires_grad_(False)
    channels = raw_channels(random_condition(bench.training_grid, bench.options.device))
    noise, t = _noise(bench.training_grid, 1, device), torch.full((1,), 0.5, device=device)
    scaler = torch.amp.GradScaler(device.type, enabled=cuda)
    learning = torch.optim.AdamW(reference.control.parameters(), lr=1e-5)

    def loss() -> Tensor:
        with torch.autocast(device.type, torch.float16 if cuda else torch.bfloat16, enabled=cuda):
            return nn.functional.l1_loss(reference(noise, t, channels).float(), noise)

    def step() -> None:
        learning.zero_grad(set_to_none=True)
        scaler.scale(loss()).backward()
        scaler.step(learning)
        scaler.update()

    bench.measure("monai, training step, one direction", step, repeats=3)


def _step(loss: Callable[[], Tensor], learning: torch.optim.Optimizer) -> None:
    learning.zero_grad(set_to_none=True)
    loss().backward()
    learning.step()


def _conclude(bench: Bench) -> None:
    """Write the ratios that the goals are about, of what was measured."""
    measured = bench.results["measured"]

    def seconds(name: str) -> float:
        return measured.get(name, {}).get("seconds", float("nan"))

    reference = seconds("monai, 30 steps") + seconds("monai, decode")
    fast, small = seconds("ours, fast, whole case"), seconds("ours, 16 GB, whole case")
    step = "training step, one direction"
    ratios = {
        "fast, times the floor (goal 4)": fast / FLOOR_S,
        "16 GB, seconds (goal 8)": small,
        "fast, times faster than monai (goal 3)": reference / fast,
        "training, times the throughput of monai (goal 1.5)": seconds(f"monai, {step}") / seconds(f"ours, {step}"),
        "training, GB (goal 12)": measured.get(f"ours, {step}", {}).get("peak_gb"),
    }
    bench.results["ratios"] = {name: None if value != value else value for name, value in ratios.items()}
    write_json(bench.options.out, bench.results)
    print(bench.results["ratios"], flush=True)


class _Spread:
    """Running variance of tensors (Welford, 1962)."""

    def __init__(self):
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor) -> None:
        self.count += 1
        apart = x - self.mean.to(x.device)
        self.mean = self.mean.to(x.device) + apart / self.count
        self.squares = self.squares.to(x.device) + apart * (x - self.mean)

    def std(self) -> Tensor:
        return (self.squares / max(1, self.count - 1)).sqrt()


def _spread_of_images(image: Callable[[Tensor, float | None], Tensor], z: Tensor, budget: float | None, n: int) -> None:
    spread = _Spread()
    for _ in range(n):
        spread.add(image(z, budget))
    spread.std()


def _embedded(denoiser: TemplateUNet, condition: Any, device: torch.device) -> Tensor:
    with _bfloat16(device):
        return denoiser.embed(condition)


def _told(count: int, device: torch.device) -> Any:
    return chest_ct(torch.tensor([SPACING_MM] * count, device=device))


def _noise(grid: tuple[int, ...], count: int, device: torch.device) -> Tensor:
    return torch.randn((count, 4, *(n // 4 for n in grid)), generator=torch.Generator().manual_seed(3)).to(device)


def _bfloat16(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16)


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--grid", type=int, nargs=3, default=[512, 512, 256], help="voxels in synthesis")
    parser.add_argument("--training-grid", type=int, nargs=3, default=[512, 512, 128], help="voxels in training")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--interval", type=int, default=10, help="steps between decodes of the decoded confidence")
    parser.add_argument("--budget-gb", type=float, default=12.0, help="of decoding at 16 GB, weights beside it")
    parser.add_argument("--minutes", type=float, default=8.0, help="after these nothing new is begun")
    parser.add_argument("--toy", action="store_true", help="small networks, to test this script")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu_paper_scale.json")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
