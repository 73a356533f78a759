import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.cli import main
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.data.annotate.plan import AnnotationPlan, FilesSettings, plan_of
from cardiosynth.data.annotate.run import annotate, plan_annotation
from cardiosynth.data.dataset import mark_parts, read_dataset, write_dataset
from cardiosynth.data.formats.files import read_mask
from cardiosynth.data.formats.nifti import write_nifti
from cardiosynth.data.preparation import Preparation, preparation_of

SHAPE = (10, 9, 8)
AFFINE = np.diag([1.0, 1.0, 1.5, 1.0])
OWN = label_table({"coronary artery": 4, "stent": 9})


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, (1, *SHAPE)).astype(np.int16)


def mask_of(**codes: slice) -> np.ndarray:
    """``code=slice(first, last)``: planes along x; a later one lies over an earlier one."""
    mask = np.zeros((1, *SHAPE), np.uint8)
    for code, planes in codes.items():
        mask[0, planes] = int(code.removeprefix("c"))
    return mask


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Cases a, b and c; b has a mask of its own, with an artery and a stent."""
    cases = [
        Case(case_id="a", image=image(0), affine=AFFINE, labels=OWN, provenance={"licence": "CC BY 4.0"}),
        Case(case_id="b", image=image(1), affine=AFFINE, labels=OWN, mask=mask_of(c4=slice(4, 5), c9=slice(0, 1))),
        Case(case_id="c", image=image(2), affine=AFFINE, labels=OWN),
    ]
    write_dataset(cases, tmp_path / "scans")
    return tmp_path / "scans"


@pytest.fixture
def hearts(tmp_path: Path) -> Path:
    """Masks CASE.nii.gz of all cases, with a table: heart from 1 to 8, left ventricle from 3 to 6, a lung outside."""
    folder = tmp_path / "hearts"
    for name in "abc":
        mask = mask_of(c30=slice(0, 10), c10=slice(1, 8), c20=slice(3, 6))
        write_nifti(folder / f"{name}.nii.gz", mask, AFFINE)
    table = {"labels": [
        {"name": "heart", "code": 10, "color": [1, 2, 3], "role": "surrounding"},
        {"name": "lv", "code": 20, "color": [1, 2, 3]},
        {"name": "lung", "code": 30, "color": [1, 2, 3]},
    ]}  # fmt: skip
    (folder / "labels.json").write_text(json.dumps(table))
    return folder


def made(scans: Path, out: Path, *providers, **changes):
    plan = AnnotationPlan(providers=providers, **changes)
    return annotate(plan_annotation(read_dataset(scans), plan), out, "made")


def names(case: Case) -> list[str]:
    """The structure in each plane along x, '-' for none."""
    called = {0: "-", **{label.code: label.name for label in case.labels}}
    return [called[code] for code in case.required_mask()[0, :, 0, 0].tolist()]


def run(*words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(list(words))
        except SystemExit as ended:
            return int(ended.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def test_given_masks_and_the_datasets_own_become_one(scans: Path, hearts: Path, tmp_path: Path):
    provider = FilesSettings(folder=hearts, rename={"lv": "Left Ventricle"}, licence="CC BY-NC 4.0")
    dataset = made(scans, tmp_path / "out", provider)
    lung, heart, ventricle = "lung", "heart", "left_ventricle"
    assert names(dataset.case("a")) == [lung, *[heart] * 2, *[ventricle] * 3, *[heart] * 2, lung, lung]
    # Its own artery lies over the ventricle; the stent, a target that the ranking does not name, over the lung.
    assert names(dataset.case("b"))[:5] == ["stent", heart, heart, ventricle, "coronary_artery"]
    roles = {label.name: label.role for label in dataset.labels}
    assert roles == {
        "coronary_artery": "target", "left_ventricle": "target", "stent": "target",
        "lung": "surrounding", "heart": "surrounding",
    }  # fmt: skip
    assert dataset.labels.codes == (1, 2, 3, 4, 5)
    assert dataset.labels.named("coronary_artery").components == 2, "what its table knew of it"

    facts = dataset.case("b").provenance["annotation"]
    plane = 9 * 8
    assert facts["overwritten"] == [
        {"lost": "left_ventricle", "to": "coronary_artery", "voxels": plane},
        {"lost": "lung", "to": "stent", "voxels": plane},
    ]
    assert facts["voxels"]["hearts"] == {"lung": 3 * plane, "heart": 4 * plane, "left_ventricle": 3 * plane}
    assert dataset.case("a").provenance["licence"] == "CC BY 4.0; CC BY-NC 4.0"
    np.testing.assert_array_equal(dataset.case("a").image, image(0))
    assert not (tmp_path / "out" / "given").exists()


def test_a_prepared_set_stays_one_with_its_split_and_its_new_label_table(scans: Path, hearts: Path, tmp_path: Path):
    mark_parts(scans, {"a": "train", "b": "test"})
    about = json.loads((scans / "dataset.json").read_text())
    before = Preparation(shape=SHAPE, spacing_mm=(1.0, 1.0, 1.5), intensity_unit="hu")
    about["cardiosynth"]["facts"]["preparation"] = before.recorded()
    (scans / "dataset.json").write_text(json.dumps(about))
    dataset = made(scans, tmp_path / "out", FilesSettings(folder=hearts))
    assert dataset.part("train").case_ids == ("a",)
    assert dataset.part("test").case_ids == ("b",)
    after = preparation_of(dataset)
    assert after == before.model_copy(update={"labels": {label.name: label.code for label in dataset.labels}})
    assert dataset.description.facts["preparation"]["fingerprint"] == after.fingerprint


def test_roles_ranking_and_drops_are_the_plans(scans: Path, hearts: Path, tmp_path: Path):
    low = (("lv",), ("other surroundings",), ("other targets",))
    provider = FilesSettings(folder=hearts, drop=("lung",))
    changes = {"own": False, "roles": {"heart": "target"}, "ranking": low}
    dataset = made(scans, tmp_path / "out", provider, **changes)
    assert names(dataset.case("b")) == ["-", "heart", "heart", "lv", "lv", "lv", "heart", "heart", "-", "-"]
    assert {label.name: label.role for label in dataset.labels} == {"heart": "target", "lv": "target"}


def test_a_file_per_structure_is_painted_by_rank_and_brought_to_the_grid(scans: Path, tmp_path: Path):
    for name in "abc":
        place = tmp_path / "structures" / name
        write_nifti(place / "heart.nii.gz", mask_of(c1=slice(1, 8)), AFFINE)
        shifted = AFFINE.copy()
        shifted[0, 3] = 2  # its plane 0 is the image's plane 2
        write_nifti(place / "Aorta.nii.gz", mask_of(c1=slice(0, 3)), shifted)
    dataset = made(scans, tmp_path / "out", FilesSettings(folder=tmp_path / "structures"), own=False)
    assert names(dataset.case("c")) == ["-", "heart", *["aorta"] * 3, *["heart"] * 3, "-", "-"]
    facts = dataset.case("c").provenance["annotation"]
    assert facts["resampled"] == ["structures"]
    assert facts["overwritten"] == [{"lost": "heart", "to": "aorta", "voxels": 3 * 72}]


def test_what_totalsegmentator_wrote_earlier_is_grouped_as_if_it_ran_here(scans: Path, tmp_path: Path):
    for name in "abc":
        for index, structure in enumerate(["rib_left_1", "sternum", "kidney_left", "vertebrae_T5", "aorta"]):
            path = tmp_path / "total" / name / f"{structure}.nii.gz"
            write_nifti(path, mask_of(c1=slice(index, index + 1)), AFFINE)
    dataset = made(scans, tmp_path / "out", FilesSettings(folder=tmp_path / "total", task="total"), own=False)
    assert names(dataset.case("a"))[:5] == ["ribs_and_sternum", "ribs_and_sternum", "-", "spine", "aorta"]
    assert dataset.labels.named("spine").role == "surrounding"
    assert "TotalSegmentator" in dataset.case("c").provenance["licence"]


def test_a_broken_case_is_told_in_the_end_and_mended_by_the_same_command(scans: Path, hearts: Path, tmp_path: Path):
    whole = (hearts / "b.nii.gz").read_bytes()
    (hearts / "b.nii.gz").write_bytes(whole[:40])
    (hearts / "c.nii.gz").unlink()
    words = ["annotate", str(scans), str(tmp_path / "out"), "--with", f"files:{hearts}"]
    code, _, err = run(*words)
    assert code == 2
    assert "2 cases got no mask" in err
    assert f"b: {hearts / 'b.nii.gz'} is truncated" in err
    assert f"c: {hearts / 'c.nii.gz'} does not exist" in err
    out = tmp_path / "out"
    assert read_dataset(out).case_ids == ("a",)
    first = (out / "labelsTr" / "a.nii.gz").stat().st_mtime_ns

    (hearts / "b.nii.gz").write_bytes(whole)
    shutil.copy(hearts / "b.nii.gz", hearts / "c.nii.gz")
    code, _, err = run(*words)
    assert code == 0, err
    assert read_dataset(out).case_ids == ("a", "b", "c")
    assert (out / "labelsTr" / "a.nii.gz").stat().st_mtime_ns == first, "a finished case is not made again"
    assert "lv lost 72 voxels to coronary_artery" in err


def test_another_plan_in_the_same_folder_is_refused(scans: Path, hearts: Path, tmp_path: Path):
    made(scans, tmp_path / "out", FilesSettings(folder=hearts))
    with pytest.raises(InputError, match="made with other settings"):
        made(scans, tmp_path / "out", FilesSettings(folder=hearts, licence="another"))


def test_a_dry_run_lists_the_result_and_its_plan_is_one(scans: Path, hearts: Path, tmp_path: Path):
    words = ["annotate", str(scans), str(tmp_path / "out"), "--dry-run"]
    code, out, _ = run(*words, "--with", f"files:{hearts}")
    assert code == 0
    assert "coronary_artery" in out
    assert not (tmp_path / "out").exists()
    _, plan, _ = run(*words, "--with", f"files:{hearts}", "--json")
    (tmp_path / "plan.json").write_text(plan)
    assert run(*words, "--plan", str(tmp_path / "plan.json")) == (0, out, "")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"rename": {"lvv": "left_ventricle"}}, "did you mean 'lv'"),
        ({"drop": ("heart", "lv", "lung")}, "every structure is dropped"),
        ({"folder": Path("nowhere")}, "nowhere is not a folder"),
        ({"labels": Path("nowhere.json")}, "nowhere.json cannot be read"),
        ({"name": "own"}, "two providers are called 'own'"),
    ],
)
def test_a_wrong_provider_is_told_before_anything_is_made(
    scans: Path, hearts: Path, tmp_path: Path, changes, part: str
):
    with pytest.raises(InputError, match=part):
        made(scans, tmp_path / "out", FilesSettings(**{"folder": hearts, **changes}))
    assert not (tmp_path / "out").exists()


def test_masks_without_names_or_for_no_case_say_what_is_missing(scans: Path, hearts: Path, tmp_path: Path):
    (hearts / "labels.json").unlink()
    with pytest.raises(InputError, match=r"holds neither labels.json beside masks CASE.nii.gz nor a folder per case"):
        made(scans, tmp_path / "out", FilesSettings(folder=hearts))
    write_nifti(tmp_path / "x" / "a" / "heart.nii.gz", mask_of(c1=slice(0, 1)), AFFINE)
    with pytest.raises(InputError, match="roles: no provider gives 'hart'; did you mean 'heart'"):
        made(scans, tmp_path / "out", FilesSettings(folder=tmp_path / "x"), roles={"hart": "target"})


def test_nobody_finds_anything(scans: Path, tmp_path: Path):
    for name in "abc":
        write_nifti(tmp_path / "x" / name / "heart.nii.gz", mask_of(), AFFINE)
    with pytest.raises(InputError, match="3 cases got no mask: a: the masks of x are empty"):
        made(scans, tmp_path / "out", FilesSettings(folder=tmp_path / "x"), own=False)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "either --with KIND:VALUE"),
        (["file:x"], "did you mean 'files'"),
        (["nnunet"], "write nnunet:MODEL"),
        (["totalsegmentator:heartchamber"], "task"),
    ],
)
def test_wrong_words_are_answered_with_right_ones(words: list[str], part: str):
    with pytest.raises(InputError, match=part):
        plan_of(words, None, None, "auto", own=True)


def test_a_plan_file_keeps_what_it_says_of_each_program(tmp_path: Path):
    (tmp_path / "plan.yaml").write_text(
        "providers:\n- {kind: nnunet, model: m, device: cuda:1}\n- {kind: totalsegmentator, task: total}\n"
        "- {kind: files, folder: f}\n"
    )
    plan = plan_of((), tmp_path / "plan.yaml", Path("/env/python"), "cpu", own=False)
    first, second, _ = plan.providers
    assert (first.device, first.python) == ("cuda:1", Path("/env/python"))
    assert (second.device, second.timeout_min) == ("cpu", 120)
    assert not plan.own


def test_the_plan_in_the_documentation_is_one(tmp_path: Path):
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    (tmp_path / "plan.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    plan = plan_of((), tmp_path / "plan.yaml", None, "auto", own=True)
    assert [provider.kind for provider in plan.providers] == ["totalsegmentator", "nnunet", "files"]
    assert plan.ranking[-1] == ("coronary_artery",)


def test_a_real_ct_gets_the_masks_that_lie_beside_it(real_data: Path, tmp_path: Path):
    """The heart from its own, larger grid, the aorta and its true lumen as files, the label map as the third."""
    place = real_data / "cta_aorta"
    scans = tmp_path / "scans"
    (scans / "imagesTr").mkdir(parents=True)
    shutil.copy(place / "ct_and_masks" / "ct_cropped.nii.gz", scans / "imagesTr" / "cta_0000.nii.gz")
    about = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "any": 1}, "file_ending": ".nii.gz"}
    (scans / "dataset.json").write_text(json.dumps({**about, "licence": "Apache-2.0"}))
    files = tmp_path / "files" / "cta"
    files.mkdir(parents=True)
    shutil.copy(place / "pulmonary_grid" / "heart.nii.gz", files)
    shutil.copy(place / "ct_and_masks" / "aorta.nii.gz", files)
    derived = tmp_path / "derived"
    derived.mkdir()
    shutil.copy(place / "derived" / "label_heart1_aorta2_pa3.nii.gz", derived / "cta.nii.gz")
    (derived / "labels.json").write_text(json.dumps({"heart": 1, "aorta": 2, "pulmonary artery": 3}))

    dataset = made(scans, tmp_path / "out", FilesSettings(folder=tmp_path / "files"), FilesSettings(folder=derived))
    case = dataset.case("cta")
    code = {label.name: label.code for label in case.labels}
    mask, given = case.required_mask(), read_mask(derived / "cta.nii.gz").array
    facts = case.provenance["annotation"]
    assert facts["resampled"] == ["files"], "the heart's grid is not the image's"
    # Where the derived label map has a structure, a structure of that rank or a higher one stands.
    assert (mask[given == 3] == code["pulmonary_artery"]).all()
    assert np.isin(mask[given == 2], [code["aorta"], code["pulmonary_artery"]]).all()
    assert (mask[given == 1] > 0).all()
    aorta = read_mask(files / "aorta.nii.gz").array > 0
    np.testing.assert_array_equal(mask == code["aorta"], (aorta | (given == 2)) & (mask != code["pulmonary_artery"]))
    lost = {(row["lost"], row["to"]): row["voxels"] for row in facts["overwritten"]}
    assert set(lost) <= {("heart", "aorta"), ("heart", "pulmonary_artery"), ("aorta", "pulmonary_artery")}
    assert lost
