"""Which noise? Schedules, the Gaussian process and its noise, without fairseq."""
