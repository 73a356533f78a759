"""Measurements turned into tables: one function per table, each with the protocol of its numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import LabelTable
from cardiosynth.evaluation.measures import CaseMeasures, PairMeasures, StructureMeasures
from cardiosynth.evaluation.results import Cell, Column, Spread, Table, spread

MEAN_SD = "Mean ± standard deviation over n cases."


@dataclass(frozen=True)
class Measured:
    """Everything measured in one evaluation.

    Attributes:
        labels: the structures looked at, with the roles of the real dataset.
        unit: ``HU``, or empty where intensities are arbitrary.
        window: the intensity window of [0, 1], in words.
        real: the real cases.
        synthetic: the synthetic cases.
        pairs: synthetic images beside the real image of the same mask.
        ceiling: reconstructed real images beside themselves; empty where no autoencoder was given.
        lpips: the weights of LPIPS, in words; empty where there are none.
    """

    labels: LabelTable
    unit: str
    window: str
    real: Sequence[CaseMeasures]
    synthetic: Sequence[CaseMeasures]
    pairs: Sequence[PairMeasures]
    ceiling: Sequence[PairMeasures]
    lpips: str = ""

    @property
    def counts(self) -> str:
        """The number of cases, in words."""
        return f"{_cases(len(self.real), 'real')}, {_cases(len(self.synthetic), 'synthetic')}."


def similarity_table(found: Measured) -> Table | None:
    """Return image similarity of pairs and the autoencoder's ceiling; None where there is neither."""
    rows = [("synthetic", found.pairs), ("autoencoder's ceiling", found.ceiling)]
    columns = [
        Column(title="images"),
        Column(title="SSIM", better="higher", digits=3),
        Column(title="SSIM in the heart", better="higher", digits=3),
        Column(title="MS-SSIM", better="higher", digits=3),
        Column(title="PSNR", unit="dB", better="higher", digits=1),
        Column(title="RMSE", unit=found.unit, better="lower", digits=0 if found.unit else 1),
        Column(title="RMSE in [0, 1]", better="lower", digits=4),
    ]
    measures: list[Callable[[PairMeasures], float]] = [
        lambda p: p.ssim, lambda p: p.ssim_heart, lambda p: p.ms_ssim, lambda p: p.psnr_db, lambda p: p.rmse,
        lambda p: p.rmse_model,
    ]  # fmt: skip
    if found.lpips:
        columns.append(Column(title="LPIPS", better="lower", digits=4))
        measures.append(lambda p: p.lpips)
    cells = tuple((name, *(spread(map(m, pairs)) for m in measures)) for name, pairs in rows if pairs)
    if not cells:
        return None
    protocol = (
        f"Each image beside the real image of the same, undeformed mask; {_cases(len(found.pairs), 'pair', '')}. "
        + (f"Ceiling: {_cases(len(found.ceiling), 'real')} encoded and decoded. " if found.ceiling else "")
        + f"SSIM and PSNR on [0, 1], which is {found.window}; SSIM with a Gaussian window of 11 voxels "
        "(sigma 1.5), MS-SSIM with as many of its five scales as 11 voxels allow, their weights divided by their sum; "
        "heart: the target structures and one voxel around them; RMSE of the images as stored. "
        + (f"{found.lpips}: over all slices of each plane, then over planes. " if found.lpips else "")
        + MEAN_SD
    )
    return Table(title="Image similarity", protocol=protocol, columns=tuple(columns), rows=cells)


