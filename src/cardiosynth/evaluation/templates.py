"""Whether synthetic images copy their templates: texture that they share with them, beyond what real images do.

A synthetic image is meant to take its template's contrast, and anatomy is common to all; neither is counted here, see
`metrics.copies`. An image that has copied nothing shares no more with its template than with other cases of the
template's protocol. The real image of the mask stands beside it and decides nothing: synthetic images have less noise,
and so more in common with everything.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pydantic

from cardiosynth.anatomy.alignment import Align, aligned, placed
from cardiosynth.core.case import Case
from cardiosynth.core.progress import track
from cardiosynth.core.store import fingerprint
from cardiosynth.data.dataset import Dataset
from cardiosynth.evaluation.comparison import patient
from cardiosynth.evaluation.kept import Kept, identity
from cardiosynth.evaluation.measures import NAN, shared_targets
from cardiosynth.evaluation.results import Column, Table, estimate, spread
from cardiosynth.evaluation.segmentations import finite_mean
from cardiosynth.evaluation.statistics import DRAWS, LEVEL, mean_interval
from cardiosynth.metrics.copies import common_interior, texture_correlation

MARGIN = 2
FEW_VOXELS = 100
"""Correlations of fewer are noise."""
NUM_OTHERS = 3
FEW_PATIENTS = 5
"""The interval of fewer is too narrow to decide by."""


@dataclass(frozen=True)
class Shared:
    """Texture that two images share with a template, as correlations in [-1, 1]; NaN where nothing can be compared.

    Attributes:
        synthetic: of the synthetic image and its template.
        others: of the synthetic image and other cases of the template's protocol, their mean.
        real: of the real image of its mask and the same template.
    """

    synthetic: float
    others: float = NAN
    real: float = NAN


SHARED = pydantic.TypeAdapter(Shared)


def measure_templates(synthetic: Dataset, homes: Sequence[Dataset], kept: Kept) -> list[tuple[str, Shared]]:
    """Return the patient and the shared texture of every synthetic case whose template is in one of the datasets.

    Args:
        synthetic: cases; those that name no template, or have no mask, are left out.
        homes: where templates, and the real cases of the masks, are looked for.
        kept: what is measured already.
    """
    found = []
    names = [name for name in synthetic.with_masks().case_ids if "template" in synthetic.row(name)["provenance"]]
    for case_id in track(names, "look for copied templates", len(names)):
        facts = synthetic.row(case_id)["provenance"]
        template = _home(homes, str(facts["template"]))
        if template is None:
            continue
        parents = (_home(homes, str(name)) for name in (facts.get("reference"), *facts.get("parents", ())))
        real = next((parent for parent in parents if parent is not None), None)
        beside = fingerprint([identity(dataset, [name]) for dataset, name in filter(None, (template, real))])
        key = kept.key("template", synthetic, case_id, beside=beside)
        measure = lambda own=case_id, t=template, r=real: _shared(synthetic.case(own), t, r)  # noqa: E731
        found.append((patient(synthetic, case_id), kept.value(SHARED, key, measure)))
    return found


def template_table(found: Sequence[tuple[str, Shared]]) -> Table | None:
    """Return how much texture images share with their templates; None where nothing could be compared.

    Args:
        found: patient and shared texture of every synthetic case.
    """
    own = [shared.synthetic for _, shared in found]
    if not np.isfinite(own).any():
        return None
    excess = np.array([[shared.synthetic - shared.others for _, shared in found]])
    interval = mean_interval(excess, [patient for patient, _ in found])
    known = {name for (name, _), value in zip(found, excess[0], strict=True) if np.isfinite(value)}
    columns = (
        Column(title="images"),
        Column(title="synthetic and template", better="lower", digits=3),
        Column(title="synthetic and others", digits=3),
        Column(title="difference", better="lower", digits=3, signed=True),
        Column(title="real of the mask and template", digits=3),
        Column(title="verdict"),
    )
    row = (
        "texture in common", spread(own), spread(shared.others for _, shared in found), estimate(interval),
        spread(shared.real for _, shared in found),
        _verdict(interval.low) if len(known) >= FEW_PATIENTS else "too few patients to tell",
    )  # fmt: skip
    text = (
        "Correlation of two images' voxels, each structure's mean taken away, where both masks hold the same target "
        f"structure, more than {MARGIN} voxels from any other: neither anatomy nor contrast counts, but grain, streaks "
        f"and uneven contrast do. Copies are near 1. Others: {NUM_OTHERS} cases of the template's protocol, of any "
        "where it is not known; an image that has copied nothing has as much in common with them. The real image of "
        "the mask has more noise, and so less in common with everything. "
        f"Of {len(found)} synthetic images; mean ± standard deviation over n cases. Difference: {100 * LEVEL:g} % "
        f"interval of {DRAWS} bootstrap draws of patients, seed 0."
    )
    return Table(title="Template copies", protocol=text, columns=columns, rows=(row,))


def copies_note(table: Table) -> tuple[str, ...]:
    """Return a warning where images share more with their templates than real ones do."""
    if table.rows[0][-1] != _verdict(1.0):
        return ()
    return (
        "Synthetic images have more texture in common with their templates than with other cases of the same protocol: "
        "templates are copied; see the table of template copies.",
    )


def _verdict(low: float) -> str:
    return "more than chance explains" if low > 0 else "no more than chance explains"


def _home(homes: Sequence[Dataset], name: str) -> tuple[Dataset, str] | None:
    return next(((home, name) for home in homes if name in home.rows), None)


def _shared(made: Case, template: tuple[Dataset, str], real: tuple[Dataset, str] | None) -> Shared:
    shown, facts = template[0].case(template[1]), made.provenance.get("template_alignment")
    moved = shown if facts is None else placed(shown, made, np.array(facts["matrix"]))
    asked: Align = "none" if facts is None else facts["asked"]
    shunned = {template[1], *made.provenance.get("parents", ())}
    others = (aligned(template[0].case(name), made, asked)[0] for name in others_of(*template, shunned))
    beside = NAN
    if real is not None:
        truth = real[0].case(real[1])
        beside = _texture(truth, aligned(shown, truth, asked)[0])
    return Shared(_texture(made, moved), finite_mean(_texture(made, other) for other in others), beside)


def others_of(home: Dataset, name: str, shunned: Collection[str]) -> list[str]:
    """Return the cases that follow one in its dataset, of its protocol and without ``shunned``, in a circle."""
    protocol = home.row(name)["provenance"].get("acquisition")
    at = home.case_ids.index(name)
    circle = [*home.case_ids[at:], *home.case_ids[:at]]
    alike = [other for other in circle if home.row(other)["provenance"].get("acquisition") == protocol]
    return [other for other in alike if other not in shunned][:NUM_OTHERS]


def _texture(case: Case, template: Case) -> float:
    if case.grid.shape != template.grid.shape:
        return NAN
    masks = shared_targets(case, template)
    codes = np.setdiff1d(np.unique(masks[0]), 0).tolist()
    region = common_interior([mask[0] for mask in masks], codes, MARGIN)
    if region.sum() < FEW_VOXELS:
        return NAN
    return texture_correlation(case.required_image()[0], template.required_image()[0], masks[0][0], region)
