"""Segmentation networks: trained on real and synthetic cases, weighted by confidence (CAL), and used to predict."""
