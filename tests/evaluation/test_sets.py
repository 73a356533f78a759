"""Sets of slices: gratings of different width, each as fine as a number says."""

import shlex
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cardiosynth.cli import main
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import label_table
from cardiosynth.data.dataset import Dataset, write_dataset
from cardiosynth.evaluation.comparison import Comparison
from cardiosynth.evaluation.comparison_tables import agreement_table
from cardiosynth.evaluation.extraction import Extractor, SampleSettings
from cardiosynth.evaluation.judge import Seen, agreement, judge_extractor, refuse_partial
from cardiosynth.evaluation.measures import measure_case
from cardiosynth.evaluation.results import Results, Table, read_results, write_results
from cardiosynth.evaluation.sets import read_comparison
from cardiosynth.evaluation.suite import evaluate
from cardiosynth.segmentation.networks import SegmenterSettings, build_segmenter, target_classes
from cardiosynth.segmentation.predict import Segmenter
from cardiosynth.segmentation.task import SegmentationStage, train_segmenter
from cardiosynth.training.settings import TrainingSettings

LABELS = label_table({"left_ventricle": 1})
SETTINGS = SampleSettings(picture_side=8, splits=2, pairs=6, neighbors=2)


def slice_case(case_id: str, seed: int, origin: str = "real", **provenance) -> Case:
    rng = np.random.default_rng(seed)
    mask = np.zeros((1, 16, 16), np.uint8)
    mask[0, 4:12, 4:12] = 1
    image = np.where(mask > 0, 300, 0) + rng.normal(0, 60, mask.shape)
    return Case(
        case_id=case_id, image=image.astype(np.int16), mask=mask, affine=np.eye(4), labels=LABELS, origin=origin,
        provenance=provenance,
    )  # fmt: skip


def moments(seen: list[int] | None = None) -> Extractor:
    def features(x):
        if seen is not None:
            seen.append(len(x))
        return torch.cat([x.flatten(1).mean(1, keepdim=True), x.flatten(1).std(1, keepdim=True)], 1)

    return Extractor("moments", "abcd", 2, features)


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Dataset]:
    root = tmp_path_factory.mktemp("sets")
    real = [slice_case(f"p{i}_slice0", i) for i in range(8)]
    training = [slice_case(f"t{i}", 100 + i) for i in range(6)]
    fresh = [slice_case(f"s{i}", 200 + i, "synthetic") for i in range(8)]
    copies = [slice_case(f"s{i}", 100 + i, "synthetic", parents=["t0"]) for i in range(6)]
    named = {"real": real, "training": training, "fresh": fresh, "copies": copies}
    return {name: write_dataset(cases, root / name) for name, cases in named.items()}


def table(results: Results, title: str) -> Table:
    return next(t for t in results.tables if t.title == title)


def cells(table: Table, row: int = 0) -> dict:
    return dict(zip((c.title for c in table.columns), table.rows[row], strict=True))


def test_every_number_says_how_it_was_made(sets):
    comparison = Comparison(extractors=(moments(),), training=sets["training"], settings=SETTINGS)
    results = evaluate(sets["real"], sets["fresh"], comparison=comparison)
    found = table(results, "Distributions of features: moments")
    for words in ("moments abcd", "axial slices", "[-1000, 2000] HU", "Whole images", "Seed 0", "(d = 2)"):
        assert words in found.protocol
    row = cells(found)
    assert (row["images"], row["n real"], row["n synthetic"]) == ("axial", 8, 8)
    assert row["KID x 1000"].low <= row["KID x 1000"].value <= row["KID x 1000"].high
    assert "8 voxels a side" in table(results, "Memorization").protocol
    assert [row[0] for row in table(results, "Diversity").rows] == ["synthetic", "real"]
    assert table(results, "Diversity").rows[0][1].n == 6


def test_several_networks_are_asked_one_after_another(sets):
    brightness = Extractor("brightness", "ef01", 2, lambda x: x.flatten(1)[:, :3], reading="Three pixels.")
    comparison = Comparison(extractors=(moments(), brightness), training=sets["training"], settings=SETTINGS)
    results = evaluate(sets["real"], sets["fresh"], comparison=comparison)
    first, second = (table(results, f"Distributions of features: {name}") for name in ("moments", "brightness"))
    assert "(d = 2)" in first.protocol
    assert "brightness ef01" in second.protocol
    assert "Three pixels. KID" in second.protocol
    assert [row[0] for row in table(results, "Memorization").rows] == ["pictures", "features of moments abcd"]
    assert [figure.title for figure in results.figures if figure.kind == "points"] == [
        "Features of moments (t-SNE)", "Features of brightness (t-SNE)",
    ]  # fmt: skip


def test_slices_of_the_same_kind_are_at_no_distance_and_others_are(sets, tmp_path: Path):
    bright = [case.with_(image=case.required_image() + np.int16(900)) for case in sets["fresh"]]
    bright_set = write_dataset(bright, tmp_path / "bright")
    comparison = Comparison(extractors=(moments(),), settings=SETTINGS)
    same, far = (
        cells(table(evaluate(sets["real"], made, comparison=comparison), "Distributions of features: moments"))
        for made in (sets["fresh"], bright_set)
    )
    assert same["KID x 1000"].low < 0 < same["KID x 1000"].high
    assert far["KID x 1000"].low > 0
    assert far["FID"] > 100 * far["FID, real halves"]
    assert (far["precision"], far["coverage"]) == (0, 0)
    assert same["coverage"] > 0


