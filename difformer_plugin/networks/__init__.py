"""Which layers? Transformer layers, token layout, encoder, denoiser and length predictor."""
