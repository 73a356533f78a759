"""What is measured of a row of a table of methods: case by case beside the real ones, and as a set."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cardiosynth import __version__
from cardiosynth.autoencoder.codec import load_codec
from cardiosynth.autoencoder.verdict import codes_met
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.progress import Progress
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.data.preparation import suited_scale
from cardiosynth.data.splits import patient_of
from cardiosynth.evaluation.comparison import Comparer, Sample, refuse_seen
from cardiosynth.evaluation.comparison_tables import Protocol, distribution_table
from cardiosynth.evaluation.extraction import PICTURES, Extractor, SampleSettings, View, cropped, planes_of
from cardiosynth.evaluation.judge import judge_extractor, refuse_partial
from cardiosynth.evaluation.kept import Kept
from cardiosynth.evaluation.measures import measure_pair
from cardiosynth.evaluation.results import Cell, Estimate
from cardiosynth.evaluation.tables import in_words
from cardiosynth.experiments.downstream_cases import known_values
from cardiosynth.experiments.fqcdm_rows import Images
from cardiosynth.experiments.slice_judge import judged
from cardiosynth.metrics.fidelity import slice_step
from cardiosynth.metrics.memorization import near_copies
from cardiosynth.segmentation.predict import Segmenter

SETTINGS = SampleSettings()


@dataclass(frozen=True)
class Measuring:
    """With what all rows are measured.

    Attributes:
        data: real slices in parts.
        judges: of the halves of the test patients, see ``slice_judge``.
        seer: the segmenter whose features compare sets.
        keep: folder for what is measured of slices that several rows are compared with.
    """

    data: str
    judges: list[Segmenter]
    seer: Segmenter
    keep: Path

    @cached_property
    def test(self) -> Dataset:
        """The real slices."""
        return read_dataset(self.data).part("test")

    @cached_property
    def training(self) -> Dataset:
        """What the methods have learned from."""
        return read_dataset(self.data).part("train")

    @cached_property
    def scale(self) -> IntensityScale:
        """Which intensities are [0, 1]."""
        return suited_scale(self.test)

    @cached_property
    def extractor(self) -> Extractor:
        """Of features."""
        return judge_extractor(self.seer)

    @cached_property
    def comparer(self) -> Comparer:
        """Of sets; what it has seen of real slices it keeps."""
        facts = {"program": __version__, "scale": self.scale.model_dump(mode="json"), "features": self.extractor.title}
        kept = Kept(self.keep, facts | {"settings": SETTINGS.model_dump(mode="json")})
        planes = planes_of(cropped(self.test[0], self.scale, SETTINGS).shape, SETTINGS)
        view = View(self.scale, self.extractor, SETTINGS, planes)
        return Comparer(None, view, kept)

    def real(self) -> dict[str, Any]:
        """Return ``agreement``, ``likeness`` and ``steps`` of the real cases, in words ``window`` and ``features``.

        Raises:
            InputError: test slices that are training slices.
        """
        refuse_seen(self.test, self.training)
        return {
            "agreement": judged(self.judges, self.test, self.test),
            "likeness": self.comparer.likeness(self.test, "real"),
            "steps": steps_of(self.test),
            "window": in_words(self.scale),
            "features": self.extractor.title,
        }

    def row(self, images: Images) -> dict[str, Any]:
        """Return ``sets``, ``copies``, ``likeness``, ``steps``, and ``pairs``, ``agreement`` and ``codes`` of a row.

        Of a row that is compared slice by slice only, ``pairs`` alone; the last three where its images show masks.

        Raises:
            InputError: a segmenter that judges took part in making the slices.
        """
        made = read_dataset(images.dataset)
        if images.pairs_only:
            return {"pairs": self.pairs(made)}
        refuse_partial(self.seer, made)
        samples = self.comparer.sample(self.test, "real"), self.comparer.sample(made, images.name)
        of_set = {
            "sets": self._sets(*samples),
            "copies": self._copies(*samples),
            "likeness": self.comparer.likeness(made, images.name),
            "steps": steps_of(made),
        }
        if not len(made.with_masks()):
            return of_set
        return {
            "pairs": self.pairs(made),
            **of_set,
            "agreement": judged(self.judges, self.test, made),
            "codes": {} if images.codebook is None else codes_met(load_codec(images.codebook), self.test),
        }

    def pairs(self, made: Dataset) -> list[dict[str, Any]]:
        """Return ``case``, ``patient`` and the similarity of every slice (or volume) beside its real one.

        In the order of the real slices' names, whatever the row's own names are.
        """
        rows = []
        with Progress(f"compare {made.root.name}", len(made)) as progress:
            for case in made:
                real = self.test.case(str(case.provenance["reference"]))
                window = self.scale.window_of(real.required_image())
                pair = measure_pair(real, case.required_image(), window, real.labels.targets)
                values = {"psnr_db": pair.psnr_db, "ms_ssim": pair.ms_ssim, "ssim": pair.ssim}
                values |= {"ssim_heart": pair.ssim_heart, "rmse": pair.rmse_model}
                names = {"case": real.case_id, "patient": patient_of(real.case_id)}
                rows.append(names | known_values(values))
                progress.update()
        return sorted(rows, key=lambda row: row["case"])

    def _sets(self, real: Sample, made: Sample) -> dict[str, Any]:
        """Return the distances of features by the titles of evaluation's columns; of an interval value and ends.

        Where several planes of volumes are compared, their mean.
        """
        view = self.comparer.view
        found = distribution_table(real, made, self.extractor, Protocol(in_words(self.scale), SETTINGS, view.planes))
        assert found is not None, "both are slices"
        titles = [column.title for column in found.columns[1:]]
        planes = zip(*(row[1:] for row in found.rows), strict=True)
        return {title: _mean_of(cells) for title, cells in zip(titles, planes, strict=True)}

    def _copies(self, real: Sample, made: Sample) -> dict[str, dict[str, float | None]]:
        """Return by kind of distance the share of near copies, what chance explains, and the ratio of medians."""
        found = {}
        of_real, of_made = self.comparer.neighbors((real, made), self.training)
        for space, neighbor in of_made.items():
            copies = near_copies(neighbor.distance, of_real[space].distance)
            values = {"share": copies.share, "bound": copies.bound, "ratio": copies.ratio}
            found["pictures" if space == PICTURES else "features"] = known_values(values)
        return found


def steps_of(cases: Dataset) -> list[list[float]]:
    """Return for every case and axis the mean absolute difference of neighboring slices, in the cases' unit."""
    images = (case.required_image()[0] for case in cases)
    return [[slice_step(image, axis) for axis in range(image.ndim)] for image in images]


def _mean_of(cells: Sequence[Cell]) -> float | list[float] | None:
    """Return the mean of numbers, or of intervals' values and ends; None where one is not known."""
    if any(cell is None for cell in cells):
        return None
    intervals = [[cell.value, cell.low, cell.high] for cell in cells if isinstance(cell, Estimate)]
    if intervals:
        return np.mean(intervals, axis=0).tolist()
    return float(np.mean([float(cell) for cell in cells if isinstance(cell, float | int)]))
