"""All cases of a source prepared into a dataset folder: by several processes, restartable, past broken cases."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cardiosynth.core.case import Case, IntensityUnit
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.progress import Mode, Progress, mode, say, set_mode
from cardiosynth.data.dataset import Dataset, DatasetWriter, mark_parts, read_dataset, store_case
from cardiosynth.data.description import COMPLETE, UNFINISHED, read_description
from cardiosynth.data.layout import is_whole, manifest
from cardiosynth.data.prepare.settings import PrepareSettings
from cardiosynth.data.prepare.slices import cut_slices
from cardiosynth.data.prepare.volumes import normalized_case, prepare_case
from cardiosynth.data.splits import Share, patient_of, split
from cardiosynth.data.stream import CaseStream

Kind = tuple[LabelTable, IntensityUnit]
"""What all cases of a dataset share."""


def prepare(
    source: CaseStream,
    out: Path,
    settings: PrepareSettings,
    name: str = "prepared",
    *,
    shares: Mapping[str, Share] | None = None,
    workers: int = 1,
    keep_going: bool = False,
) -> Dataset:
    """Prepare every case of ``source`` into the dataset folder ``out``. Cases that are there already are not read.

    The files are the same bits whatever the number of workers; the rows of the manifest may stand in another order.

    Args:
        source: cases as a source reads them. An `InputError` on one case is kept for the end, and the rest goes on.
        out: dataset folder.
        settings: grid and labels wanted; a folder prepared with others is refused.
        name: what the dataset is called.
        shares: the parts of the split, written into the rows; None leaves them as they are.
        workers: processes at work, of one thread each; with 1 this one does it.
        keep_going: only say which cases could not be prepared.

    Raises:
        InputError: at the end, naming every case that could not be prepared; or there was none, the shares do not suit
            the patients, or the disk is full.
    """
    if not source.case_ids:
        raise InputError("the source holds no case; check the folder.")
    run = _Run(source, out, settings, name)
    with ExitStack() as stack:
        run.open_existing(stack)
        run.work(stack, workers)
        if run.writer is None or not list(run.writer):
            raise InputError(run.complaint())
    if shares is not None:
        mark_parts(out, _parts(source, out, shares))
    if run.left_out:
        say(f"{out}: {run.left_out} slices without a target structure were left out.", left_out=run.left_out)
    if run.broken and not keep_going:
        raise InputError(f"{run.complaint()} The other cases are in {out}.")
    if run.broken:
        say(f"{run.complaint()} The other cases are in {out}.", broken=sorted(run.broken))
    return read_dataset(out)


def prepare_one(case: Case, settings: PrepareSettings) -> list[Case]:
    """Return what a case becomes: itself on the grid wanted, or its slices; with the labels wanted and its patient.

    Raises:
        InputError: see `prepare_case`, `cut_slices` and `LabelMapping`.
    """
    mapping = settings.mapping
    labels = mapping.target(case.labels)
    mask = None if case.mask is None else mapping.apply(case.mask, case.labels)
    provenance = {"patient": patient_of(case.case_id), **case.provenance}
    case = case.with_(mask=mask, labels=labels, provenance=provenance)
    case = normalized_case(case) if settings.normalize else case
    return [prepare_case(case, settings)] if settings.slices is None else cut_slices(case, settings)


@dataclass(frozen=True)
class _Made:
    """What one case has become: manifest rows of files that are there."""

    rows: list[dict[str, Any]]
    kind: Kind
    left_out: int


def _make(read: Callable[[], Case], out: Path, settings: PrepareSettings, expected: Kind | None) -> _Made:
    cases = prepare_one(read(), settings)
    first = cases[0]
    if expected is not None and (first.labels, first.intensity_unit) != expected:
        what = "label table" if first.labels != expected[0] else "intensity unit"
        raise InputError(f"case {first.case_id} has another {what} than {out}; prepare it into another folder.")
    kind = (first.labels, first.intensity_unit)
    return _Made([store_case(out, case) for case in cases], kind, int(first.provenance.get("left_out", 0)))


class _Run:
    """One call of `prepare`: which cases are missing, who writes the rows, which cases are broken."""

    def __init__(self, source: CaseStream, out: Path, settings: PrepareSettings, name: str):
        self.source, self.out, self.settings, self.name = source, out, settings, name
        self.writer: DatasetWriter | None = None
        self.kind: Kind | None = None
        self.broken: dict[str, str] = {}
        self.left_out = 0
        done = finished_cases(out)
        self.missing = [case_id for case_id in source.case_ids if case_id not in done]

    def open_existing(self, stack: ExitStack) -> None:
        """Go on with the dataset that is there; one that was made otherwise is refused."""
        if (self.out / COMPLETE).exists() or (self.out / UNFINISHED).exists():
            there = read_description(self.out)
            self._open(stack, (there.labels, there.intensity_unit))

    def _open(self, stack: ExitStack, kind: Kind) -> None:
        labels, unit = self.kind = kind
        facts = self.settings.facts(unit, labels)
        self.writer = stack.enter_context(DatasetWriter(self.out, labels, name=self.name, facts=facts))

    def work(self, stack: ExitStack, workers: int) -> None:
        """Prepare what is missing; the first case alone, because it tells the label table and the unit."""
        total = len(self.source.case_ids)
        workers = min(workers, len(self.missing))
        with (
            Progress("prepare", total, total - len(self.missing)) as progress,
            _workers(workers) as submit,
        ):
            waiting = iter(self.missing)
            running: dict[Future[_Made], str] = {}
            while True:
                for case_id in waiting:
                    read = self.source.reader(case_id)
                    running[submit(_make, read, self.out, self.settings, self.kind)] = case_id
                    if self.kind is None or len(running) >= 2 * workers:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self._take(stack, running.pop(future), future)
                    progress.update()

    def _take(self, stack: ExitStack, case_id: str, future: "Future[_Made]") -> None:
        try:
            made = future.result()
        except InputError as error:
            self.broken[case_id] = str(error)
            return
        except BrokenProcessPool as error:
            raise InputError(
                f"a process of prepare ended at case {case_id}, most often for want of memory; the same command with "
                "fewer --workers goes on."
            ) from error
        if self.writer is None:
            self._open(stack, made.kind)
        assert self.writer is not None
        self.writer.admit(case_id, *made.kind)
        for row in made.rows:
            self.writer.add(row)
        self.left_out += made.left_out

    def complaint(self) -> str:
        """Return one sentence on all broken cases, in the source's order."""
        texts = [self.broken[case_id] for case_id in self.source.case_ids if case_id in self.broken]
        return texts[0] if len(texts) == 1 else f"{len(texts)} cases cannot be prepared: " + " | ".join(texts)


