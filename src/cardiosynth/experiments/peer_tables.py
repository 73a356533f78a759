"""Tables of a comparison of methods: quality, budget, what each is, and what the papers say."""

from collections.abc import Sequence

from cardiosynth.evaluation.results import Cell, Column, Table
from cardiosynth.evaluation.statistics import BEYOND_CHANCE
from cardiosynth.experiments.peer_columns import (
    Asked,
    Measures,
    Row,
    best_cells,
    columns_of,
    mean_or_none,
    ranks,
)
from cardiosynth.experiments.peer_plan import Budget, PeersPlan
from cardiosynth.experiments.peer_published import FCAS, FQCDM


def tables(rows: Sequence[Row], real: Measures, plan: PeersPlan, twice: bool) -> tuple[Table, ...]:
    """Return all tables.

    Args:
        rows: one at least.
        real: what was measured of the real test cases.
        plan: of the comparison.
        twice: whether there are rows with surroundings and without.
    """
    volumes = len(real["steps"][0]) == 3
    ordered = sorted(rows, key=lambda row: (row.shows_masks, not row.surroundings, row.method.told_of_template))
    published = fcas_table(ordered) if volumes else fqcdm_table(ordered)
    found = (
        quality_table(ordered, real, plan, volumes, twice),
        cost_table(ordered, plan),
        published,
        who_table(ordered),
    )
    return tuple(table for table in found if table is not None)


# ---------------------------------------------------------------------------------------------------------------
# Quality.


def quality_table(rows: Sequence[Row], real: Measures, plan: PeersPlan, volumes: bool, twice: bool) -> Table:
    """Return every row below the real cases."""
    asked, rank = columns_of(volumes, real), Column(title="mean rank", better="lower", digits=1)
    columns = (Column(title="method"), Column(title="told of"), Column(title="seeds", digits=0), rank)
    titles = [(row.method.title, _told_of(row, twice), float(len(row.each))) for row in rows]
    placed = zip(titles, ranks(rows, asked), rows, strict=True)
    shown = [(*title, found, *(one.read(row.each) for one in asked)) for title, found, row in placed]
    return Table(
        title="Methods side by side",
        protocol=_protocol(real, plan),
        columns=(*columns, *(one.column for one in asked)),
        rows=(_real_row(real, asked, rows), *shown),
        best=best_cells(rows, asked, len(columns)),
    )


def _real_row(real: Measures, asked: Sequence[Asked], rows: Sequence[Row]) -> tuple[Cell, ...]:
    halves = {
        "KID x 1000": mean_or_none(one["sets"]["KID, real halves"] for row in rows for one in row.each),
        "FID": mean_or_none(one["sets"]["FID, real halves"] for row in rows for one in row.each),
        "MS-SSIM among themselves": mean_or_none(real["likeness"]),
        "axial steps over real": 1.0,
    }
    of_masks = {one.column.title: one.read([real]) for one in asked if one.key == "dice"}
    known = halves | of_masks
    return ("real", "", None, None, *(known.get(one.column.title) for one in asked))


def _told_of(row: Row, twice: bool) -> str:
    if not row.method.conditional:
        return "nothing"
    if row.method.told_of_template:
        return "mask and template"
    if not twice:
        return "mask"
    return "mask with surroundings" if row.surroundings else "mask"


def _protocol(real: Measures, plan: PeersPlan) -> str:
    cases = len(real["agreement"])
    patients = len({row["patient"] for row in real["agreement"]})
    return (
        f"{cases} real test cases of {patients} patients whom no method has seen, and an image of every method for "
        f"each of their masks. {_in_words(plan.budget)} In [0, 1] is {real['window']}. SSIM, RMSE, PSNR (range 1) and "
        "MS-SSIM: beside the real image of the mask, which whoever is told of the mask alone can only resemble. A "
        "method that is told of nothing is measured as a set only. KID x 1000 and FID: features of "
        f"{real['features']}, trained on the validation patients, mean over planes; FID of as many images as half of "
        "the test patients have, beside that of the other half. Dice: of the masks with what segmenters find that "
        "learned from the validation patients and the other half of the test patients. Axial steps: mean difference of "
        "neighboring axial slices, over that of real images; above 1 where slices do not meet, below where images are "
        "smooth. Near copies: nearer to a training image than the 5th percentile of test images are. Brackets: 95 % "
        "bootstrap intervals over seeds and patients. Mean rank: over similarity, Dice, KID and FID, of methods "
        f"without masks over the last two. Best: {BEYOND_CHANCE}; cases of a patient are one."
    )


