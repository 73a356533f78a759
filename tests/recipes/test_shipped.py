"""What comes with the program: small, from phantoms alone, as its card says, and fit for the demo."""

import shutil
from pathlib import Path

import pytest

from cardiosynth.autoencoder.verdict import shortfalls
from cardiosynth.cli import main
from cardiosynth.core.errors import InputError
from cardiosynth.core.store import checkpoints, file_sha256, read_json
from cardiosynth.recipes.model_card import PACKED_STAGES, model_card
from cardiosynth.recipes.packing import LIMIT_MB, is_packed
from cardiosynth.recipes.registry import as_fcas, find_recipe, recorded_recipe
from cardiosynth.recipes.shipped import shipped_for, shipped_names, shipped_run
from cardiosynth.sampling.generator import load_generator

NAMES = shipped_names()


def records(run: Path) -> dict[Path, dict]:
    found = [checkpoint for stage in PACKED_STAGES for checkpoint in checkpoints(run / stage)]
    return {checkpoint: read_json(checkpoint / "record.json") for checkpoint in found}


def test_one_is_found_by_its_name_and_by_its_recipe(capsys: pytest.CaptureFixture[str]):
    main(["weights", "shipped"])
    printed = Path(capsys.readouterr().out.strip())
    assert printed == shipped_run() == shipped_for("fcas/demo")
    assert shipped_for("fcas/paper") is None
    with pytest.raises(InputError, match="did you mean 'fcas-phantoms'"):
        shipped_run("fcas-phantom")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_whole_and_from_phantoms_alone(name: str):
    run = shipped_run(name)
    assert is_packed(run)
    assert sum(file.stat().st_size for file in run.rglob("*") if file.is_file()) <= LIMIT_MB * 1e6
    for checkpoint, record in records(run).items():
        assert record["fingerprint"] == file_sha256(checkpoint / "model.safetensors")[:16]
        assert {text for each in record["packed"]["trained"] for text in each["licences"]} == {"CC0-1.0"}
    data = read_json(run / "data.json")
    assert (data["origins"], data["licence"], data["source"]) == (["phantom"], ["CC0-1.0"], ["cardiosynth phantom"])


@pytest.mark.parametrize("name", NAMES)
def test_its_card_is_what_its_records_say(name: str, tmp_path: Path):
    run = shipped_run(name)
    assert (run / "README.md").read_text(encoding="utf-8") == model_card(run, name)
    shutil.copytree(run, tmp_path / "other")
    record = next(iter(records(tmp_path / "other"))) / "record.json"
    record.write_text(record.read_text().replace('"fingerprint": "', '"fingerprint": "f'))
    assert (run / "README.md").read_text(encoding="utf-8") != model_card(tmp_path / "other", name)


@pytest.mark.parametrize("name", NAMES)
def test_the_demo_can_use_it(name: str):
    run = shipped_run(name)
    own, wanted = as_fcas(recorded_recipe(run)), as_fcas(find_recipe(recorded_recipe(run).name))
    assert (own.grid, own.intensity) == (wanted.grid, wanted.intensity)
    verdict = read_json(run / "autoencoder" / "verdict.json")
    model = load_generator(run).model
    assert verdict["fingerprint"] == model.fingerprints["autoencoder"], "else the first use would write here"
    assert shortfalls(verdict, wanted.gate) == []