def finished_cases(out: Path) -> set[str]:
    """Return the cases of a source that are in a dataset folder with everything made from them."""
    rows = [row for row in manifest(out).values() if is_whole(out, row)]
    done = {row["case_id"] for row in rows}
    slices: dict[str, int] = {}
    for row in rows:
        volume = row["provenance"].get("volume")
        if volume is not None:
            slices[volume] = slices.get(volume, 0) + 1
            if slices[volume] == row["provenance"].get("slices"):
                done.add(volume)
    return done


def _parts(source: CaseStream, out: Path, shares: Mapping[str, Share]) -> dict[str, str]:
    """Return the part of every case. Broken cases take their place too, so that mending them moves no other."""
    patients = {case_id: str(row["provenance"]["patient"]) for case_id, row in manifest(out).items()}
    unread = {patient_of(case_id) for case_id in source.case_ids if case_id not in finished_cases(out)}
    part = split([*patients.values(), *unread], shares)
    return {case_id: part[patient] for case_id, patient in patients.items()}


Submit = Callable[..., "Future[_Made]"]


@contextmanager
def _workers(count: int) -> Iterator[Submit]:
    """Yield a function that hands work to ``count`` processes of one thread each; does it here and now for one."""
    if count < 2:
        yield _here
        return
    # Forked children of a process with running threads can hang; spawned ones start clean.
    context = multiprocessing.get_context("spawn")
    with _one_thread(), ProcessPoolExecutor(count, context, _begin, (mode(),)) as pool:
        try:
            yield pool.submit  # pyright: ignore[reportReturnType]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _here(work: Callable[..., _Made], *arguments: Any) -> "Future[_Made]":
    future: Future[_Made] = Future()
    try:
        future.set_result(work(*arguments))
    except InputError as error:
        future.set_exception(error)
    return future


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes that begin inside have one thread: so many at work would only wait for each other."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _begin(shown: Mode) -> None:
    torch.set_num_threads(1)
    set_mode(shown)
