"""Difformer: Gaussian diffusion of token embeddings."""
