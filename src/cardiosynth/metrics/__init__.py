"""How alike two images or two masks are: pure functions of arrays and voxel sizes."""
