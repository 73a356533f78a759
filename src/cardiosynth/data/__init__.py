"""Data in and out: file formats, the dataset folder, sources of cases, preparation, checks and the loader."""
