import json

from cardiosynth.data.sources.phantom.protocol import KERNELS, RIGHT_SHARE, draw_attenuation, draw_protocol
from cardiosynth.data.sources.phantom.variation import Variation


def test_a_protocol_is_a_function_of_seed_and_index():
    assert draw_protocol(3, 0) == draw_protocol(3, 0)
    assert draw_protocol(3, 0) != draw_protocol(3, 1)
    assert draw_protocol(3, 0).name == "protocol-03"


def test_protocols_differ_in_phase_and_kernel():
    drawn = [draw_protocol(index, 0) for index in range(12)]
    assert {p.phase for p in drawn} == set(RIGHT_SHARE)
    assert {p.kernel for p in drawn} == set(KERNELS)


def test_facts_are_json():
    facts = draw_protocol(0, 0).facts()
    assert json.loads(json.dumps(facts)) == facts


def test_patients_of_one_protocol_share_its_levels_within_a_tenth():
    for index in range(6):
        protocol = draw_protocol(index, 0)
        for patient in range(4):
            hu = draw_attenuation(protocol, Variation(0, patient).draws("attenuation"))
            assert abs(hu.left_ventricle / protocol.left_hu - 1) < 0.05
            assert abs(hu.right_ventricle / hu.left_ventricle / protocol.right_share - 1) < 0.1
