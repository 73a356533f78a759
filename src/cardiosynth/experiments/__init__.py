"""Whole studies as runnable values."""
