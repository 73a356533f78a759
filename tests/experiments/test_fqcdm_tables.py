"""FQCDM's Tables 1 to 3 and 5 at toy size: what is shared is trained once, and every cell can be done alone."""

from pathlib import Path

import numpy as np
import pytest

from cardiosynth.cli import main
from cardiosynth.core.errors import InputError
from cardiosynth.core.store import read_json, read_rows
from cardiosynth.data.dataset import read_dataset
from cardiosynth.evaluation.results import Results, read_results
from cardiosynth.experiments.fqcdm_rows import BICUBIC, CODECS, JOINT, OPPONENTS, STARTS, Ablation, TablesPlan, all_rows
from cardiosynth.experiments.fqcdm_tables import TablesStudy
from cardiosynth.sampling.generator import load_generator

from .slices import real_slices


@pytest.fixture
def plan(tmp_path: Path) -> TablesPlan:
    """Of small slices."""
    real_slices(tmp_path / "real", mr=True)
    return TablesPlan(data=str(tmp_path / "real"), recipe="fqcdm/tiny", seeds=(0,), judge_steps=1)


def test_eight_cells_share_four_autoencoders_and_their_denoisers(tmp_path: Path, plan: TablesPlan):
    rows = all_rows(tmp_path / "out", plan.model_copy(update={"seeds": (0, 1)}), "cpu")
    cells = len(CODECS) * len(OPPONENTS) + 1
    assert len({row.name for row in rows}) == len(rows) == cells * len(STARTS) * 2 + len(BICUBIC)
    trainings = {task.name for row in rows for task in row.tasks if task.name.startswith("train ")}
    assert len(trainings) == 2 * 4 * 2 + 2
    assert {task.name for row in rows if row.method == JOINT and row.seed == 1 for task in row.tasks[:-1]} == {
        "train joint quantized-dual-joint-1"
    }
    one = next(row for row in rows if row.name == "continuous-patch-reconstruction-1")
    assert [task.name for task in one.tasks] == [
        "train autoencoder continuous-patch-1", "make continuous-patch-reconstruction-1"
    ]  # fmt: skip
    assert one.codebook is None
    assert "--set autoencoder.network.codebook=null --set autoencoder.adversarial.kind=patch" in one.tasks[0].command


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("opponent", OPPONENTS)
def test_ablations_differ_in_what_their_names_say_and_nothing_else(codec: str, opponent: str):
    plan = TablesPlan(data="", recipe="fqcdm/cpu")
    made, full = (Ablation(Path(), plan, *kinds, 2, "cpu").recipe for kinds in ((codec, opponent), CODECS_OF_FQCDM))
    network, adversarial = made.autoencoder.network, made.autoencoder.adversarial
    assert (network.codebook is None) == (codec == "continuous")
    assert adversarial is not None
    assert adversarial.kind == opponent
    assert made.autoencoder.training.seed == made.diffusion.training.seed == 2
    same = network.model_copy(update={"codebook": full.autoencoder.network.codebook})
    opponents = adversarial.model_copy(update={"kind": "dual"})
    again = made.autoencoder.model_copy(update={"network": same, "adversarial": opponents})
    assert made.model_copy(update={"autoencoder": again}) == full


CODECS_OF_FQCDM = ("quantized", "dual")


def rows_of(found: Results, table: int = 0) -> list:
    return [row[0] for row in found.tables[table].rows]


@pytest.mark.slow
def test_the_verb_draws_slices_of_phantoms_where_no_data_are_given(tmp_path: Path):
    main(["experiment", "fqcdm-table5", str(tmp_path), "--scale", "tiny", "--only", "bicubic-2x"])
    found = read_results(tmp_path / "results.json")
    assert rows_of(found) == ["real", "bicubic-2x"]
    assert found.stages[0].name == "draw slices"


