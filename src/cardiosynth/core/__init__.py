"""What every stage shares: the record, its grid, labels, intensities, settings, randomness, storage and pictures."""