def _in_words(budget: Budget) -> str:
    parts = [f"{budget.steps} optimizer steps"] if budget.steps else []
    parts += [f"{budget.seconds:g} seconds"] if budget.seconds else []
    return (
        f"Every training: {' or '.join(parts)} in all stages together." if parts else "Every training: its own steps."
    )


# ---------------------------------------------------------------------------------------------------------------
# Budget, and what the methods are.


def cost_table(rows: Sequence[Row], plan: PeersPlan) -> Table:
    """Return what every training took, means over seeds."""
    columns = (
        Column(title="method"), Column(title="row"), Column(title="optimizer steps", digits=0),
        Column(title="training", unit="s", digits=0), Column(title="weights, millions", digits=2),
        Column(title="peak memory", unit="GB", digits=2), Column(title="making one case", unit="s", digits=1),
    )  # fmt: skip
    lines = []
    for row in rows:
        costs = list(row.costs.values())
        of = {key: mean_or_none(one.get(key) for one in costs) for key in costs[0]}
        millions = None if of["weights"] is None else of["weights"] / 1e6
        numbers = (of["steps"], of["seconds"], millions, of["peak_memory_gb"], of["seconds_per_case"])
        lines.append((row.method.title, row.name, *numbers))
    protocol = (
        f"{_in_words(plan.budget)} Seconds of training: of the processor over all its threads, or of the clock on a "
        "GPU; of making a case: of the clock. Weights: of the networks that make images, without opponents. Peak "
        "memory: of the whole program while it trained, or of the tensors on a GPU."
    )
    return Table(title="What it took", protocol=protocol, columns=columns, rows=tuple(lines))


def who_table(rows: Sequence[Row]) -> Table:
    """Return where methods come from and what differs from the official ones."""
    columns = (Column(title="method"), Column(title="of"), Column(title="makes"), Column(title="what differs"))
    methods = {row.method.name: row.method for row in rows}.values()
    lines = tuple((m.title, m.citation, "volumes" if m.spatial_dims == 3 else "slices", m.footnote) for m in methods)
    text = "No code is taken from official repositories; numbers of a compact re-implementation are not the official's."
    return Table(title="The methods", protocol=text, columns=columns, rows=lines)


# ---------------------------------------------------------------------------------------------------------------
# What the papers say.


def fcas_table(rows: Sequence[Row]) -> Table | None:
    """Return FCaS's Table 1 of the methods that are here; None where none is in it."""
    columns = (
        Column(title="method"), Column(title="row"), Column(title="SSIM", better="higher", digits=4),
        Column(title="RMSE", better="lower", digits=4), Column(title="LPIPS", better="lower", digits=4),
        Column(title="FID", better="lower", digits=4),
    )  # fmt: skip
    lines = tuple((row.method.title, row.name, *FCAS[row.name]) for row in rows if row.name in FCAS)
    text = (
        "FCaS, Table 1: ImageCAS, 750 masks, official implementations at their own sizes. Other cases, features and "
        "budgets than ours: only the order of methods can be compared."
    )
    return Table(title="Published: FCaS, Table 1", protocol=text, columns=columns, rows=lines) if lines else None


def fqcdm_table(rows: Sequence[Row]) -> Table | None:
    """Return FQCDM's Tables 1 to 3 of the methods that are here; None where none is in them."""
    columns = (
        Column(title="method"), Column(title="data"), Column(title="PSNR", unit="dB", better="higher"),
        Column(title="MS-SSIM", unit="%", better="higher"), Column(title="FID", better="lower"),
    )  # fmt: skip
    names = list(dict.fromkeys(row.method.name for row in rows))
    titles = {row.method.name: row.method.title for row in rows}
    lines = tuple((titles[name], data, *of[name]) for data, of in FQCDM.items() for name in names if name in of)
    text = (
        "FQCDM, Tables 1 to 3. Of which images its PSNR and MS-SSIM are, the paper does not say; values of 30 dB and "
        "more are those of reconstructions. Measured here are images made for masks."
    )
    return Table(title="Published: FQCDM, Tables 1 to 3", protocol=text, columns=columns, rows=lines) if lines else None
