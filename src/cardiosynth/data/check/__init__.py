"""Examines a dataset folder before hours are spent on it: one file per kind of finding, `examination` asks them all."""
