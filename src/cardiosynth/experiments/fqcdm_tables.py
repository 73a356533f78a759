"""FQCDM's Tables 1 to 3 and 5: FQCDM and its ablations, each in three ways, measured on patients nobody has seen.

The paper gives PSNR, MS-SSIM and FID of "synthetic" images without saying which images are compared. Here every method
has three named rows: see ``fqcdm_rows``. Table 5's eight cells (codec, latents, discriminator) share four autoencoders
and their denoisers; each is trained once. Segmenters that took no part in any training tell whether slices show their
masks, and give the features of KID and FID.

``cardiosynth experiment fqcdm-table5 OUT`` runs it. ``--only`` names the rows to do now, and several processes may
share the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.picture import save_png
from cardiosynth.core.store import read_json, write_json
from cardiosynth.data.dataset import read_dataset
from cardiosynth.evaluation.results import GalleryFigure, Results, Tile, pointer
from cardiosynth.experiments.fqcdm_measures import Measuring
from cardiosynth.experiments.fqcdm_rows import SLICES, STARTS, Images, TablesPlan, all_rows
from cardiosynth.experiments.method_tables import method_results
from cardiosynth.experiments.phantom_slices import write_phantom_slices
from cardiosynth.experiments.request import Request
from cardiosynth.experiments.slice_judge import HALVES, train_extractor, train_judge
from cardiosynth.experiments.slice_sheets import draw_sheet
from cardiosynth.experiments.study import Study, Task
from cardiosynth.recipes.registry import find_recipe

SHEET_ORDER = tuple(reversed(STARTS))
"""From what is made of the mask alone to what is nearly the real slice."""
SHOWN = 4
"""Masks in the gallery."""


def experiment(request: Request) -> Results:
    """Run the study as it was asked for; without ``--data`` on slices of phantoms."""
    data = str(request.data or request.out / SLICES)
    study = TablesStudy(request.out, request.plan(TablesPlan, data=data), request.device, request.command)
    return study.run(request.only).model_copy(update={"title": request.experiment.title})


@dataclass(frozen=True)
class TablesStudy:
    """One study in one folder.

    Writes ``slices/`` where the data are to lie there, ``judge``, ``features``, ``runs/METHOD-SEED``,
    ``synthetic/ROW``, ``measures/ROW.json``, and ``sheets/METHOD-SEED.png`` where all three rows of a method are there.
    Sheets show the test slices.

    Attributes:
        out: the folder.
        plan: how much of everything.
        device: ``cpu`` or ``cuda``.
        again: returns the command that does parts of it.
    """

    out: Path
    plan: TablesPlan
    device: str = "cpu"
    again: Callable[..., str] = lambda *only: ""

    def run(self, only: Sequence[str] = ()) -> Results:
        """Do what is not done yet and return what was found, of the rows that there are.

        Args:
            only: what to do now: rows such as ``quantized-dual-noise-0``, the same without its seed, or methods; all by
                default.

        Raises:
            InputError: the folder holds a study of another plan, a name of no row, or data without its three parts.
        """
        self._draw_slices()
        for images in self.chosen(only):
            self.do(images)
        self.draw_sheets()
        return self.results()

    def _draw_slices(self) -> None:
        """Draw slices of phantoms, where the data are to lie in the study's folder."""
        slices = self.out / SLICES
        if Path(self.plan.data) == slices:
            shape = find_recipe(self.plan.recipe).shape
            work = partial(write_phantom_slices, slices, self.plan.patients, shape[0])
            study = Study(self.out, self._identity, {"draw slices": 2.0 * self.plan.patients})
            study.step("draw slices", self.again(), work)

    @cached_property
    def rows(self) -> list[Images]:
        """All rows."""
        return all_rows(self.out, self.plan, self.device)

    def chosen(self, only: Sequence[str]) -> list[Images]:
        """Return the rows that ``only`` names."""
        known = set().union(*(images.names for images in self.rows))
        for name in only:
            if name not in known:
                raise InputError(f"--only {name}" + suggest(name, sorted(known)))
        return [images for images in self.rows if not only or images.names & set(only)]

    @cached_property
    def steps(self) -> Study:
        """What was done."""
        tasks = [*self._judging, *(task for images in self.rows for task in self._tasks(images))]
        return Study(self.out, self._identity, {task.name: task.expected_s for task in tasks})

    @property
    def _identity(self) -> dict[str, Any]:
        """Rows of one seed know nothing of others, so that seeds can be added later."""
        return self.plan.model_dump(mode="json", exclude={"seeds"})

    def do(self, images: Images) -> None:
        """Train, make and measure one row, and first what measures it."""
        self.steps.do(*self._judging, *self._tasks(images))

    @property
    def _judging(self) -> tuple[Task, ...]:
        plan, command = self.plan, self.again()
        given = (Path(plan.data), plan.recipe, plan.judge_steps, plan.changes, self.device)
        expected_s = 0.12 * plan.judge_steps
        return (
            Task("train judge", command, partial(train_judge, self.out / "judge", *given), HALVES * expected_s),
            Task("train features", command, partial(train_extractor, self.out / "features", *given), expected_s),
            Task("measure real", command, self._measure_real, 60.0),
        )

    def _tasks(self, images: Images) -> tuple[Task, ...]:
        command, work = self.again(images.name), partial(self._measure, images)
        return (*images.tasks, Task(f"measure {images.name}", command, work, 60.0))

    @cached_property
    def measuring(self) -> Measuring:
        """With what rows are measured; its segmenters are trained by then."""
        plan = self.plan
        given = (Path(plan.data), plan.recipe, plan.judge_steps, plan.changes, self.device)
        judges, seer = train_judge(self.out / "judge", *given), train_extractor(self.out / "features", *given)
        return Measuring(plan.data, judges, seer, self.out / "kept")

    def _measure_real(self) -> None:
        write_json(self._measures("real"), self.measuring.real())

    def _measure(self, images: Images) -> None:
        write_json(self._measures(images.name), self.measuring.row(images))

    def _measures(self, name: str) -> Path:
        return self.out / "measures" / f"{name}.json"

    # -----------------------------------------------------------------------------------------------------------
    # What is shown.

    def draw_sheets(self) -> None:
        """Draw the methods whose three rows are there and that have no sheet yet."""
        found: dict[str, dict[str, Images]] = {}
        for images in self.rows:
            if self._measures(images.name).exists():
                found.setdefault(f"{images.method}-{images.seed}", {})[images.start] = images
        for name, rows in found.items():
            sheet = self.out / "sheets" / f"{name}.png"
            if len(rows) == len(STARTS) and not sheet.exists():
                made = {start: read_dataset(rows[start].dataset) for start in SHEET_ORDER}
                sheet.parent.mkdir(exist_ok=True)
                save_png(draw_sheet(read_dataset(self.plan.data).part("test"), made), sheet)

    def results(self) -> Results:
        """Return what was found, of what there is."""
        found: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
        for images in self.rows:
            file = self._measures(images.name)
            if file.exists():
                found.setdefault((images.method, images.start), {})[images.seed] = read_json(file)
        shown = method_results(found, read_json(self._measures("real")), self.plan.strength)
        figures = tuple(figure for figure in [self._gallery()] if figure)
        return shown.model_copy(update={"stages": self.steps.stages(), "figures": figures})

    def _gallery(self) -> GalleryFigure | None:
        """Return masks of test slices with what the first method that is whole makes of them; a row per mask."""
        test, whole = read_dataset(self.plan.data).part("test"), (self.out / "sheets").glob("*.png")
        name = next((sheet.stem for sheet in sorted(whole, reverse=True)), None)
        if name is None:
            return None
        made = {x.start: read_dataset(x.dataset) for x in self.rows if f"{x.method}-{x.seed}" == name}
        rows = []
        for case_id in test.case_ids[:: max(1, len(test) // SHOWN)][:SHOWN]:
            tiles = [Tile(case=pointer(test.root, case_id, self.out), text="mask", layer="mask")]
            for start in SHEET_ORDER:
                own = next(n for n, row in made[start].rows.items() if row["provenance"]["reference"] == case_id)
                tiles.append(Tile(case=pointer(made[start].root, own, self.out), text=start, layer="image"))
            tiles.append(Tile(case=pointer(test.root, case_id, self.out), text="real", layer="image"))
            rows.append(tuple(tiles))
        caption = "What is made for the masks of test slices: from noise, from the noised real slice, and encoded only."
        return GalleryFigure(title=f"Slices of {name}", caption=caption, rows=tuple(rows))
