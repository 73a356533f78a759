"""The whole chain through the command line, at toy size: from phantoms to a report, stopped and resumed, in shards."""

from pathlib import Path

import numpy as np
import pytest

from cardiosynth.cli import main
from cardiosynth.core.store import latest_checkpoint, load_tensors, read_rows
from cardiosynth.data.dataset import Dataset, read_dataset, write_dataset

STAGES = ("autoencoder", "diffusion", "control", "segmenter")


def train(stage: str, data: Path, run: Path, steps: int, *words: str) -> None:
    # Without a schedule that knows the end, the first steps of a longer run are those of a shorter one.
    settings = {"steps": steps, "schedule": "constant", "warmup_steps": 0, "checkpoint_every": 100}
    changes = [text for key, value in settings.items() for text in ("--set", f"{stage}.training.{key}={value}")]
    main(["train", stage, str(data), str(run), "--recipe", "fcas/tiny", *changes, *words])


def weights(run: Path, stage: str) -> dict[str, np.ndarray]:
    tensors = load_tensors(latest_checkpoint(run / stage) / "model.safetensors")
    return {name: value.numpy() for name, value in tensors.items()}


def assert_same_cases(first: Dataset, second: Dataset) -> None:
    assert first.case_ids == second.case_ids
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.mask, other.mask)
        np.testing.assert_array_equal(one.confidence, other.confidence)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, three trained stages, masks and two synthetic cases."""
    root = tmp_path_factory.mktemp("chain")
    data, run = root / "phantoms", root / "run"
    main(["phantom", str(data), "--cases", "4", "--shape", "32", "32", "32", "--protocols", "2"])
    for stage in STAGES[:3]:
        train(stage, data, run, 4)
    main(["masks", str(data), str(root / "masks"), "--cases", "2", "--recipe", "fcas/tiny"])
    generate(root, "synthetic", "--cases", "2")
    return root


def generate(root: Path, out: str, *words: str) -> None:
    places = ("--templates", str(root / "phantoms"), "--masks", str(root / "masks"))
    main(["generate", str(root / "run"), str(root / out), *places, *words])


@pytest.mark.slow
def test_every_trainer_stopped_and_resumed_ends_with_the_same_bits(chain: Path):
    train("segmenter", chain / "synthetic", chain / "run", 4)
    again = chain / "stopped"
    for stage in STAGES:
        data = chain / ("synthetic" if stage == "segmenter" else "phantoms")
        train(stage, data, again, 2)
        assert read_rows(again / stage / "metrics.jsonl")[-1]["step"] == 2
        train(stage, data, again, 4)
        unbroken = weights(chain / "run", stage)
        for name, value in weights(again, stage).items():
            np.testing.assert_array_equal(value, unbroken[name], err_msg=f"{stage}: {name}")


@pytest.mark.slow
def test_a_case_is_the_same_bits_alone_in_a_shard_and_in_a_full_run(chain: Path):
    full = read_dataset(chain / "synthetic")
    generate(chain, "sharded", "--cases", "2", "--shard", "1/2")
    assert_same_cases(full.subset(["synthetic-00001"]), read_dataset(chain / "sharded"))
    generate(chain, "sharded", "--cases", "2", "--shard", "0/2")
    sharded = read_dataset(chain / "sharded")
    assert_same_cases(full, sharded.subset(full.case_ids))
    generate(chain, "longer", "--cases", "1")
    generate(chain, "longer", "--cases", "2")
    assert_same_cases(full, read_dataset(chain / "longer"))


@pytest.mark.slow
def test_synthetic_cases_say_what_they_are(chain: Path):
    import nibabel as nib

    dataset = read_dataset(chain / "synthetic")
    for case in dataset:
        assert case.origin == "synthetic"
        assert set(np.unique(case.required_mask())) <= {0, *case.labels.target_codes}
        assert case.provenance["template"] not in case.provenance["parents"]
        assert case.provenance["checkpoints"].keys() == {"autoencoder", "diffusion", "control"}
        header = nib.load(dataset.file("image", case.case_id)).header
        assert bytes(header["descrip"]).startswith(b"SYNTHETIC")


@pytest.mark.slow
def test_results_become_one_page_without_outside_links(chain: Path):
    results, page = chain / "results.json", chain / "report.html"
    main(["evaluate", str(chain / "phantoms"), str(chain / "synthetic"), "--out", str(results)])
    main(["report", str(results), "--out", str(page)])
    text = page.read_text(encoding="utf-8")
    assert "SYNTHETIC" in text
    assert "data:image/png;base64," in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


@pytest.mark.slow
def test_one_pair_is_enough_for_masks_and_templates_but_not_for_training(
    chain: Path, capsys: pytest.CaptureFixture[str]
):
    one = write_dataset(read_dataset(chain / "phantoms")[:1], chain / "one")
    with pytest.raises(SystemExit) as ended:
        train("autoencoder", one.root, chain / "never", 2)
    assert ended.value.code == 2
    assert "training needs two or more" in capsys.readouterr().err
    assert not (chain / "never").exists()


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_recipe_only(chain: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["train", "control", str(chain / "phantoms"), str(chain / "run"), "--recipe", "fcas/demo"])
    assert ended.value.code == 2
    assert "fcas/tiny" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train("control", chain / "phantoms", chain / "run", 4, "--set", "control.training.learning_rate=0.5")
    assert "learning_rate" in capsys.readouterr().err
