"""Discrete diffusion of tokens: D3PM, MDLM and SEDD."""
