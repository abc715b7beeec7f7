"""Discrete diffusion: categorical processes over the types of a vocabulary."""
