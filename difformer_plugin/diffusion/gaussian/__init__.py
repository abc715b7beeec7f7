"""Gaussian diffusion of embeddings: process, samplers, degeneration score, noise rescaling."""
