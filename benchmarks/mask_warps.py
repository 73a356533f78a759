"""New masks at paper size: ours, and the nearest elastic warps of MONAI and TorchIO, which keep no topology.

One phantom with nine target structures. Every way runs in a fresh process, which measures its own peak memory, CPU and
wall time; reading the mask is not timed. The deformations are drawn from ranges of the same size, not alike. TorchIO is
no dependency of ours and is left out where it is not installed.

    python benchmarks/mask_warps.py                        # 512 x 512 x 256 voxels of 0.35 x 0.35 x 0.5 mm
    python benchmarks/mask_warps.py --threads 2 --out benchmarks/results/mask_warps.json
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import facts

from cardiosynth.anatomy.masks import MaskSettings, make_mask
from cardiosynth.core.case import Case
from cardiosynth.core.labels import CARDIAC_CT, LabelTable
from cardiosynth.core.store import write_json
from cardiosynth.data.sources.phantom.source import phantom
from cardiosynth.metrics.topology import components

WAYS = ("ours", "monai", "torchio")
NINTH = "descending_aorta"
"""Beside the eight targets of the default table, so that nine labels are carried."""


def main() -> None:
    """Measure every way and write the table."""
    options = _options()
    if options.way:
        _measure(options)
        return
    ways = [way for way in WAYS if way == "ours" or importlib.util.find_spec(way)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mask.npz"
        case = phantom(0, options.shape, tuple(options.spacing_mm))
        np.savez(file, mask=_with_ninth(case).only_targets(case.required_mask()), affine=case.affine)
        del case
        for way in ways:
            rows.append(_in_fresh_process(options, way, file))
            print(json.dumps(rows[-1]), flush=True)
    left_out = [way for way in WAYS if way not in ways]
    found = {"machine": facts(), "shape": options.shape, "spacing_mm": options.spacing_mm, "not_installed": left_out}
    write_json(options.out, {**found, "rows": rows})
    print(f"written to {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 512, 256])
    parser.add_argument("--spacing-mm", type=float, nargs=3, default=[0.35, 0.35, 0.5])
    parser.add_argument("--toy", action="store_true", help="48 voxels per axis, to test the benchmark itself")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "mask_warps.json")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--mask", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.toy:
        options.shape, options.spacing_mm = [48] * 3, [2.4] * 3
    return options


def _with_ninth(case: Case) -> LabelTable:
    labels = (x.model_copy(update={"role": "target"}) if x.name == NINTH else x for x in case.labels)
    return LabelTable(labels=tuple(labels))


def _in_fresh_process(options: argparse.Namespace, way: str, mask: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--way", way, "--mask", str(mask), "--threads", str(options.threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {"way": way, **json.loads(done.stdout.splitlines()[-1])}


def _measure(options: argparse.Namespace) -> None:
    """Make one mask here and print what it took and what it kept as JSON."""
    torch.set_num_threads(options.threads)
    with np.load(options.mask) as stored:
        case = Case(case_id="phantom", image=None, mask=stored["mask"], affine=stored["affine"])
    case = case.with_(labels=_with_ninth(case))
    warp = {"ours": _ours, "monai": _monai, "torchio": _torchio}[options.way](case)
    Path("/proc/self/clear_refs").write_text("5")
    before, cpu, wall = _memory_gb("VmRSS"), time.process_time(), time.perf_counter()
    made, drawn = warp()
    taken = {
        "wall_s": round(time.perf_counter() - wall, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_gb": round(_memory_gb("VmHWM"), 2),
        "peak_gb_beyond_the_mask": round(_memory_gb("VmHWM") - before, 2),
    }
    codes = [int(code) for code in np.unique(case.required_mask()) if code]
    names = {label.code: label.name for label in CARDIAC_CT}
    pieces = {names[c]: [components(mask == c).count for mask in (case.required_mask()[0], made)] for c in codes}
    print(json.dumps({**taken, "labels": len(codes), "pieces_before_and_after": pieces, **drawn}))


Warp = Callable[[], tuple[np.ndarray, dict[str, Any]]]


def _ours(case: Case) -> Warp:
    def warp() -> tuple[np.ndarray, dict[str, Any]]:
        made = make_mask(case, 0, 0, MaskSettings())
        return made.required_mask()[0], {"draws": made.provenance["mask"]["attempts"]}

    return warp


def _monai(case: Case) -> Warp:
    """Return MONAI's elastic warp: a blurred random field of 8 mm at most about, rotation and scale as ours."""
    from monai.transforms.spatial.array import Rand3DElastic

    settings, voxel_mm = MaskSettings(), float(np.mean(case.grid.spacing_mm))
    sigma = 8 / voxel_mm
    # White noise in [-1, 1] blurred by sigma has a deviation of 0.577 / (2 sqrt(pi) sigma)^1.5.
    magnitude = 3 / voxel_mm / (0.577 / (2 * np.sqrt(np.pi) * sigma) ** 1.5)
    turn = float(np.radians(settings.rotation_deg))
    warp = Rand3DElastic(
        (sigma, sigma), (magnitude, magnitude), prob=1, rotate_range=(turn,) * 3, scale_range=(settings.scale,) * 3,
        shear_range=(settings.shear,) * 6, mode="nearest", padding_mode="border",
    )  # fmt: skip
    warp.set_random_state(0)
    mask = case.required_mask()
    return lambda: (np.asarray(warp(torch.from_numpy(mask)))[0].astype(np.uint8), {})


def _torchio(case: Case) -> Warp:
    """Return TorchIO's elastic warp: cubic splines over seven control points per axis, 8 mm at most."""
    import torchio  # pyright: ignore[reportMissingImports]

    settings = MaskSettings()
    torch.manual_seed(0)
    affine = torchio.RandomAffine(scales=settings.scale, degrees=settings.rotation_deg)
    elastic = torchio.RandomElasticDeformation(num_control_points=7, max_displacement=settings.amplitude_mm[1])
    label = torchio.LabelMap(tensor=torch.from_numpy(case.required_mask()), affine=case.affine)
    return lambda: (elastic(affine(label)).numpy()[0].astype(np.uint8), {})


def _memory_gb(key: str) -> float:
    found = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{key}:"))
    return int(found.split()[1]) / 1e6


if __name__ == "__main__":
    main()
