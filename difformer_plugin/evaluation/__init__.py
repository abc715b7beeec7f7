"""How good is it, and is it right? Comparison with recorded values."""
