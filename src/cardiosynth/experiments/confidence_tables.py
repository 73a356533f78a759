"""The study of confidence maps in tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cardiosynth.autoencoder.networks import build_autoencoder
from cardiosynth.autoencoder.streaming import plan_decode
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.evaluation.confidence import EVERYWHERE, HEART
from cardiosynth.evaluation.results import BarGroup, BarsFigure, Cell, Column, Results, Table, estimate
from cardiosynth.evaluation.statistics import mean_interval
from cardiosynth.recipes.demand import sampling_demand
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.sampling.confidence import ConfidenceSettings

Rows = Sequence[Sequence[dict[str, Any]]]
"""By seed, by case: ``maps`` (map -> region -> measure -> value) and ``cpu_s``; the same cases under every seed."""

MEASURES = {
    "spearman": Column(title="HU: Spearman", better="higher", digits=3),
    "partial": Column(title="given the gradient", better="higher", digits=3),
    "sparsification": Column(title="HU: area to the oracle", better="lower", digits=3),
    "auroc": Column(title="label: AUROC", better="higher", digits=3),
    "sparsification_labels": Column(title="label: area to the oracle", better="lower", digits=3),
}  # fmt: skip
AGAINST = "gradient"


def confidence_results(rows: Rows, costs: Mapping[str, ConfidenceSettings], recipes: Sequence[FcasRecipe]) -> Results:
    """Return heart, everywhere, each map beside the gradient, the structures, and what maps cost."""
    said = f"{len(rows)} seeds, {len(rows[0])} cases each; means with 95 % intervals over seeds and cases."
    titles = {HEART: "In the heart", EVERYWHERE: "Everywhere"}
    tables = (
        *(region_table(rows, region, title, said) for region, title in titles.items()),
        structure_table(rows, said), cost_table(costs, recipes),
    )  # fmt: skip
    shown = {name: estimate(mean_interval(values(rows, name, HEART, "spearman"))) for name in rows[0][0]["maps"]}
    chart = BarsFigure(
        title="How well a map ranks the errors", caption=f"{said} Spearman's correlation with the error in HU, heart.",
        measure="Spearman", groups=(BarGroup(name="heart", values={**shown}),),
    )  # fmt: skip
    return Results(title="Confidence", summary=said, tables=tables, figures=(chart,))


def region_table(rows: Rows, region: str, title: str, said: str) -> Table:
    """Return all measures of every map in one region, and how much better than the gradient it is."""
    cells: list[tuple[Cell, ...]] = []
    for name in rows[0][0]["maps"]:
        found = [estimate(mean_interval(values(rows, name, region, measure))) for measure in MEASURES]
        for measure in ("spearman", "auroc"):
            ahead = values(rows, name, region, measure) - values(rows, AGAINST, region, measure)
            found.append(None if name == AGAINST else estimate(mean_interval(ahead)))
        seconds = _seconds(rows, name) - _seconds(rows, "") if name in rows[0][0]["cpu_s"] else 0.0
        cells.append((name, *found, seconds))
    columns = (
        Column(title="map"), *MEASURES.values(),
        *(Column(title=f"{x} over gradient's", better="higher", digits=3, signed=True) for x in ("Spearman", "AUROC")),
        Column(title="CPU time more", unit="s", better="lower", digits=1),
    )  # fmt: skip
    protocol = (
        f"{said} Two truths: the error in HU beside the real image, and where a segmenter disagrees with the mask. A "
        "map that beats neither the gradient nor the borders says nothing that needs a generator."
    )
    return Table(title=title, protocol=protocol, columns=columns, rows=tuple(cells))


def structure_table(rows: Rows, said: str) -> Table:
    """Return Spearman and AUROC by structure and map."""
    regions = [name for name in rows[0][0]["maps"][AGAINST] if name not in (HEART, EVERYWHERE)]
    cells: list[tuple[Cell, ...]] = []
    for name in rows[0][0]["maps"]:
        pairs = (mean_interval(values(rows, name, r, m)).value for r in regions for m in ("spearman", "auroc"))
        cells.append((name, *(None if np.isnan(value) else value for value in pairs)))
    titles = (f"{region.replace('_', ' ')}, {m}" for region in regions for m in ("Spearman", "AUROC"))
    columns = (Column(title="map"), *(Column(title=title, better="higher") for title in titles))
    protocol = f"{said} Spearman: with the error in HU; AUROC: of wrong labels."
    return Table(title="By structure", protocol=protocol, columns=columns, rows=tuple(cells))


def cost_table(maps: Mapping[str, ConfidenceSettings], recipes: Sequence[FcasRecipe]) -> Table:
    """Return the operations that every map adds to the synthesis of one case.

    Every k-th step is looked at as each recipe's own map has it.
    """
    shares = [added_flops(maps, recipe) for recipe in recipes]
    titles = (f"{recipe.name}, {' x '.join(map(str, recipe.grid.shape))}" for recipe in recipes)
    columns = (Column(title="map"), *(Column(title=x, unit="%", better="lower", digits=1) for x in titles))
    rows = tuple((name, *(100 * share[name] for share in shares)) for name in maps)
    protocol = "Counted, not timed: floating-point operations beyond those of a case without a map."
    return Table(title="What a map costs", protocol=protocol, columns=columns, rows=rows)


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
