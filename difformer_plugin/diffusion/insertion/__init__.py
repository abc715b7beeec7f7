"""Diffusion with a length that grows: deleting tokens, and inserting them."""
