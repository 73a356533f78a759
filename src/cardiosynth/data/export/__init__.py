"""Datasets for other programs: nnU-Net, and DICOM for clinical viewers."""
