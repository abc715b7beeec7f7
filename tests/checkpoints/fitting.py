"""The sizes of the tiny teachers, and the same sizes in a diffusion model."""

TEACHER_SIZES = {"embed_dim": 16, "ffn_embed_dim": 24, "layers": 2, "attention_heads": 2}
# The same sizes in a diffusion model.
FITTING = {
    "model_dim": 16,
    "latent_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "decoder_ffn_embed_dim": 24,
    "decoder_attention_heads": 2,
}
