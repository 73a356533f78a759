import torch

from cardiosynth.segmentation.medsam.network import MedsamNetwork, build_medsam

POSITIONS = 2 * 128
"""Fixed random numbers, a parameter to transformers and none to Segment Anything."""


def test_the_default_is_vit_b_with_as_many_parameters_as_published():
    with torch.device("meta"):
        network = build_medsam(MedsamNetwork())
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    counts["prompt_encoder"] -= POSITIONS
    wanted = {"vision_encoder": 89_670_912, "mask_decoder": 4_058_340, "prompt_encoder": 6_220}
    assert {name: counts[name] for name in wanted} == wanted
    assert sum(p.numel() for p in network.parameters()) == 93_735_472 + POSITIONS
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained == 93_729_252, "MedSAM's own number: all but the prompt encoder"
