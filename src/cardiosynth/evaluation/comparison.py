"""Sets of cases against each other: features, neighbors in the training data, likeness within a set, a judge's masks.

Datasets are read case by case. What is kept of a case are its features and small pictures, of a bounded number of
slices altogether; the training data are gone through once and nothing of them is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydantic

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import track
from cardiosynth.core.random import numpy_generator
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.splits import patient_of
from cardiosynth.evaluation.extraction import (
    AXES,
    PICTURES,
    PLACES,
    VOLUME,
    Extractor,
    SampleSettings,
    View,
    cropped,
    describe,
    sampled,
)
from cardiosynth.evaluation.judge import Seen, agreement
from cardiosynth.evaluation.kept import Kept
from cardiosynth.evaluation.lpips import Lpips
from cardiosynth.metrics.fidelity import SSIM_SIDE
from cardiosynth.metrics.memorization import nearest
from cardiosynth.metrics.multiscale import ms_ssim
from cardiosynth.segmentation.predict import Segmenter

NUMBER = pydantic.TypeAdapter(float)
SEEN = pydantic.TypeAdapter(dict[str, Seen])


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """What sets of cases are compared with and how.

    Attributes:
        judge: segmenter that took no part in making the synthetic cases: adds the agreement with their masks.
        judge_cases: names of the cases that it learned from.
        extractors: networks whose features are compared; copies are looked for in those of the first.
        lpips: with its weights: adds LPIPS of pairs.
        training: what the generator learned from: adds the search for copies.
        settings: how.
        keep: folder for what is measured, so that a run that was killed goes on; its owner removes it.
    """

    judge: Segmenter | None = None
    judge_cases: tuple[str, ...] = ()
    extractors: tuple[Extractor, ...] = ()
    lpips: Lpips | None = None
    training: Dataset | None = None
    settings: SampleSettings = field(default_factory=SampleSettings)
    keep: Path | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """A set of cases as it is compared.

    Attributes:
        rows: by plane, ``volume`` and ``pictures``: one row per image.
        groups: by the same names, the patient of each row.
        places: case and slice of every picture; slice -1 is the volume.
    """

    rows: Mapping[str, np.ndarray]
    groups: Mapping[str, Sequence[str]]
    places: Sequence[tuple[str, int]]

    @property
    def spaces(self) -> list[str]:
        """The names of ``rows`` in which each row is the image of one picture, pictures first."""
        features = VOLUME if all(place < 0 for _, place in self.places) else "axial"
        return [PICTURES, *([features] if features in self.rows else [])]


@dataclass(frozen=True, eq=False)
class Neighbor:
    """The nearest training image of every image of a sample.

    Attributes:
        distance: of each.
        place: case and slice of the training image.
    """

    distance: np.ndarray
    place: list[tuple[str, int]]


class Comparer:
    """Compares datasets under one protocol.

    Args:
        judge: segmenter that is asked about masks, where there is one.
        view: how every case is seen.
        kept: what is measured already.
    """

    def __init__(self, judge: Segmenter | None, view: View, kept: Kept):
        self.judge, self.view, self.settings, self._kept = judge, view, view.settings, kept

    def sample(self, dataset: Dataset, label: str) -> Sample:
        """Return what is compared of a dataset, ``label`` being what it is called while this goes on."""
        per_case, numbers = sampled(len(dataset), self.settings)
        rows: dict[str, list[np.ndarray]] = {}
        groups: dict[str, list[str]] = {}
        places: list[tuple[str, int]] = []
        names = [dataset.case_ids[number] for number in numbers]
        for case_id in track(names, f"look at {label}", len(names)):
            found = self._described(dataset, case_id, per_case)
            places += [(case_id, int(place)) for place in found[PLACES]]
            for name in found.keys() - {PLACES}:
                rows.setdefault(name, []).append(found[name])
                groups.setdefault(name, []).extend([patient(dataset, case_id)] * len(found[name]))
        return Sample({name: np.concatenate(parts) for name, parts in rows.items()}, groups, places)

    def neighbors(self, samples: Sequence[Sample], training: Dataset) -> list[dict[str, Neighbor]]:
        """Return, for every sample and space, the nearest among all slices (or volumes) of the training data."""
        best = [{space: _nowhere(len(sample.rows[space])) for space in sample.spaces} for sample in samples]
        for case_id in track(training.case_ids, "search the training data", len(training)):
            found = self._described(training, case_id, None)
            for sample, of_sample in zip(samples, best, strict=True):
                for space, neighbor in of_sample.items():
                    _improve(neighbor, sample.rows[space], found[space], [(case_id, int(p)) for p in found[PLACES]])
        return best

    def likeness(self, dataset: Dataset, label: str) -> list[float]:
        """Return MS-SSIM of pairs of images of different patients, in their middle slices; empty without a pair."""
        pairs = _pairs([patient(dataset, name) for name in dataset.case_ids], self.settings)
        found = []
        for first, second in track(pairs, f"likeness among {label}", len(pairs)):
            one, other = dataset.case_ids[first], dataset.case_ids[second]
            key = self._kept.key("likeness", dataset, one, other)
            found.append(
                self._kept.value(NUMBER, key, lambda a=one, b=other: self._alike(dataset.case(a), dataset.case(b)))
            )
        return found

    def agreements(self, dataset: Dataset, label: str) -> list[dict[str, Seen]]:
        """Return what the judge finds in every case, by structure."""
        judge, found = self.judge, []
        assert judge is not None, "agreement needs a judge"
        for case_id in track(dataset.case_ids, f"judge {label}", len(dataset)):
            key = self._kept.key("agreement", dataset, case_id)
            measure = lambda name=case_id: agreement(judge, dataset.case(name))  # noqa: E731
            found.append(self._kept.value(SEEN, key, measure))
        return found

    def _described(self, dataset: Dataset, case_id: str, per_case: int | None) -> Mapping[str, np.ndarray]:
        extractor = "" if self.view.extractor is None else self.view.extractor.title
        key = self._kept.key("described", dataset, case_id, beside=f"{per_case} {extractor}")
        return self._kept.arrays(key, lambda: describe(dataset.case(case_id), self.view, per_case))

    def _alike(self, one: Case, other: Case) -> float:
        a, b = (cropped(case, self.view.scale, self.settings) for case in (one, other))
        if a.ndim == 2:
            return _ms_ssim(a, b)
        axes = [AXES[plane] for plane in self.view.planes]
        middles = [[np.take(image, image.shape[axis] // 2, axis) for image in (a, b)] for axis in axes]
        return float(np.mean([_ms_ssim(*pair) for pair in middles]))


def patient(dataset: Dataset, case_id: str) -> str:
    """Return the patient of a case, as its provenance tells or else its name; of a synthetic one, whose mask it has.

    Images that were made for the masks of one patient are no more independent than that patient's own.
    """
    facts = dataset.row(case_id)["provenance"]
    return str(facts.get("patient") or patient_of(str((*facts.get("parents", ()), case_id)[0])))


def refuse_seen(real: Dataset, training: Dataset) -> None:
    """Refuse real cases that are training cases: they tell nothing about how near unseen images come.

    Raises:
        InputError: naming the first.
    """
    known = {_image_digest(training, case_id) for case_id in training.case_ids}
    for case_id in real.case_ids:
        if _image_digest(real, case_id) in known:
            raise InputError(
                f"{case_id} of {real.root} is one of the training cases of {training.root}; give real cases that the "
                "generator never saw."
            )


def _image_digest(dataset: Dataset, case_id: str) -> str:
    path = dataset.file("image", case_id)
    files = dataset.row(case_id).get("files") or {}
    return files.get(path.relative_to(dataset.root).as_posix()) or str(path.resolve())


def _nowhere(count: int) -> Neighbor:
    return Neighbor(np.full(count, np.inf), [("", -1)] * count)


def _improve(best: Neighbor, rows: np.ndarray, others: np.ndarray, places: list[tuple[str, int]]) -> None:
    """Put ``others`` in where they are nearer."""
    distance, index = nearest(rows, others)
    for row in np.flatnonzero(distance < best.distance):
        best.distance[row], best.place[row] = distance[row], places[index[row]]


def _pairs(patients: Sequence[str], settings: SampleSettings) -> list[tuple[int, int]]:
    """Return pairs of cases of different patients, all where there are few, else drawn without repetition."""
    rng, count = numpy_generator(settings.seed, "pairs"), len(patients)
    drawn: dict[tuple[int, int], None] = {}
    # Of a set of few patients most draws fall away; some tries per pair are enough.
    for first, second in rng.integers(count, size=(20 * settings.pairs, 2)):
        if patients[first] != patients[second] and len(drawn) < settings.pairs:
            drawn[int(min(first, second)), int(max(first, second))] = None
    return sorted(drawn)


def _ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Return MS-SSIM of the middles of two slices, as large as fits both; NaN where that is too small."""
    shape = tuple(map(min, zip(a.shape, b.shape, strict=True)))
    return ms_ssim(_middle(a, shape), _middle(b, shape), 1.0) if min(shape) >= SSIM_SIDE else float("nan")


def _middle(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    starts = [(have - want) // 2 for have, want in zip(image.shape, shape, strict=True)]
    return image[tuple(slice(start, start + want) for start, want in zip(starts, shape, strict=True))]