def intensity_table(found: Measured) -> Table:
    """Return mean intensity per structure, real and synthetic, and the error within pairs."""
    columns = [
        Column(title="structure"),
        Column(title="real", unit=found.unit, digits=0),
        Column(title="synthetic", unit=found.unit, digits=0),
        Column(title="texture, real", unit=found.unit, digits=0),
        Column(title="texture, synthetic", unit=found.unit, digits=0),
    ]
    if found.pairs:
        columns.append(Column(title="error in pairs", unit=found.unit, digits=0))
    rows: list[tuple[Cell, ...]] = []
    for name, title in _shown(found):
        row: list[Cell] = [title]
        for read in (lambda s: s.mean, lambda s: s.sd):
            row += [_over(cases, name, read) for cases in (found.real, found.synthetic)]
        if found.pairs:
            row.append(spread(p.error.get(name, float("nan")) for p in found.pairs))
        rows.append(tuple(row))
    protocol = (
        f"Mean intensity inside each structure of the mask; {found.counts} Texture: standard deviation inside. "
        + ("Error: synthetic minus real mean under the same mask. " if found.pairs else "")
        + MEAN_SD
    )
    return Table(title="Intensity per structure", protocol=protocol, columns=tuple(columns), rows=tuple(rows))


def contrast_table(found: Measured) -> Table:
    """Return the contrast of the targets to their surroundings and how much of it is kept."""
    columns = [
        Column(title="structure"),
        Column(title="contrast, real", unit=found.unit, digits=0),
        Column(title="contrast, synthetic", unit=found.unit, digits=0),
    ]
    groups = [("kept by the synthetic image", found.pairs), ("kept by the autoencoder", found.ceiling)]
    groups = [(title, pairs) for title, pairs in groups if pairs]
    columns += [Column(title=title, unit="%", better="higher", digits=0) for title, _ in groups]
    rows: list[tuple[Cell, ...]] = []
    for name, title in _shown(found, targets_only=True):
        contrast = [_over(cases, name, lambda s: s.contrast) for cases in (found.real, found.synthetic)]
        kept = [spread(100 * p.kept.get(name, float("nan")) for p in pairs) for _, pairs in groups]
        rows.append((title, *contrast, *kept))
    protocol = (
        f"Contrast: mean inside a structure minus mean in the shell of 2 voxels around it; {found.counts} "
        + ("Kept: contrast over that of the real image under the same mask; 100 % is perfect. " if groups else "")
        + MEAN_SD
    )
    bars = tuple(title for title, _ in groups)
    return Table(title="Contrast kept", protocol=protocol, columns=tuple(columns), rows=tuple(rows), bars=bars)


def shape_table(found: Measured) -> Table:
    """Return pieces, largest piece and volume of every structure in the masks."""
    columns = (
        Column(title="structure"), Column(title="pieces expected", digits=0),
        Column(title="pieces, real", digits=1), Column(title="pieces, synthetic", digits=1),
        Column(title="largest piece, real", unit="%", digits=1),
        Column(title="largest piece, synthetic", unit="%", digits=1),
        Column(title="volume, real", unit="mL", digits=1), Column(title="volume, synthetic", unit="mL", digits=1),
    )  # fmt: skip
    readers: tuple[Callable[[StructureMeasures], float], ...] = (
        lambda s: float(s.pieces), lambda s: 100 * s.largest, lambda s: s.volume_ml,
    )  # fmt: skip
    rows = []
    for name, title in _shown(found):
        expected = found.labels.named(name).components
        cells = [_over(cases, name, read) for read in readers for cases in (found.real, found.synthetic)]
        rows.append((title, None if expected is None else float(expected), *cells))
    protocol = (
        f"The masks, as they are; {found.counts} Pieces are connected by faces, edges or corners; largest piece: its "
        "share of the structure's voxels. The field of view cuts structures, as in the scans. " + MEAN_SD
    )
    return Table(title="Shape of the masks", protocol=protocol, columns=columns, rows=tuple(rows))


