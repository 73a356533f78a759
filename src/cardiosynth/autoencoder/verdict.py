"""What an autoencoder keeps: measured on whole cases, in image units, before anything is trained on its latents.

Thin vessels that the autoencoder loses never come back, so this is the ceiling of all that follows.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from scipy import ndimage

from cardiosynth.autoencoder.codebook import code_usage
from cardiosynth.autoencoder.codec import Codec, load_codec, stage_folder
from cardiosynth.autoencoder.sheet import verdict_sheet
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.intensity import Window
from cardiosynth.core.labels import normalized_name
from cardiosynth.core.picture import save_png
from cardiosynth.core.store import latest_checkpoint, read_json, write_json
from cardiosynth.metrics.fidelity import contrast_kept, mean_hu_error, psnr, structure_psnr

VERDICT_CASES = 8
"""Cases that a verdict is given on at most."""

PICTURED_CASES = 2
"""Of these, those that are drawn."""

Reconstruct = Callable[[Case], np.ndarray]
"""case -> its image after encoding and decoding, (1, *grid), in the case's unit."""


class ContrastThreshold(Settings):
    """The smallest share of its contrast that a structure must keep.

    Attributes:
        name: of a target structure.
        kept: 1 is all of it.
    """

    name: str
    kept: float


class VerdictThresholds(Settings):
    """What an autoencoder must keep before anything is trained on its latents. Nothing by default.

    What the verdict cannot tell, for want of masks or of the structure, is passed over.

    Attributes:
        psnr_db: over whole images.
        psnr_heart_db: in target structures.
        contrast: one threshold per structure.
    """

    psnr_db: float | None = None
    psnr_heart_db: float | None = None
    contrast: tuple[ContrastThreshold, ...] = ()


PER_STRUCTURE = ("psnr_structure_db", "hu_bias", "contrast_kept")


def verdict(reconstruct: Reconstruct, window_of: Callable[[Case], Window], cases: Iterable[Case]) -> dict[str, Any]:
    """Return what is left of ``cases`` after the autoencoder, averaged over them.

    The image is compared inside the intensity window, which the autoencoder cannot leave.

    Args:
        reconstruct: the autoencoder, from case to image.
        window_of: the intensity window of a case.
        cases: with images; masks are used where there are any.

    Returns:
        JSON-like: ``cases`` (names), ``psnr_db``, ``psnr_heart_db`` (target structures widened by one voxel),
        ``psnr_structure_db``, ``hu_bias`` and ``contrast_kept`` (each name -> mean over the cases where the structure
        shows). What no case can tell is None. For MR the bias is in the scan's own unit.
    """
    rows = [_judge(case, reconstruct(case), window_of(case)) for case in cases]
    names = {name: None for row in rows for name in row["hu_bias"]}
    return {
        "cases": [row["case"] for row in rows],
        "psnr_db": _mean(row["psnr_db"] for row in rows),
        "psnr_heart_db": _mean(row["psnr_heart_db"] for row in rows),
        **{key: {name: _mean(row[key].get(name) for row in rows) for name in names} for key in PER_STRUCTURE},
    }


def judge(codec: Codec, cases: Iterable[Case], folder: Path, held_out: bool | None) -> dict[str, Any]:
    """Judge an autoencoder on the first of ``cases``; write ``folder/verdict.json`` and, to look at, ``verdict.png``.

    Args:
        codec: the autoencoder.
        cases: with images.
        folder: the stage's folder.
        held_out: whether these cases were kept from its training; None where nobody knows.

    Returns:
        What ``verdict`` returns, ``held_out``, the ``fingerprint`` of the weights, and, where latents are quantized,
        ``codes`` (see `codes_met`).
    """
    seen = list(islice(cases, VERDICT_CASES))
    found = verdict(codec.reconstruct, codec.window_of, seen)
    found = {"held_out": held_out, "fingerprint": codec.fingerprint} | found | codes_met(codec, seen)
    save_png(verdict_sheet(codec.reconstruct, seen[:PICTURED_CASES]), folder / "verdict.png")
    write_json(folder / "verdict.json", found)
    return found


