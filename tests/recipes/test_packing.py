"""Packed runs: rounded and nothing else, whole or absent, and honest about where they come from."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion.small import AUTOENCODER, CONTROL, DIFFUSION, TRAINING, case, dataset

from cardiosynth.autoencoder.networks import build_autoencoder
from cardiosynth.autoencoder.task import load_initial
from cardiosynth.cli import main
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.store import checkpoints, load_tensors, read_json, write_json
from cardiosynth.data.dataset import read_dataset, write_dataset
from cardiosynth.diffusion.records import begin_as
from cardiosynth.evaluation.judge import refuse_partial
from cardiosynth.evaluation.results import CaseFigure, Results, Stage, pointer, write_results
from cardiosynth.recipes.fcas import TINY
from cardiosynth.recipes.packing import Packing, half, is_packed, pack_run
from cardiosynth.recipes.registry import keep_recipe
from cardiosynth.recipes.stages import Earlier, train_stage
from cardiosynth.sampling.confidence import ConfidenceSettings
from cardiosynth.sampling.generator import LatentDiffusionGenerator, LatentDiffusionStages, load_generator
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.segmentation.networks import SegmenterSettings
from cardiosynth.segmentation.predict import load_segmenter
from cardiosynth.segmentation.task import SegmentationStage, train_segmenter

SAMPLER = SamplerSettings(steps=2, precision="fp32", confidence=ConfidenceSettings(interval=1))
STAGES = LatentDiffusionStages(autoencoder=AUTOENCODER, diffusion=DIFFUSION, control=CONTROL)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data``, a trained ``run``, a ``judge`` of other cases, and what all of it is packed to: ``packed``."""
    root = tmp_path_factory.mktemp("packing")
    LatentDiffusionGenerator(STAGES, SAMPLER).fit(dataset(root / "data"), root / "run")
    keep_recipe(root / "run", TINY)
    network = SegmenterSettings(channels=(4, 8), strides=(2,))
    stage = SegmentationStage(network=network, crop=(8, 8, 8), training=TRAINING)
    train_segmenter([case(i) for i in (10, 11)], root / "judge", stage, IntensityScale())
    words = ("weights", "pack", root / "run", root / "packed", "--judge", root / "judge", "--data", root / "data")
    main(list(map(str, words)))
    return root