@pytest.mark.slow
def test_a_reconstruction_needs_no_denoiser_and_rows_are_done_once(tmp_path: Path, plan: TablesPlan):
    out = tmp_path / "out"
    alone = TablesStudy(out, plan).run(["quantized-dual-reconstruction"])
    assert rows_of(alone)[1:] == ["FQCDM, reconstruction"]
    assert not (out / "runs" / "quantized-dual-0" / "diffusion").exists()
    first = (out / "measures" / "quantized-dual-reconstruction-0.json").read_bytes()
    found = TablesStudy(out, plan).run(["quantized-dual"])
    assert rows_of(found)[1:] == [f"FQCDM, {title}" for title in ("reconstruction", "image start", "noise start")]
    assert "image start less reconstruction" in rows_of(found, -1)
    assert [len(row) for row in found.figures[0].rows] == [5] * 4, "mask, three starts and the real slice"
    assert (out / "sheets" / "quantized-dual-0.png").exists()
    assert (out / "measures" / "quantized-dual-reconstruction-0.json").read_bytes() == first
    steps = [row["step"] for row in read_rows(out / "steps.jsonl")]
    assert len(steps) == len(set(steps)) == 3 + 2 + 2 * 3
    more = plan.model_copy(update={"seeds": (0, 1)})
    assert TablesStudy(out, more).run(["quantized-dual-0"]) == found
    _check_rows(out, plan)


@pytest.mark.slow
def test_the_joint_loss_and_coarser_grids_stand_beside_it(tmp_path: Path, plan: TablesPlan):
    out = tmp_path / "out"
    shown = TablesStudy(out, plan).run([JOINT, "quantized-dual-reconstruction", *BICUBIC])
    assert {f"FQCDM, joint loss, {title}" for title in ("reconstruction", "image start")} < set(rows_of(shown))
    assert "joint loss less two stages, reconstruction" in rows_of(shown, -1)
    assert (out / "runs" / "quantized-dual-joint-0" / "joint").exists()
    assert not (out / "runs" / "quantized-dual-joint-0" / "autoencoder" / "metrics.jsonl").exists()
    found = {name: read_json(out / "measures" / f"{name}-reconstruction-0.json") for name in BICUBIC}
    assert all(set(rows) == {"pairs"} for rows in found.values())
    twice, fourfold = (np.mean([row["psnr_db"] for row in rows["pairs"]]) for rows in found.values())
    assert twice > fourfold + 1


def _check_rows(out: Path, plan: TablesPlan) -> None:
    """See that the rows are what their names say."""
    made = {start: read_dataset(out / "synthetic" / f"quantized-dual-{start}-0") for start in STARTS}
    test = read_dataset(plan.data).part("test")
    assert all([row.provenance["reference"] for row in rows] == list(test.case_ids) for rows in made.values())
    assert all(row.origin == "synthetic" for rows in made.values() for row in rows)
    assert "source_image" not in made["noise"][0].provenance
    assert made["image"][0].provenance["sampler"]["strength"] == plan.strength
    codec = load_generator(out / "runs" / "quantized-dual-0").model.codec
    stored = made["reconstruction"][0].required_image()
    np.testing.assert_allclose(stored, codec.reconstruct(test[0]), atol=0.51)
    found = read_json(out / "measures" / "quantized-dual-reconstruction-0.json")
    assert found["codes"]["codes"]["count"] == 32
    assert [row["case"] for row in found["pairs"]] == list(test.case_ids)


@pytest.mark.parametrize(
    ("change", "only", "message"),
    [
        ({}, ["quantised-dual"], "did you mean 'quantized-dual"),
        ({"recipe": "fcas/tiny"}, [], "--recipe fcas/tiny is not one of fqcdm"),
        ({"data": "nowhere"}, [], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_refused(change: dict, only: list, message: str, tmp_path: Path, plan: TablesPlan):
    with pytest.raises(InputError, match=message):
        TablesStudy(tmp_path / "out", plan.model_copy(update=change)).run(only)
