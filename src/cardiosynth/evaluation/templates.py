"""Whether synthetic images copy their templates: texture that they share with them, beyond what real images do.

A synthetic image is meant to take its template's contrast, and anatomy is common to all; neither is counted here, see
`metrics.copies`. What the real image of the same mask shares with the template by chance (and by the protocol that both
may have been taken with) is what an image shares that has copied nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pydantic

from cardiosynth.anatomy.alignment import aligned, placed
from cardiosynth.core.case import Case
from cardiosynth.core.progress import track
from cardiosynth.core.store import fingerprint
from cardiosynth.data.dataset import Dataset
from cardiosynth.evaluation.comparison import patient
from cardiosynth.evaluation.kept import Kept, identity
from cardiosynth.evaluation.measures import NAN, shared_targets
from cardiosynth.evaluation.results import Column, Table, estimate, spread
from cardiosynth.evaluation.statistics import DRAWS, LEVEL, mean_interval
from cardiosynth.metrics.copies import common_interior, texture_correlation

MARGIN = 2
FEW_VOXELS = 100
"""Correlations of fewer are noise."""
FEW_PATIENTS = 5
"""The interval of fewer is too narrow to decide by."""


@dataclass(frozen=True)
class Shared:
    """Texture that two images share with a template, as correlations in [-1, 1]; NaN where nothing can be compared.

    Attributes:
        synthetic: of the synthetic image and its template.
        real: of the real image of its mask and the same template.
    """

    synthetic: float
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
    excess = np.array([[shared.synthetic - shared.real for _, shared in found]])
    interval = mean_interval(excess, [patient for patient, _ in found])
    known = {name for (name, _), value in zip(found, excess[0], strict=True) if np.isfinite(value)}
    columns = (
        Column(title="images"),
        Column(title="synthetic and template", better="lower", digits=3),
        Column(title="real of the mask and template", digits=3),
        Column(title="difference", better="lower", digits=3, signed=True),
        Column(title="verdict"),
    )
    row = (
        "texture in common", spread(own), spread(shared.real for _, shared in found), estimate(interval),
        _verdict(interval.low) if len(known) >= FEW_PATIENTS else "too few patients to tell",
    )  # fmt: skip
    text = (
        "Correlation of two images' voxels, each structure's mean taken away, where both masks hold the same target "
        f"structure, more than {MARGIN} voxels from any other: neither anatomy nor contrast counts, but grain, streaks "
        "and uneven contrast do. Copies are near 1; what the real image of the mask has, independent images have. "
        f"Of {len(found)} synthetic images; mean ± standard deviation over n cases. Difference: "
        f"{100 * LEVEL:g} % interval of {DRAWS} bootstrap draws of patients, of the cases whose real image is at hand."
    )
    return Table(title="Template copies", protocol=text, columns=columns, rows=(row,))


def copies_note(table: Table) -> tuple[str, ...]:
    """Return a warning where images share more with their templates than real ones do."""
    if table.rows[0][-1] != _verdict(1.0):
        return ()
    return (
        "Synthetic images have texture in common with their templates that real images of the same masks have not: "
        "templates are copied; see the table of template copies.",
    )


def _verdict(low: float) -> str:
    return "more than chance explains" if low > 0 else "no more than chance explains"


def _home(homes: Sequence[Dataset], name: str) -> tuple[Dataset, str] | None:
    return next(((home, name) for home in homes if name in home.rows), None)


def _shared(made: Case, template: tuple[Dataset, str], real: tuple[Dataset, str] | None) -> Shared:
    shown, facts = template[0].case(template[1]), made.provenance.get("template_alignment")
    moved = shown if facts is None else placed(shown, made, np.array(facts["matrix"]))
    if real is None:
        return Shared(_texture(made, moved))
    truth = real[0].case(real[1])
    moved_to_truth = shown if facts is None else aligned(shown, truth, facts["asked"])[0]
    return Shared(_texture(made, moved), _texture(truth, moved_to_truth))


def _texture(case: Case, template: Case) -> float:
    if case.grid.shape != template.grid.shape:
        return NAN
    masks = shared_targets(case, template)
    codes = np.setdiff1d(np.unique(masks[0]), 0).tolist()
    region = common_interior([mask[0] for mask in masks], codes, MARGIN)
    if region.sum() < FEW_VOXELS:
        return NAN
    return texture_correlation(case.required_image()[0], template.required_image()[0], masks[0][0], region)
