"""Sizes of tiny models, and dictionaries for them."""

from fairseq.data import Dictionary

SIZES = {
    "model_dim": 16,
    "latent_dim": 8,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_embed_dim": 24,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_embed_dim": 20,
    "max_source_positions": 40,
    "max_target_positions": 30,
    "diffusion_steps": 50,
}


def make_dictionary(words):
    dictionary = Dictionary()
    for word in words:
        dictionary.add_symbol(word)
    return dictionary
