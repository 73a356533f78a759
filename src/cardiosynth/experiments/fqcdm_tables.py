"""FQCDM's Tables 1 to 3 and 5: FQCDM and its ablations, each in three ways, measured on patients nobody has seen.

The paper gives PSNR, MS-SSIM and FID of "synthetic" images without saying which images are compared. Here every method
has three named rows: see ``fqcdm_rows``. Table 5's eight cells (codec, latents, discriminator) share four autoencoders
and their denoisers; each is trained once. Segmenters that took no part in any training tell whether slices show their
masks, and give the features of KID and FID.

Run: ``python -m cardiosynth.experiments.fqcdm_tables OUT --data ACDC_SLICES``. The same command goes on after a stop;
``--only`` names the rows to do now, and several processes may share the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.picture import save_png
from cardiosynth.core.store import read_json, write_json, write_text
from cardiosynth.data.dataset import read_dataset
from cardiosynth.experiments.fqcdm_measures import Measuring
from cardiosynth.experiments.fqcdm_rows import STARTS, Images, TablesPlan, Task, again, all_rows
from cardiosynth.experiments.method_tables import tables
from cardiosynth.experiments.slice_judge import HALVES, train_extractor, train_judge
from cardiosynth.experiments.slice_sheets import draw_sheet
from cardiosynth.experiments.study import Study

SHEET_ORDER = tuple(reversed(STARTS))
"""From what is made of the mask alone to what is nearly the real slice."""


def run_study(out: Path, plan: TablesPlan, only: Sequence[str] = (), device: str = "cpu") -> Path:
    """Do what is not done yet of the study in ``out`` and return its tables.

    Writes ``judge``, ``features``, ``runs/METHOD-SEED``, ``synthetic/ROW``, ``measures/ROW.json``, ``table.md`` of the
    rows that there are, and ``sheets/METHOD-SEED.png`` where all three are. Sheets show the test slices.

    Args:
        out: the study's folder.
        plan: how much of everything.
        only: what to do now: rows such as ``quantized-dual-noise-0``, the same without its seed, or methods; all by
            default.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: the folder holds a study of another plan, a name of no row, or data without its three parts.
    """
    study = TablesStudy(out, plan, device)
    for images in study.chosen(only):
        study.do(images)
    study.draw_sheets()
    return study.write_tables()


@dataclass(frozen=True)
class TablesStudy:
    """One study in one folder; see :func:`run_study`."""

    out: Path
    plan: TablesPlan
    device: str = "cpu"

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
        # Rows of one seed know nothing of others, so that seeds can be added later.
        identity = self.plan.model_dump(mode="json", exclude={"seeds"})
        return Study(self.out, identity, {task.name: task.expected_s for task in tasks})

    def do(self, images: Images) -> None:
        """Train, make and measure one row, and first what measures it."""
        for task in (*self._judging, *self._tasks(images)):
            self.steps.step(task.name, task.command, task.work)

    @property
    def _judging(self) -> tuple[Task, ...]:
        plan, command = self.plan, again(self.out, self.plan)
        given = (Path(plan.data), plan.recipe, plan.judge_steps, plan.changes, self.device)
        expected_s = 0.12 * plan.judge_steps
        return (
            Task("train judge", command, partial(train_judge, self.out / "judge", *given), HALVES * expected_s),
            Task("train features", command, partial(train_extractor, self.out / "features", *given), expected_s),
            Task("measure real", command, self._measure_real, 60.0),
        )

    def _tasks(self, images: Images) -> tuple[Task, ...]:
        command, work = again(self.out, self.plan, images.name), partial(self._measure, images)
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

    def write_tables(self) -> Path:
        """Write the tables of what there is and return their file."""
        found: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
        for images in self.rows:
            file = self._measures(images.name)
            if file.exists():
                found.setdefault((images.method, images.start), {})[images.seed] = read_json(file)
        write_text(self.out / "table.md", tables(found, read_json(self._measures("real")), self.plan.strength))
        return self.out / "table.md"


app = App(help=__doc__)


@app.default
def main(
    out: Path,
    /,
    *,
    data: Path,
    recipe: str = TablesPlan.model_fields["recipe"].default,
    seeds: int = 1,
    strength: float = TablesPlan.model_fields["strength"].default,
    judge_steps: int = TablesPlan.model_fields["judge_steps"].default,
    changes: Annotated[list[str] | None, Parameter("--set", consume_multiple=False)] = None,
    only: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    device: str = "cpu",
) -> None:
    """Run the study, or what is not done yet of it.

    Args:
        out: folder for everything.
        data: real slices, split by patient into train, validation and test.
        recipe: FQCDM's; ablations differ from it in one or two settings.
        seeds: how many trainings of each method; more may be added later.
        strength: how far the row `image` noises, from 0 (not at all) to 1 (to the end).
        judge_steps: optimizer steps of each of the three segmenters that judge.
        changes: one setting of the recipe, e.g. --set diffusion.training.steps=8000; may be given often.
        only: rows to do now, such as quantized-dual-noise-0 or quantized-dual-noise, or methods; all by default.
        device: cpu or cuda.
    """
    plan = parse_settings(
        TablesPlan,
        {
            "data": str(data), "recipe": recipe, "seeds": list(range(seeds)), "strength": strength,
            "judge_steps": judge_steps, "changes": changes or [],
        },
        "the plan",
    )  # fmt: skip
    print(run_study(out, plan, only or [], device).read_text())  # noqa: T201


if __name__ == "__main__":
    app()
