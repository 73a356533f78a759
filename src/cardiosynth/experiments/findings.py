"""What a demo found, as Results: pictures, image metrics beside their ceiling, three arms, connectivity, times."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cardiosynth.autoencoder.codec import load_codec
from cardiosynth.core.case import Case
from cardiosynth.core.progress import Progress
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.evaluation.comparison import Comparison
from cardiosynth.evaluation.extraction import SampleSettings
from cardiosynth.evaluation.galleries import mask_gallery
from cardiosynth.evaluation.results import CaseFigure, Cell, Column, Results, Stage, Table, pointer, spread
from cardiosynth.evaluation.segmentations import (
    Arms,
    arms_figure,
    compare_segmentation,
    connectivity_table,
    dice_table,
    distance_table,
)
from cardiosynth.evaluation.sets import read_comparison
from cardiosynth.evaluation.suite import evaluate
from cardiosynth.metrics.topology import components

VESSEL = "coronary_artery"


@dataclass(frozen=True)
class Arm:
    """One way to train a segmenter.

    Attributes:
        name: as the report calls it.
        run: its folder.
        pretrained: first on synthetic cases, then on the real ones.
        confidence: weighted by the confidence map.
    """

    name: str
    run: Path
    pretrained: bool = False
    confidence: bool = True

    @property
    def predictions(self) -> Path:
        """Dataset folder of its segmentations of the test cases."""
        return self.run / "predictions"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a demo left on disk.

    Attributes:
        out: the demo's folder.
        test: cases nobody saw.
        paired: synthetic cases made from the test cases' own masks.
        synthetic: synthetic cases the segmenters learned from.
        masks: their reference masks.
        sources: the cases the masks were deformed from.
        generator: run of the generator.
        shipped: whether the generator was there already. Where it was packed with a judge, this is asked.
        left_out: what there was no time for, in words.
        arms: the segmenters.
        steps: optimizer steps of each arm.
        pretrain_share: share of them that the synthetic arms spend on synthetic cases.
        real: how many annotated cases the arms share.
        seconds: how long it took to get there.
    """

    out: Path
    test: Dataset
    paired: Dataset
    synthetic: Dataset
    masks: Dataset
    sources: Dataset
    generator: Path
    shipped: bool
    left_out: str
    arms: tuple[Arm, ...]
    steps: int
    pretrain_share: float
    real: int
    seconds: float


def demo_results(found: Findings) -> Results:
    """Return everything the demo's report shows."""
    codec = load_codec(found.generator)
    images = evaluate(
        found.test, found.paired, relative_to=found.out, scale=codec.scale, reconstruct=codec.reconstruct,
        comparison=_judged(found),
    )  # fmt: skip
    arms, protocol = _arms(found), _protocol(found)
    labels = found.test.labels
    return images.model_copy(update={
        "title": "cardiosynth demo: from phantoms to a report",
        "summary": _summary(found),
        "notes": (*images.notes, _verdict_of_arms(arms), *([found.left_out] if found.left_out else [])),
        "figures": (
            *images.figures, _training_figure(found), mask_gallery(found.masks, found.sources, found.out),
            arms_figure(arms, labels, protocol),
        ),
        "tables": (
            *images.tables, dice_table(arms, labels, protocol), distance_table(arms, labels, protocol),
            connectivity_table(arms, labels.named(VESSEL), protocol), _mask_table(found),
        ),
    })  # fmt: skip


def with_times(results: Results, times: list[tuple[str, float, str]]) -> Results:
    """Return the results with (step, seconds, command) of every step, the evaluation's own included."""
    stages = tuple(Stage(name=name, seconds=seconds, command=text) for name, seconds, text in times)
    return results.model_copy(update={"stages": stages})


def _judged(found: Findings) -> Comparison | None:
    """Return the judge that came with the generator, where one did."""
    judge = found.generator if found.shipped and (found.generator / "segmenter").is_dir() else None
    return None if judge is None else read_comparison(judge, None, None, SampleSettings())


