import json

import numpy as np
import pytest

from cardiosynth.anatomy.masks import MaskSettings
from cardiosynth.anatomy.template import TemplateSettings
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator as named_generator
from cardiosynth.data.dataset import read_dataset, write_dataset
from cardiosynth.synthesis.run import synthesize

GRID = (12, 12, 12)
HEART, SPINE = CARDIAC_CT.named("left_ventricle").code, CARDIAC_CT.named("spine").code


def patient(index):
    mask = np.zeros((1, *GRID), np.uint8)
    mask[0, 3 : 8 + index % 2, 3:9, 3:9] = HEART
    mask[0, 0] = SPINE
    return Case(
        case_id=f"patient-{index}",
        image=np.full((1, *GRID), 100 * index, np.int16),
        mask=mask,
        affine=np.diag([5.0, 5.0, 5.0, 1.0]),
        origin="phantom",
        provenance={"acquisition": f"protocol-{index % 2}"},
    )


class NoisyTemplate:
    """Returns the template's image with noise of its seed, and counts its calls."""

    def __init__(self, checkpoint="one", stop_after=None):
        self.checkpoint, self.stop_after, self.calls = checkpoint, stop_after, 0

    def fit(self, cases, run):
        raise AssertionError("synthesis trains nothing")

    def generate(self, mask: Case, template: Case, seed: int) -> Case:
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        noise = named_generator(seed, "sampling").initial_seed() % 50
        return Case(
            case_id="whatever",
            image=(template.required_image() + noise).astype(np.int16),
            mask=mask.mask,
            confidence=np.full((1, *GRID), 0.5, np.float32),
            affine=mask.affine,
            labels=mask.labels,
            origin="synthetic",
            provenance={"checkpoints": {"control": self.checkpoint}, "sampler": {"steps": 3}},
        )


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return write_dataset([patient(i) for i in range(4)], tmp_path_factory.mktemp("library"))


def content(dataset):
    return {name: (dict(dataset.rows[name]["files"]), dataset.rows[name]["provenance"]) for name in dataset.case_ids}


def test_a_case_is_the_same_alone_in_a_shard_and_in_a_full_run(library, tmp_path):
    full = content(synthesize(NoisyTemplate(), MaskSettings(), library, tmp_path / "full", 5, seed=3))
    assert list(full) == [f"synthetic-{i:05d}" for i in range(5)]
    for part in range(2):
        synthesize(NoisyTemplate(), MaskSettings(), library, tmp_path / "shards", 5, seed=3, shard=(part, 2))
    assert content(read_dataset(tmp_path / "shards")) == full
    alone = synthesize(NoisyTemplate(), MaskSettings(), library, tmp_path / "alone", 5, seed=3, shard=(4, 5))
    assert content(alone) == {"synthetic-00004": full["synthetic-00004"]}
    other = content(synthesize(NoisyTemplate(), MaskSettings(), library, tmp_path / "other", 5, seed=4))
    assert all(other[name][0] != full[name][0] for name in full)


def test_a_stopped_run_goes_on_where_it_was_and_ends_the_same(library, tmp_path):
    whole = content(synthesize(NoisyTemplate(), library, library, tmp_path / "whole", 4, seed=0))
    with pytest.raises(KeyboardInterrupt):
        synthesize(NoisyTemplate(stop_after=2), library, library, tmp_path / "stopped", 4, seed=0)
    rest = NoisyTemplate()
    assert content(synthesize(rest, library, library, tmp_path / "stopped", 4, seed=0)) == whole
    assert rest.calls == 2
    synthesize(rest, library, library, tmp_path / "stopped", 4, seed=0)
    assert rest.calls == 2
    assert len(synthesize(rest, library, library, tmp_path / "stopped", 5, seed=0)) == 5


def test_the_written_mask_is_the_reference_without_surroundings(library, tmp_path):
    made = synthesize(NoisyTemplate(), library, library, tmp_path, 1, seed=0)[0]
    reference = library[0].required_mask()
    assert (reference == SPINE).any()
    np.testing.assert_array_equal(made.required_mask(), np.where(reference == HEART, HEART, 0))
    assert made.origin == "synthetic"
    assert made.confidence is not None


def test_a_row_tells_what_made_the_case(library, tmp_path):
    made = synthesize(NoisyTemplate(), MaskSettings(), library, tmp_path, 3, seed=3)
    for name in made.case_ids:
        provenance = made.rows[name]["provenance"]
        assert provenance["parents"][0] in library.case_ids
        assert provenance["template"] in set(library.case_ids) - set(provenance["parents"])
        assert provenance["seed"] == 3
        assert provenance["checkpoints"] == {"control": "one"}
        assert provenance["sampler"] == {"steps": 3}
        assert provenance["mask"]["attempts"] >= 1
        assert provenance["config"]
        assert json.loads(json.dumps(provenance)) == provenance


def test_masks_are_taken_in_turn_each_time_with_other_noise(library, tmp_path):
    made = synthesize(NoisyTemplate(), library.subset(["patient-2"]), library, tmp_path, 3, seed=0)
    rows = [made.rows[name]["provenance"] for name in made.case_ids]
    assert {row["reference"] for row in rows} == {"patient-2"}
    assert len({row["sampling_seed"] for row in rows}) == 3


