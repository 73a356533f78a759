"""The study of confidence maps as Markdown tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cardiosynth.autoencoder.networks import build_autoencoder
from cardiosynth.autoencoder.streaming import plan_decode
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.evaluation.confidence import EVERYWHERE, HEART
from cardiosynth.evaluation.statistics import Interval, mean_interval
from cardiosynth.experiments.markdown import head, line
from cardiosynth.recipes.demand import sampling_demand
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.sampling.confidence import ConfidenceSettings

Rows = Sequence[Sequence[dict[str, Any]]]
"""By seed, by case: ``maps`` (map -> region -> measure -> value) and ``cpu_s``; the same cases under every seed."""

MEASURES = {
    "spearman": "HU: Spearman", "partial": "given the gradient", "sparsification": "HU: area to the oracle",
    "auroc": "label: AUROC", "sparsification_labels": "label: area to the oracle",
}  # fmt: skip
AGAINST = "gradient"


def tables(rows: Rows) -> str:
    """Return heart, everywhere, each map beside the gradient, and the structures, as Markdown."""
    titles = {HEART: "Heart", EVERYWHERE: "Everywhere"}
    parts = [
        f"{len(rows)} seeds, {len(rows[0])} cases each; mean (95 % interval over seeds and cases).",
        *(f"{title}:\n\n{region_table(rows, region)}" for region, title in titles.items()),
        f"Structures, Spearman with the error in HU / AUROC of wrong labels:\n\n{structure_table(rows)}",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def region_table(rows: Rows, region: str) -> str:
    """Return all measures of every map in one region, and how much better than the gradient it is."""
    columns = [*MEASURES.values(), "Spearman over gradient's", "AUROC over gradient's", "CPU s more"]
    text = head("map", *columns)
    for name in rows[0][0]["maps"]:
        cells = [_shown(mean_interval(values(rows, name, region, measure))) for measure in MEASURES]
        for measure in ("spearman", "auroc"):
            ahead = values(rows, name, region, measure) - values(rows, AGAINST, region, measure)
            cells.append("-" if name == AGAINST else _shown(mean_interval(ahead), sign=True))
        cells.append(f"{_seconds(rows, name) - _seconds(rows, ''):.1f}" if name in rows[0][0]["cpu_s"] else "0")
        text.append(line(name, *cells))
    return "\n".join(text)


def structure_table(rows: Rows) -> str:
    """Return Spearman and AUROC by structure and map."""
    regions = [name for name in rows[0][0]["maps"][AGAINST] if name not in (HEART, EVERYWHERE)]
    text = head("map", *(region.replace("_", " ") for region in regions))
    for name in rows[0][0]["maps"]:
        pairs = [[mean_interval(values(rows, name, r, m)).value for m in ("spearman", "auroc")] for r in regions]
        text.append(line(name, *(f"{_number(a)} / {_number(b)}" for a, b in pairs)))
    return "\n".join(text)


def cost_table(maps: Mapping[str, ConfidenceSettings], recipes: Sequence[FcasRecipe]) -> str:
    """Return the operations that every map adds to the synthesis of one case, as Markdown.

    Every k-th step is looked at as each recipe's own map has it.
    """
    heads = [f"{recipe.name}, {' x '.join(map(str, recipe.grid.shape))}" for recipe in recipes]
    text = head("operations more than without a map", *heads)
    shares = [added_flops(maps, recipe) for recipe in recipes]
    text += [line(name, *(f"{100 * share[name]:.1f} %" for share in shares)) for name in maps]
    return "\n".join(text)


def added_flops(maps: Mapping[str, ConfidenceSettings], recipe: FcasRecipe) -> dict[str, float]:
    """Return by map what it adds to a case's floating-point operations, as a share of those without a map."""
    with torch.device("meta"):
        autoencoder = build_autoencoder(recipe.autoencoder.network, labels=CARDIAC_CT)
    latent = tuple(n // autoencoder.compression for n in recipe.grid.shape)
    decode = plan_decode(autoencoder, latent, None, torch.bfloat16).untiled_flops
    without = recipe.model_copy(update={"sampler": recipe.sampler.model_copy(update={"confidence": None})})
    found = sampling_demand(without, gpu=True)
    step = found.evaluations // recipe.sampler.steps * found.step.flops
    plain = found.embeddings * found.embedding.flops + found.evaluations * found.step.flops + decode
    shares = {}
    for name, settings in maps.items():
        own, steps = recipe.sampler.confidence or settings, recipe.sampler.steps
        asked = settings.model_copy(update={"interval": own.interval})
        more = asked.num_embeddings(steps) * found.embeddings * found.embedding.flops
        shares[name] = (more + asked.num_steps(steps) * step + asked.num_decodes(steps) * decode) / plain
    return shares


def values(rows: Rows, name: str, region: str, measure: str) -> np.ndarray:
    """Return one measure of one map as (seeds, cases); NaN where there was nothing to measure."""
    found = [[case["maps"][name].get(region, {}).get(measure) for case in cases] for cases in rows]
    return np.array([[np.nan if value is None else value for value in cases] for cases in found], np.float64)


def _seconds(rows: Rows, name: str) -> float:
    return float(np.mean([case["cpu_s"][name] for cases in rows for case in cases if name in case["cpu_s"]]))


def _shown(found: Interval, *, sign: bool = False) -> str:
    if np.isnan(found.value):
        return "-"
    mark = "+" if sign else ""
    return f"{found.value:{mark}.3f} ({found.low:{mark}.3f} to {found.high:{mark}.3f})"


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"