def test_copies_are_found_and_shown(sets, tmp_path: Path):
    comparison = Comparison(training=sets["training"], settings=SETTINGS)
    results = evaluate(sets["real"], sets["copies"], comparison=comparison, relative_to=tmp_path)
    row = cells(table(results, "Memorization"))
    assert (row["distance"], row["near copies"], row["median over real"]) == ("pictures", 100, 0)
    assert row["verdict"] == "more than chance explains"
    nearest = cells(table(results, "Nearest pairs"))
    assert nearest == {"synthetic": "s0, slice 0", "training": "t0, slice 0", "distance": 0, "declared parent": "yes"}
    assert cells(table(results, "Nearest pairs"), 1)["declared parent"] == "no"
    assert results.notes[0].startswith("100 % of the synthetic images")
    figure = next(f for f in results.figures if f.title.startswith("Nearest to a training case"))
    assert (figure.synthetic.case_id, figure.real.case_id) == ("s0", "t0")


def test_fresh_slices_are_no_copies(sets):
    comparison = Comparison(extractors=(moments(),), training=sets["training"], settings=SETTINGS)
    results = evaluate(sets["real"], sets["fresh"], comparison=comparison)
    rows = table(results, "Memorization").rows
    assert [row[0] for row in rows] == ["pictures", "features of moments abcd"]
    assert rows[0][3] > 0.5
    (features,) = (figure for figure in results.figures if figure.kind == "points")
    assert {group.name: len(group.points) for group in features.groups} == {"real": 8, "synthetic": 8}
    assert "moments abcd, axial slices" in features.caption


def test_training_cases_cannot_be_the_real_ones(sets):
    with pytest.raises(InputError, match="one of the training cases"):
        evaluate(sets["real"], sets["fresh"], comparison=Comparison(training=sets["real"], settings=SETTINGS))


def test_a_run_that_was_killed_goes_on(sets, tmp_path: Path):
    seen: list[int] = []
    comparison = Comparison(
        extractors=(moments(seen),), training=sets["training"], settings=SETTINGS, keep=tmp_path / "parts"
    )
    first = evaluate(sets["real"], sets["fresh"], comparison=comparison)
    assert sum(seen) == 8 + 8 + 6
    seen.clear()
    again = evaluate(sets["real"], sets["fresh"], comparison=comparison)
    assert not seen
    assert again == first
    write_results(again, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == first


def test_a_run_that_is_killed_measures_no_case_again(sets, tmp_path: Path, monkeypatch):
    measured: list[str] = []

    def measure(case, names):
        if case.case_id == "p5_slice0" and case.case_id not in killed:
            killed.append(case.case_id)
            raise KeyboardInterrupt
        measured.append(case.case_id)
        return measure_case(case, names)

    killed: list[str] = []
    monkeypatch.setattr("cardiosynth.evaluation.suite.measure_case", measure)
    comparison = Comparison(settings=SETTINGS, keep=tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        evaluate(sets["real"], sets["fresh"], comparison=comparison)
    assert len(measured) == 5
    evaluate(sets["real"], sets["fresh"], comparison=comparison)
    assert sorted(measured) == sorted([*sets["real"].case_ids, *sets["fresh"].case_ids])


def test_memory_holds_a_few_cases_however_many_there_are(sets, judge, monkeypatch):
    """Live cases are counted whenever one is read."""
    alive: weakref.WeakSet[Case] = weakref.WeakSet()
    most = []

    def read(dataset, case_id):
        case = original(dataset, case_id)
        alive.add(case)
        most.append(len(alive))
        return case

    original = Dataset.case
    monkeypatch.setattr(Dataset, "case", read)
    comparison = Comparison(judge=judge, extractors=(moments(),), training=sets["training"], settings=SETTINGS)
    evaluate(sets["real"], sets["fresh"], comparison=comparison)
    assert len(most) > 8 + 8 + 6
    assert max(most) <= 4


def test_the_command_leaves_nothing_but_its_results(sets, tmp_path: Path):
    real, made, training = (str(sets[name].root) for name in ("real", "fresh", "training"))
    out = tmp_path / "results.json"
    main(["evaluate", real, made, "--out", str(out), "--training", training, "--crop", "heart"])
    found = table(read_results(out), "Memorization")
    assert "The box of the target structures and 10 % more" in found.protocol
    assert list(tmp_path.iterdir()) == [out]
    (stage,) = read_results(out).stages
    words = ["cardiosynth", "evaluate", real, made, "--out", str(out), "--training", training, "--crop", "heart"]
    assert shlex.split(stage.command)[: len(words)] == words


def test_a_released_network_that_is_none_ends_the_command_before_it_begins(sets, tmp_path: Path, capsys):
    (tmp_path / "other.pth").write_bytes(b"no weights")
    words = [str(sets["real"].root), str(sets["fresh"].root), "--out", str(tmp_path / "results.json")]
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *words, "--extractor", f"inception={tmp_path / 'other.pth'}"])
    assert ended.value.code == 2
    assert "other.pth cannot be read" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