def test_templates_of_the_masks_acquisition_can_be_asked_for(library, tmp_path):
    choice = TemplateSettings(choice="same_acquisition")
    made = synthesize(NoisyTemplate(), library, library, tmp_path, 4, seed=0, template_settings=choice)
    pairs = {row["provenance"]["reference"]: row["provenance"]["template"] for row in made.rows.values()}
    assert pairs == {f"patient-{i}": f"patient-{(i + 2) % 4}" for i in range(4)}


@pytest.mark.parametrize("align", ["none", "centroid", "affine"])
def test_templates_are_aligned_before_the_generator_sees_them(library, tmp_path, align):
    shifted = np.roll(patient(1).required_mask(), 2, axis=2)
    fine = patient(1).with_(case_id="shifted", mask=shifted)  # a heart of the shape of patient-1's, moved by 10 mm
    thin = patient(0).with_(mask=patient(0).required_mask() * (np.arange(12) < 6).astype(np.uint8).reshape(1, 12, 1, 1))
    mask, seen = patient(1).with_(image=None, provenance={}), []

    class Watching(NoisyTemplate):
        def generate(self, mask, template, seed):
            seen.append(template)
            return super().generate(mask, template, seed)

    choice = TemplateSettings(choice="nearest", align=align)
    made = synthesize(Watching(), [mask], [thin, fine], tmp_path, 1, seed=0, template_settings=choice)
    provenance = made.rows["synthetic-00000"]["provenance"]
    assert (provenance["template"], provenance["template_choice"]) == ("shifted", "nearest")
    hearts = [case.required_mask() == HEART for case in (seen[0], mask)]
    assert np.array_equal(*hearts) == (align != "none")
    if align == "none":
        assert "template_alignment" not in provenance
    else:
        facts = provenance["template_alignment"]
        np.testing.assert_allclose(np.array(facts["matrix"])[:3, 3], (0, -10, 0), atol=1e-6)
        assert facts["filled"] == pytest.approx(2 / 12, abs=1e-6)


def test_a_template_of_another_grid_is_laid_onto_the_masks_where_it_is_aligned(library, tmp_path):
    small = patient(0).with_(
        case_id="small", mask=patient(0).required_mask()[:, :10], image=patient(0).required_image()[:, :10]
    )
    choice = TemplateSettings(align="centroid")
    made = synthesize(NoisyTemplate(), [patient(0)], [small], tmp_path, 1, seed=0, template_settings=choice)
    assert made[0].grid.same_as(patient(0).grid)


def test_a_named_template_is_everybodys_and_masks_made_from_it_are_left_out(library, tmp_path):
    named = TemplateSettings(case="patient-1")
    for name, masks in (("given", library), ("made", MaskSettings())):
        made = synthesize(NoisyTemplate(), masks, library, tmp_path / name, 4, seed=0, template_settings=named)
        rows = [row["provenance"] for row in made.rows.values()]
        assert {(row["template"], row["template_choice"]) for row in rows} == {("patient-1", "case")}
        assert all("patient-1" not in row["parents"] for row in rows)
    with pytest.raises(InputError, match="all masks are of patient-1 or made from it"):
        synthesize(NoisyTemplate(), [patient(1)], library, tmp_path / "own", 1, seed=0, template_settings=named)


@pytest.mark.parametrize("changes", [{"choice": "nearest"}, {"align": "centroid"}, {"case": "patient-1"}])
def test_a_folder_made_with_other_templates_is_refused(library, tmp_path, changes):
    synthesize(NoisyTemplate(), library, library, tmp_path, 1, seed=0)
    other = TemplateSettings(**changes)
    with pytest.raises(InputError, match="other settings"):
        synthesize(NoisyTemplate(), library, library, tmp_path, 2, seed=0, template_settings=other)


def test_facts_of_the_published_choice_are_what_they_were():
    assert TemplateSettings().facts() == {"template_choice": "random"}


def test_a_folder_made_with_another_seed_or_model_is_refused(library, tmp_path):
    synthesize(NoisyTemplate(), library, library, tmp_path, 1, seed=0)
    with pytest.raises(InputError, match="other settings"):
        synthesize(NoisyTemplate(), library, library, tmp_path, 2, seed=1)
    with pytest.raises(InputError, match="checkpoints"):
        synthesize(NoisyTemplate("two"), library, library, tmp_path, 2, seed=0)


def test_without_masks_there_is_nothing_to_synthesize(library, tmp_path):
    with pytest.raises(InputError, match="no mask"):
        synthesize(NoisyTemplate(), [patient(0).with_(mask=None)], library, tmp_path, 1, seed=0)


def test_a_generator_that_was_told_of_no_mask_gets_none(library, tmp_path):
    class Unconditional(NoisyTemplate):
        def generate(self, mask: Case, template: Case, seed: int) -> Case:
            return (
                super()
                .generate(mask, template, seed)
                .with_(mask=None, provenance={"conditional": False, "parents": []})
            )

    made = synthesize(Unconditional(), library, library, tmp_path / "made", 2, seed=0)
    assert not any(made.has("mask", name) for name in made.case_ids)
    facts = made.row("synthetic-00001")["provenance"]
    assert facts["parents"] == []
    assert not {"reference", "mask"} & facts.keys()
    assert facts["conditional"] is False
