"""From masks and templates to a dataset of synthetic cases: restartable, in as many parts as one likes."""