NETWORK = SegmenterSettings(spatial_dims=2, channels=(4, 8), strides=(2,), num_res_units=0)


@pytest.fixture(scope="module")
def judge() -> Segmenter:
    stage = SegmentationStage(network=NETWORK, crop=(16, 16))
    classes = target_classes(LABELS)
    built = build_segmenter(NETWORK, classes).eval().requires_grad_(False)
    return Segmenter(built, stage, LABELS, classes, IntensityScale(), "feed", torch.device("cpu"))


def test_a_judge_is_read_from_its_run(sets, tmp_path: Path):
    training = TrainingSettings(steps=1, batch_size=2, precision="fp32")
    stage = SegmentationStage(network=NETWORK, crop=(16, 16), training=training)
    cases = [slice_case(f"j{i}", 300 + i) for i in range(2)]
    train_segmenter(cases, tmp_path / "run", stage, IntensityScale())
    found = read_comparison(tmp_path / "run", sets["training"].root, None, SETTINGS)
    assert found.judge_cases == ("j0", "j1")
    assert found.judge is not None
    (extractor,) = found.extractors
    assert extractor.fingerprint == found.judge.fingerprint
    assert found.training is not None
    assert len(found.training) == 6


def test_a_judge_is_asked_about_both(sets, judge):
    comparison = Comparison(
        judge=judge, extractors=(judge_extractor(judge),), settings=SETTINGS, judge_cases=("p0_slice0",)
    )
    results = evaluate(sets["real"], sets["fresh"], comparison=comparison)
    found = table(results, "Agreement with the mask")
    assert [row[0] for row in found.rows] == ["left ventricle", "mean over structures"]
    assert "feed" in found.protocol
    assert "8 real and 8 synthetic" in found.protocol
    assert cells(found)["Dice, synthetic"].n == 8
    assert "segmenter feed" in table(results, "Distributions of features: segmenter").protocol
    assert any("p0_slice0" in note for note in results.notes)


def test_agreement_is_the_dice_of_what_the_judge_finds(sets, judge, monkeypatch):
    case = sets["real"][0]
    half = case.required_mask().copy()
    half[0, :8] = 0
    monkeypatch.setattr("cardiosynth.evaluation.judge.predict_mask", lambda judge, case: case.with_(mask=half))
    found = agreement(judge, case)["left_ventricle"]
    assert found.dice == pytest.approx(2 / 3)
    assert found.betti == 0
    assert np.isnan(found.cl_dice), "a chamber has no centerline to follow"


def test_a_vessel_is_followed_as_far_as_the_judge_finds_it(judge, monkeypatch):
    labels = label_table({"coronary_artery": 1})
    whole, half = np.zeros((2, 1, 16, 16), np.uint8)
    whole[0, 4, 2:14], half[0, 4, 2:8] = 1, 1
    case = slice_case("p0", 0).with_(mask=whole, labels=labels)
    monkeypatch.setattr("cardiosynth.evaluation.judge.predict_mask", lambda judge, case: case.with_(mask=half))
    found = agreement(replace(judge, labels=labels), case)["coronary_artery"]
    assert found.cl_dice == pytest.approx(2 / 3), "all of what is found is right, half of the line is found"


def test_agreement_on_synthetic_images_is_told_as_a_share_of_that_on_real_ones():
    labels = label_table({"coronary_artery": 1, "left_ventricle": 2})
    real, synthetic = (
        [{"coronary_artery": Seen(0.6, 1, lines), "left_ventricle": Seen(0.9, 0, float("nan"))}] for lines in (0.8, 0.6)
    )
    found = agreement_table(real, synthetic, labels, "feed")
    assert cells(found)["clDice, synthetic over real"] == pytest.approx(75)
    assert cells(found)["clDice, real"].mean == 0.8
    assert cells(found, 1)["clDice, synthetic over real"] is None


def test_features_of_any_size_of_image(judge):
    extractor = judge_extractor(judge)
    assert extractor.features(torch.rand(2, 1, 15, 13)).shape == (2, 4 + 8)


@pytest.mark.parametrize(
    "provenance", [{"checkpoints": {"perceptual": "feed"}}, {"made": [{"by": "a+feed"}]}], ids=["perceptual", "folds"]
)
def test_a_judge_that_took_part_is_refused(sets, judge, tmp_path: Path, provenance):
    made = write_dataset([slice_case("s0", 0, "synthetic", **provenance)], tmp_path / "made")
    with pytest.raises(InputError, match="took part in making s0"):
        evaluate(sets["real"], made, comparison=Comparison(judge=judge, settings=SETTINGS))
    refuse_partial(judge, sets["fresh"])


def test_only_levels_of_a_unet_are_features(judge):
    stage = judge.stage.model_copy(update={"network": SegmenterSettings(kind="segresnet")})
    with pytest.raises(InputError, match="only a unet's levels"):
        judge_extractor(replace(judge, stage=stage))
