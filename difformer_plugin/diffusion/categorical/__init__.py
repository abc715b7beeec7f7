"""Categorical diffusion of tokens: processes, posteriors, scores, objectives and samplers."""