def topology_table(found: Measured) -> Table:
    """Return the Betti numbers of the targets in the masks; pieces are in :func:`shape_table` too."""
    readers: dict[str, Callable[[StructureMeasures], float]] = {
        "pieces": lambda s: float(s.pieces), "tunnels": lambda s: s.tunnels, "cavities": lambda s: s.cavities,
    }  # fmt: skip
    kinds = {"real": found.real, "synthetic": found.synthetic}
    columns = [Column(title=f"{name}, {kind}", digits=1) for name in readers for kind in kinds]
    rows = tuple(
        (title, *(_over(cases, name, read) for read in readers.values() for cases in kinds.values()))
        for name, title in _shown(found, targets_only=True)
    )
    protocol = (
        f"Betti numbers of the masks, as they are; {found.counts} Voxels are connected by faces, edges or corners; a "
        "tunnel runs from side to side, a cavity is enclosed (in a slice, a hole). " + MEAN_SD
    )
    columns = (Column(title="structure"), *columns)
    return Table(title="Topology of the masks", protocol=protocol, columns=columns, rows=rows)


def continuity_table(found: Measured) -> Table | None:
    """Return how much neighboring slices differ along each axis; None for slices, which have no neighbors."""
    if any(len(case.steps) != 3 for case in (*found.real, *found.synthetic)):
        return None
    columns = (
        Column(title="slices"), Column(title="real", unit=found.unit, digits=1),
        Column(title="synthetic", unit=found.unit, digits=1),
    )  # fmt: skip
    rows = []
    for axis, name in enumerate(("sagittal (X)", "coronal (Y)", "axial (Z)")):
        rows.append((name, *(spread(case.steps[axis] for case in cases) for cases in (found.real, found.synthetic))))
    protocol = (
        f"Mean absolute difference of neighboring slices of the whole images, as stored; {found.counts} Images that "
        "were made slice by slice have larger steps across their slices than real ones. " + MEAN_SD
    )
    return Table(title="Continuity across slices", protocol=protocol, columns=columns, rows=tuple(rows))


def in_words(scale: IntensityScale) -> str:
    """Return which intensities become [0, 1]."""
    if scale.unit == "hu" or scale.percentiles is None:
        unit = " HU" if scale.unit == "hu" else ""
        return f"the window [{scale.window.low:.0f}, {scale.window.high:.0f}]{unit}"
    low, high = scale.percentiles
    return f"the {low:g}th to {high:g}th percentile of each image"


def confidence_table(found: Measured) -> Table | None:
    """Return mean confidence per structure of the synthetic cases; None where no case has a confidence map."""
    inside = spread(case.confidence_inside for case in found.synthetic)
    outside = spread(case.confidence_outside for case in found.synthetic)
    if inside is None and outside is None:
        return None
    rows: list[tuple[Cell, ...]] = [("all target structures", inside), ("everything else", outside)]
    rows += [(title, _over(found.synthetic, name, lambda s: s.confidence)) for name, title in _shown(found)]
    columns = (Column(title="structure"), Column(title="mean confidence", better="higher", digits=3))
    protocol = (
        f"Mean of the confidence map (0..1, higher is more stable) inside each structure; "
        f"{_cases(len(found.synthetic), 'synthetic')}. Confidence says how much the image still changed while it was "
        "made, not how true it is. " + MEAN_SD
    )
    return Table(title="Confidence", protocol=protocol, columns=columns, rows=tuple(rows), bars=("mean confidence",))


def _shown(found: Measured, targets_only: bool = False) -> list[tuple[str, str]]:
    """Return (name, title) of the rows: targets that occur anywhere, surroundings that both kinds of masks hold."""
    real = {name for case in found.real for name in case.structures}
    synthetic = {name for case in found.synthetic for name in case.structures}
    rows = []
    for label in sorted(found.labels, key=lambda x: x.code):
        wanted = real | synthetic if label.role == "target" else real & synthetic
        if label.name in wanted and (label.role == "target" or not targets_only):
            rows.append((label.name, label.title))
    return rows


def _over(cases: Sequence[CaseMeasures], name: str, read: Callable[[StructureMeasures], float]) -> Spread | None:
    """Return mean and deviation over the cases that have the structure."""
    return spread(read(case.structures[name]) for case in cases if name in case.structures)


def _cases(count: int, kind: str, noun: str = " case") -> str:
    """Return e.g. ``"1 real case"`` or ``"4 pairs"``."""
    return f"{count} {kind}{noun}{'' if count == 1 else 's'}"
