"""Sources of cases: one data set per module, each a function that yields Cases."""