def _summary(found: Findings) -> str:
    minutes, known = found.seconds / 60, len(found.sources)
    learned = (
        f"which came with the program ({_card(found)})" if found.shipped else f"which learned from {known} phantoms"
    )
    end = "All of this took" if found.shipped else "Everything was trained from nothing in"
    return (
        f"An autoencoder and a template-guided diffusion model, {learned}, made "
        f"{len(found.synthetic)} annotated volumes for masks newly deformed from those of {known} phantoms, and "
        f"{len(found.paired)} for the masks of {len(found.test)} phantoms of protocols they never saw. "
        f"{len(found.arms)} segmenters then saw the same {found.real} annotated cases for the same number of steps "
        f"({found.steps}). {end} {minutes:.0f} minutes."
    )


def _card(found: Findings) -> str:
    return f"{found.generator.name}; README.md in the folder that cardiosynth weights shipped prints is its card"


def _protocol(found: Findings) -> str:
    share = 100 * found.pretrain_share
    return (
        f"Every arm took {found.steps} optimizer steps; the synthetic arms spent {share:.0f} % of them on "
        f"{len(found.synthetic)} synthetic cases and the rest on the {found.real} real ones."
    )


def _arms(found: Findings) -> Arms:
    arms = {}
    with Progress("compare segmentations", len(found.arms) * len(found.test)) as progress:
        for arm in found.arms:
            predicted = read_dataset(arm.predictions)
            arms[arm.name] = []
            for case in found.test:
                mask = predicted.case(case.case_id).required_mask()
                arms[arm.name].append(compare_segmentation(mask, case))
                progress.update()
    return arms


def _verdict_of_arms(arms: Arms) -> str:
    """Say which arm was best, and that one run of few cases proves little."""
    means = {
        name: float(np.nanmean([[each.dice for each in case.values()] for case in cases]))
        for name, cases in arms.items()
    }
    listed = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    best = max(means, key=lambda name: means[name])
    return (
        f"Mean Dice of the segmenters: {listed}; highest: {best}. This is one run with one seed on phantoms: "
        "differences of this size can be chance."
    )


def _training_figure(found: Findings) -> CaseFigure:
    name = found.synthetic.case_ids[0]
    return CaseFigure(
        title="A case the segmenters learned from",
        caption="Its mask was deformed from a phantom's; no real image has it.",
        synthetic=pointer(found.synthetic.root, name, found.out),
    )


def _mask_table(found: Findings) -> Table:
    """Return how connected the coronary arteries of the new masks are, beside their sources'."""
    columns = (
        Column(title="masks"), Column(title="coronary pieces"), Column(title="largest piece", unit="%", digits=1),
        Column(title="coronary volume", unit="mL", digits=2),
    )  # fmt: skip
    used = {parent for row in found.masks.rows.values() for parent in row["provenance"]["parents"]}
    sources = found.sources.subset(sorted(used))
    rows = tuple((name, *_connectivity(dataset)) for name, dataset in (("sources", sources), ("deformed", found.masks)))
    return Table(
        title="Coronary connectivity of the masks",
        protocol="26-connected pieces of the coronary label; a left and a right tree are 2. Mean ± standard deviation.",
        columns=columns,
        rows=rows,
    )


def _connectivity(cases: Iterable[Case]) -> tuple[Cell, ...]:
    pieces, largest, volumes = [], [], []
    for case in cases:
        vessel = case.required_mask()[0] == case.labels.named(VESSEL).code
        sizes = components(vessel).sizes
        pieces.append(float(len(sizes)))
        largest.append(100 * float(sizes[0] / sizes.sum()) if len(sizes) else float("nan"))
        volumes.append(float(vessel.sum() * np.prod(case.grid.spacing_mm) / 1000))
    return spread(pieces), spread(largest), spread(volumes)
