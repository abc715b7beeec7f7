"""How good is it? Metrics, analyses and plots."""
