"""FQCDM's Tables 1 to 3 and 5 at toy size: what is shared is trained once, and every cell can be done alone."""

from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import read_json, read_rows
from cardiosynth.data.dataset import read_dataset
from cardiosynth.experiments.fqcdm_rows import CODECS, OPPONENTS, STARTS, Ablation, TablesPlan, all_rows
from cardiosynth.experiments.fqcdm_tables import main, run_study
from cardiosynth.sampling.generator import load_generator

from .slices import real_slices


@pytest.fixture
def plan(tmp_path: Path) -> TablesPlan:
    """Of small slices."""
    real_slices(tmp_path / "real", mr=True)
    return TablesPlan(data=str(tmp_path / "real"), recipe="fqcdm/tiny", seeds=(0,), judge_steps=1)


def test_eight_cells_share_four_autoencoders_and_their_denoisers(tmp_path: Path, plan: TablesPlan):
    rows = all_rows(tmp_path / "out", plan.model_copy(update={"seeds": (0, 1)}), "cpu")
    assert len({row.name for row in rows}) == len(rows) == len(CODECS) * len(OPPONENTS) * len(STARTS) * 2
    trainings = {task.name for row in rows for task in row.tasks if task.name.startswith("train ")}
    assert len(trainings) == 2 * 4 * 2
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


@pytest.mark.slow
def test_a_reconstruction_needs_no_denoiser_and_rows_are_done_once(tmp_path: Path, plan: TablesPlan):
    out = tmp_path / "out"
    alone = run_study(out, plan, ["quantized-dual-reconstruction"]).read_text()
    assert "| FQCDM, reconstruction | 1 |" in alone
    assert not (out / "runs" / "quantized-dual-0" / "diffusion").exists()
    first = (out / "measures" / "quantized-dual-reconstruction-0.json").read_bytes()
    text = run_study(out, plan, ["quantized-dual"]).read_text()
    assert all(f"| FQCDM, {title} | 1 |" in text for title in ("reconstruction", "image start", "noise start"))
    assert "| image start less reconstruction | 1 |" in text
    assert (out / "sheets" / "quantized-dual-0.png").exists()
    assert (out / "measures" / "quantized-dual-reconstruction-0.json").read_bytes() == first
    steps = [row["step"] for row in read_rows(out / "steps.jsonl")]
    assert len(steps) == len(set(steps)) == 3 + 2 + 2 * 3
    more = plan.model_copy(update={"seeds": (0, 1)})
    assert run_study(out, more, ["quantized-dual-0"]).read_text() == text
    _check_rows(out, plan)


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
        run_study(tmp_path / "out", plan.model_copy(update=change), only)
    with pytest.raises(InputError, match="strength"):
        main(tmp_path / "out", data=Path(plan.data), strength=2.0)