def weights(run: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_tensors(checkpoints(run / stage)[-1] / "model.safetensors")


def recorded(run: Path, stage: str) -> dict:
    return read_json(checkpoints(run / stage)[-1] / "record.json")


def test_nothing_but_rounding_changes_the_images(root: Path):
    original, packed = (load_generator(root / name, sampler=SAMPLER) for name in ("run", "packed"))
    first, second = (generator.generate(case(0), case(2), 0) for generator in (original, packed))
    model = original.model
    for network in (model.codec.autoencoder, model.network):
        network.load_state_dict({name: value.float() for name, value in half(network.state_dict()).items()})
    rounded = original.generate(case(0), case(2), 0)
    np.testing.assert_array_equal(second.image, rounded.image)
    np.testing.assert_array_equal(second.confidence, rounded.confidence)
    assert np.abs(second.image.astype(int) - first.image).max() <= 30, "float16 keeps 11 bits of a weight"
    assert all(value.dtype == torch.float32 for value in packed.model.network.parameters())


def test_what_is_made_names_both_fingerprints(root: Path):
    facts = load_generator(root / "packed", sampler=SAMPLER).generate(case(0), case(2), 0).provenance
    for stage in ("autoencoder", "control"):
        assert facts["checkpoints"][stage] == recorded(root / "packed", stage)["fingerprint"]
        assert facts["packed_from"][stage] == recorded(root / "run", stage)["fingerprint"]
    assert recorded(root / "packed", "control")["autoencoder"] == facts["checkpoints"]["autoencoder"]


def test_only_what_is_needed_is_packed(root: Path):
    files = {file.relative_to(root / "packed").as_posix() for file in (root / "packed").rglob("*") if file.is_file()}
    stages = [f"{stage}/step-0000002/{name}" for stage in ("autoencoder", "control", "segmenter")
              for name in ("model.safetensors", "record.json")]  # fmt: skip
    assert files == {*stages, "autoencoder/verdict.json", "recipe.json", "data.json", "README.md"}
    assert {value.dtype for value in weights(root / "packed", "control").values()} == {torch.float16}


def test_numbers_that_float16_does_not_hold_stay_as_they_are():
    given = {"weight": torch.tensor([1.0, 3e-9]), "count": torch.tensor([7e4]), "index": torch.tensor([1 << 40])}
    packed = half(given)
    assert {name: value.dtype for name, value in packed.items()} == {
        "weight": torch.float16, "count": torch.float32, "index": torch.int64,
    }  # fmt: skip
    assert packed["count"] == 7e4


def test_packing_again_makes_the_same_bits(root: Path, tmp_path: Path):
    pack_run(Packing(root / "run"), tmp_path / "again")
    for stage in ("autoencoder", "control"):
        assert recorded(tmp_path / "again", stage)["fingerprint"] == recorded(root / "packed", stage)["fingerprint"]
    pack_run(Packing(root / "run", judge=root / "judge"), tmp_path / "again")
    assert load_segmenter(tmp_path / "again").packed_from == load_segmenter(root / "judge").fingerprint


def test_training_goes_on_elsewhere_from_the_packed_weights(root: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"is packed.*--init"):
        train_stage("control", root / "data", root / "packed", TINY, Earlier(), "cpu")
    assert not (root / "packed" / "latents").exists()
    autoencoder = build_autoencoder(AUTOENCODER.network)
    assert load_initial(autoencoder, root / "packed") == recorded(root / "packed", "autoencoder")["fingerprint"]
    module = load_generator(root / "run").model.network
    begin_as(module, root / "packed" / "control", CONTROL)
    for name, value in weights(root / "packed", "control").items():
        assert torch.equal(module.state_dict()[name], value.float()), name


def test_a_judge_is_known_by_the_weights_it_was_rounded_from(root: Path, tmp_path: Path):
    judge, before = (load_segmenter(root / name) for name in ("packed", "judge"))
    assert judge.packed_from == before.fingerprint
    taught = case(0, origin="synthetic", provenance={"checkpoints": {"perceptual": before.fingerprint}})
    with pytest.raises(InputError, match="took part in making small-0"):
        refuse_partial(judge, write_dataset([taught], tmp_path / "made"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit_mb": 0.001}, "may have 0.001; train smaller networks"),
        ({"run": "packed"}, "is packed already"),
        ({"judge": "data"}, "holds no checkpoint"),
        ({"data": "others"}, "is not what the autoencoder of .*run learned from"),
        ({"run": "nothing"}, "holds no checkpoint"),
    ],
)
def test_what_cannot_be_packed_leaves_nothing(root: Path, tmp_path: Path, changes: dict, message: str):
    dataset(root / "others", 3)
    places = {key: root / value if isinstance(value, str) else value for key, value in changes.items()}
    with pytest.raises(InputError, match=message):
        pack_run(Packing(**{"run": root / "run", **places}), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_else_is_left_alone(root: Path, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "mine.txt", root / "run", root):
        with pytest.raises(InputError, match="another folder"):
            pack_run(Packing(root / "run"), out)
    assert (tmp_path / "mine.txt").exists()
    assert not is_packed(root / "run")


def test_a_segmenter_that_taught_the_autoencoder_cannot_judge(root: Path, tmp_path: Path):
    record = checkpoints(root / "run" / "autoencoder")[-1] / "record.json"
    before = read_json(record)
    write_json(record, {**before, "perceptual": "a+" + load_segmenter(root / "judge").fingerprint})
    try:
        with pytest.raises(InputError, match="taught the autoencoder and cannot judge"):
            pack_run(Packing(root / "run", judge=root / "judge"), tmp_path / "out")
    finally:
        write_json(record, before)


def test_the_card_is_written_from_the_records(root: Path, tmp_path: Path):
    text = (root / "packed" / "README.md").read_text(encoding="utf-8")
    for stage in ("autoencoder", "control"):
        assert all(recorded(root / name, stage)["fingerprint"] in text for name in ("run", "packed"))
    for words in ("Not for clinical use", "4 cases (real)", "CC0-1.0", "2 other cases, `small-10` to `small-11`"):
        assert words in text
    assert recorded(root / "packed", "control")["packed"]["trained"][0]["seconds_per_step"] > 0
    assert "phantoms only" not in text, "these cases say that they are real"
    phantoms = [case(index, origin="phantom") for index in range(4)]
    request = Packing(root / "run", data=write_dataset(phantoms, tmp_path / "phantoms").root)
    assert "phantoms only" in (pack_run(request, tmp_path / "packed") / "README.md").read_text(encoding="utf-8")


def test_the_card_counts_the_steps_of_earlier_runs(root: Path, tmp_path: Path):
    record = checkpoints(root / "run" / "control")[-1] / "record.json"
    begun = recorded(root / "judge", "segmenter") | {"stage": "control", "fingerprint": "0123456789abcdef", "step": 700}
    write_json(tmp_path / "before" / "control" / "step-0000700" / "record.json", begun)
    before = read_json(record)
    write_json(record, {**before, "init": "0123456789abcdef"})
    try:
        packed = pack_run(Packing(root / "run", earlier=(tmp_path / "before",)), tmp_path / "packed")
    finally:
        write_json(record, before)
    assert [each["step"] for each in recorded(packed, "control")["packed"]["trained"]] == [2, 700]
    assert "| control | 700 | not recorded |" in (packed / "README.md").read_text(encoding="utf-8")


def test_numbers_enter_the_card_where_these_weights_made_the_cases(root: Path, tmp_path: Path):
    for name in ("packed", "run"):
        made = load_generator(root / name, sampler=SAMPLER).generate(case(0), case(2), 0)
        folder = write_dataset([made], tmp_path / name).root
        figure = CaseFigure(title="one", synthetic=pointer(folder, made.case_id, tmp_path))
        stage = Stage(name="evaluate", command="cardiosynth evaluate real made")
        write_results(
            Results(title="t", summary="Found.", figures=(figure,), stages=(stage,)), tmp_path / f"{name}.json"
        )
    packed = pack_run(Packing(root / "run", results=tmp_path / "packed.json"), tmp_path / "out")
    text = (packed / "README.md").read_text(encoding="utf-8")
    assert "Found." in text
    assert "cardiosynth evaluate real made" in text
    assert json.loads((packed / "evaluation.json").read_text())["figures"] == []
    with pytest.raises(InputError, match="was not made by these packed weights"):
        pack_run(Packing(root / "run", results=tmp_path / "run.json"), tmp_path / "other")
    assert read_dataset(tmp_path / "run").case_ids


def test_what_it_is_and_where_it_comes_from_is_told(root: Path, capsys: pytest.CaptureFixture[str]):
    main(["weights", "info", str(root / "packed"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [each["stage"] for each in found] == ["autoencoder", "control", "segmenter"]
    assert [each["packed_from"] for each in found] == [
        recorded(root / run, each["stage"])["fingerprint"]
        for run, each in zip(("run", "run", "judge"), found, strict=True)
    ]
