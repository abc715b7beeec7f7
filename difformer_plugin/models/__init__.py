"""Which network? Encoder, denoiser and length predictor, their configuration and named sizes."""
