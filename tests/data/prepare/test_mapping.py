import json
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, label_table
from cardiosynth.data.prepare.mapping import LabelMapping, read_mapping, read_target_table

SOURCE = label_table({"left_ventricle_cavity": 3, "trabeculae": 1, "rib": 7, "aorta_wall": 2})
MASK = np.array([[0, 1, 2, 3, 7]], np.uint8)


def test_without_a_wish_nothing_changes():
    plain = LabelMapping()
    assert plain.target(SOURCE).labels == tuple(sorted(SOURCE.labels, key=lambda label: label.code))
    assert np.array_equal(plain.apply(MASK, SOURCE), MASK)


def test_two_structures_become_one_and_one_is_left_out():
    names = read_mapping(["left ventricle cavity=Left Ventricle", "trabeculae=left_ventricle", "rib="])
    mapping = LabelMapping(names=names)
    assert {label.name: label.code for label in mapping.target(SOURCE)} == {"left_ventricle": 3, "aorta_wall": 2}
    assert mapping.apply(MASK, SOURCE).tolist() == [[0, 3, 2, 3, 0]]
    assert mapping.target(SOURCE).named("left ventricle").color == CARDIAC_CT.named("left ventricle").color


def test_a_given_table_decides_the_codes():
    names = read_mapping(["left ventricle cavity=left_ventricle", "trabeculae=left_ventricle", "aorta wall=background"])
    mapping = LabelMapping(table=CARDIAC_CT, names={**names, "rib": "ribs_and_sternum"})
    assert mapping.target(SOURCE) == CARDIAC_CT
    assert mapping.apply(MASK, SOURCE).tolist() == [[0, 4, 0, 4, 10]]


def test_a_structure_that_the_table_lacks_is_told_with_its_mend():
    with pytest.raises(InputError, match=r"has no left_ventricle_cavity, .*--map .*did you mean 'left_ventric"):
        LabelMapping(table=CARDIAC_CT).resolve(SOURCE)
    with pytest.raises(InputError, match=r"--map trabecule: .* did you mean 'trabeculae'"):
        LabelMapping(names={"trabecule": None}).resolve(SOURCE)
    with pytest.raises(InputError, match="keep at least one"):
        LabelMapping(names=dict.fromkeys((label.name for label in SOURCE), None)).target(SOURCE)


def test_a_mapping_is_read_from_a_file_and_a_split_is_refused(tmp_path: Path):
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"LV cavity": "left ventricle", "rib": None}))
    assert read_mapping([str(file), "a=b"]) == {"lv_cavity": "left_ventricle", "rib": None, "a": "b"}
    assert read_mapping(["rib=null", "wall=background", "fat="]) == dict.fromkeys(("rib", "wall", "fat"))
    with pytest.raises(InputError, match="a name cannot split a structure"):
        read_mapping(["heart=left_atrium", "heart=right_atrium"])
    file.write_text(json.dumps({"heart": ["left_atrium", "right_atrium"]}))
    with pytest.raises(InputError, match="one structure becomes one name"):
        read_mapping([str(file)])
    with pytest.raises(InputError, match="source name=name"):
        read_mapping(["heart"])
    file.write_text("[]")
    with pytest.raises(InputError, match="no mapping"):
        read_mapping([str(file)])


def test_a_table_is_named_read_from_json_or_taken_from_a_checkpoint(tmp_path: Path):
    assert read_target_table("cardiac_ct") == CARDIAC_CT
    (tmp_path / "table.json").write_text(json.dumps({"left atrium": 5}))
    assert read_target_table(str(tmp_path / "table.json")).codes == (5,)
    checkpoint = tmp_path / "run" / "control" / "step-0000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "record.json").write_text(json.dumps({"labels": SOURCE.model_dump(mode="json"), "step": 3}))
    assert read_target_table(str(checkpoint)) == read_target_table(str(checkpoint.parent)) == SOURCE
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "heart": 4}}))
    assert read_target_table(str(tmp_path)).codes == (4,)
    with pytest.raises(InputError, match="built-in table is cardiac_ct"):
        read_target_table("cardiac")
