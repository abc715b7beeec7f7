"""Which weights? Averages, dictionary fingerprints and safe loading."""