def codes_met(codec: Codec, cases: Iterable[Case]) -> dict[str, Any]:
    """Return which codes all cases together meet: under ``codes`` the ``count``, how many are ``met`` and the
    ``perplexity``; nothing where there is no codebook.
    """
    codebook = codec.autoencoder.codebook
    if codebook is None:
        return {}
    indices = [codec.nearest_codes(codec.encode_case(case)[0]).flatten() for case in cases]
    count = len(codebook.codes)
    usage = code_usage(torch.cat(indices), count)
    met, perplexity = round(count * float(usage["codes_met"])), float(usage["perplexity"])
    return {"codes": {"count": count, "met": met, "perplexity": perplexity}}


def read_verdict(run: Path, cases: Iterable[Case], device: str = "cpu") -> dict[str, Any]:
    """Return the verdict on a run's autoencoder; where there is none, as for imported weights, judge it now.

    Args:
        run: a run's folder, its autoencoder folder, or one checkpoint.
        cases: with images, to judge it on where need be.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: no autoencoder, or cases that do not suit it.
    """
    codec, folder = load_codec(run, device), latest_checkpoint(stage_folder(Path(run))).parent
    found = read_json(folder / "verdict.json") if (folder / "verdict.json").exists() else {}
    if found.get("fingerprint") == codec.fingerprint:
        return found
    return judge(codec, cases, folder, held_out=None)


def _judge(case: Case, reconstructed: Shaped[np.ndarray, "1 *grid"], window: Window) -> dict[str, Any]:
    original = np.clip(case.required_image()[0].astype(np.float32), window.low, window.high)
    image = np.clip(reconstructed[0], window.low, window.high)
    row = {"case": case.case_id, "psnr_db": psnr(image, original, window.width), "psnr_heart_db": None}
    if case.mask is None:
        return {**row, **{key: {} for key in PER_STRUCTURE}}
    mask = case.mask[0]
    heart = ndimage.binary_dilation(case.labels.only_targets(mask) > 0, np.ones((3,) * mask.ndim))
    if heart.any():
        row["psnr_heart_db"] = psnr(image[heart], original[heart], window.width)
    return {
        **row,
        "psnr_structure_db": structure_psnr(image, original, mask, case.labels.targets, window.width),
        "hu_bias": mean_hu_error(image, original, mask, case.labels.targets),
        "contrast_kept": contrast_kept(image, original, mask, case.labels.targets),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None


def shortfalls(found: dict[str, Any], wanted: VerdictThresholds) -> list[str]:
    """Return what a verdict lacks, each with its number and the threshold, in words; empty where it suffices."""
    lacking = []
    for key, where in (("psnr_db", ""), ("psnr_heart_db", " in the heart")):
        least, reached = getattr(wanted, key), found[key]
        if least is not None and reached is not None and reached < least:
            lacking.append(f"it reaches {reached:.1f} dB{where} ({least:g} wanted)")
    for threshold in wanted.contrast:
        kept = found["contrast_kept"].get(normalized_name(threshold.name))
        if kept is not None and kept < threshold.kept:
            lacking.append(f"{threshold.name} keeps {kept:.2f} of its contrast ({threshold.kept:g} wanted)")
    return lacking


def in_words(found: dict[str, Any]) -> str:
    """Return a verdict as a person reads it, one aligned line per structure."""
    kind = {True: "held-out cases", False: "cases of its training", None: "cases of this dataset"}[found["held_out"]]
    whole, heart = _shown(found["psnr_db"], ".1f"), _shown(found["psnr_heart_db"], ".1f")
    lines = [
        f"autoencoder {found['fingerprint']} on {len(found['cases'])} {kind}: PSNR {whole} dB, in the heart {heart} dB"
    ]
    if codes := found.get("codes"):
        met, perplexity = f"{codes['met']} of {codes['count']}", f"{codes['perplexity']:.0f}"
        lines.append(f"  codes met: {met}, as many as {perplexity} met alike")
    if found["contrast_kept"]:
        lines.append(f"  {'':27} {'PSNR dB':>8} {'HU bias':>8} {'contrast kept':>14}")
    for name, kept in found["contrast_kept"].items():
        error, bias = found["psnr_structure_db"][name], found["hu_bias"][name]
        lines.append(f"  {name:27} {_shown(error, '.1f'):>8} {_shown(bias, '+.0f'):>8} {_shown(kept, '.2f'):>14}")
    return "\n".join(lines)


def _shown(value: float | None, digits: str) -> str:
    return "-" if value is None else format(value, digits)
