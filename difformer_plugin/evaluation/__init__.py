"""How good is it? Analyses and plots."""
