"""The study of masks in tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.evaluation.results import Cell, Column, Spread, Table, spread

Carrying = Literal["closing", "literal", "none"]
WAYS: tuple[Carrying, ...] = get_args(Carrying)
CHAMBERS = tuple(
    CARDIAC_CT.named(name).code for name in ("left_atrium", "left_ventricle", "right_atrium", "right_ventricle")
)


def carrying_table(rows: Mapping[float, Sequence[dict[str, Any]]]) -> Table:
    """Return what first draws keep, by voxel size and way of carrying."""
    columns = (
        Column(title="first draws"),
        Column(title="coronary pieces as the source's", unit="%", better="higher", digits=0),
        Column(title="pieces whole, or cut by the view only", unit="%", better="higher", digits=0),
        Column(title="coronary pieces"), Column(title="of the source"),
        Column(title="coronary volume / (source x local Jacobian)"),
        Column(title="longest coronary path / expected"), Column(title="coronary caliber / expected"),
        Column(title="chamber Dice to a 4x supersampled warp", better="higher", digits=3),
        Column(title="within all tolerances", unit="%", better="higher", digits=0),
    )  # fmt: skip
    cells = [(f"{s:g} mm, {way}", *_kept([row[way] for row in rows[s]])) for s in rows for way in WAYS]
    counts = ", ".join(f"{len(found)} at {s:g} mm" for s, found in rows.items())
    protocol = (
        f"Phantoms, each deformed once: {counts}. Mean ± standard deviation over cases, of ratios 1 is best; shares of "
        "cases in percent. n: how many could be measured; the supersampled warp is compared chamber by chamber."
    )
    return Table(title="First draws, before any second one", protocol=protocol, columns=columns, rows=tuple(cells))


def _kept(found: Sequence[Mapping[str, Any]]) -> tuple[Cell, ...]:
    return (
        _percent(x["pieces"] == x["pieces_before"] for x in found), _percent(x["whole"] for x in found),
        spread(x["pieces"] for x in found), spread(x["pieces_before"] for x in found),
        *(_spread(x[key] for x in found) for key in ("volume_over_local_jacobian", "path", "caliber")),
        _spread(value for x in found for value in x["dice"]), _percent(not x["fault"] for x in found),
    )  # fmt: skip


def draws_table(rows: Mapping[float, Sequence[dict[str, Any]]]) -> Table:
    """Return how a user's masks come about: how often there is a second draw, and what it mends."""
    columns = (
        Column(title="voxel"), Column(title="smallest Jacobian"), Column(title="draws"),
        Column(title="at most", digits=0),
        Column(title="coronary pieces whole at last", unit="%", better="higher", digits=0),
    )  # fmt: skip
    cells: list[tuple[Cell, ...]] = [
        (
            f"{s:g} mm", min(row["smallest_jacobian"] for row in found), spread(row["draws"] for row in found),
            max(row["draws"] for row in found), _percent(row["whole_at_last"] for row in found),
        )
        for s, found in rows.items()
    ]  # fmt: skip
    protocol = (
        "As a user gets masks: a draw that breaks a tolerance is drawn anew. Mean ± standard deviation over cases."
    )
    return Table(title="With second draws", protocol=protocol, columns=columns, rows=tuple(cells))


def diversity_table(found: Mapping[str, Mapping[str, Any]], cases: int, spacing_mm: float) -> Table:
    """Return the spreads of masks, of phantoms and of their offspring."""
    first = next(iter(found.values()))
    units = {
        title: (3, "") if title.startswith("pairwise") else (0, "mm" if "path" in title else "mL") for title in first
    }
    columns = (
        Column(title="masks"), *(Column(title=name, digits=digits, unit=unit) for name, (digits, unit) in units.items())
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = [
        (group, *(x and Spread.model_validate(x) for x in row.values())) for group, row in found.items()
    ]
    protocol = (
        f"{cases} masks of {spacing_mm:g} mm voxels per group, chambers laid on each other rigidly. Mean ± "
        "standard deviation over masks, of Dice over pairs; lower Dice is more diverse."
    )
    return Table(title="Diversity", protocol=protocol, columns=columns, rows=tuple(rows))


def _percent(flags: Iterable[bool]) -> float:
    return 100 * float(np.mean(list(flags)))


def _spread(values: Iterable[float | None]) -> Spread | None:
    return spread(value for value in values if value is not None)
