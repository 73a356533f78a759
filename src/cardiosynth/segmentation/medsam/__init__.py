"""MedSAM (Ma et al. 2024): Segment Anything told where to look by boxes, trained with confidence (CAL)."""
