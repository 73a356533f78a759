"""Real scans brought to one grid and one label table: volumes, slices cut from them, and the run over all cases."""
