"""nnU-Net with confidence: its own network, plans, checkpoints and inference; what is added stays beside them."""
