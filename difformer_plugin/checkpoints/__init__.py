"""Which weights? Averages, dictionary fingerprints, loading and saving."""
