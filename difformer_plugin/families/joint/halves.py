"""The two halves of a joint Transformer's layers, and what each is taken from in a teacher."""

from typing import Any

from difformer_plugin.checkpoints.counterparts import Counterpart

# own module -> the module of a decoder's layer that reads the source in its place
READING = {
    "self_attn": "encoder_attn",
    "self_attn_layer_norm": "encoder_attn_layer_norm",
    "fc1": "fc1",
    "fc2": "fc2",
    "final_layer_norm": "final_layer_norm",
}


def counterpart(cfg: Any, part: str) -> Counterpart:
    """Lower layers are those of an encoder; upper ones attend as a decoder attends to the source.

    Where the source is plain and blind and the norm comes after each block, the source leaves the
    lower half as it leaves the teacher's encoder, and the first upper layer attends to it with the
    keys and values of the teacher's first decoder layer. What a decoder layer does by
    self-attention, a joint layer learns: it has one attention, which is given to the source. With
    an odd number of layers, the lower half has one more.

    Args:
        cfg: a JointDiffusionConfig.
        part: "encoder" for the lower half, "decoder" for the upper one.
    """
    upper = cfg.decoder_layers // 2
    lower = cfg.decoder_layers - upper
    if part == "encoder":
        prefixes = {f"denoiser.layers.{i}.": f"encoder.layers.{i}." for i in range(lower)}
        return Counterpart("encoder", "decoder", lower, prefixes)
    prefixes = {
        f"denoiser.layers.{lower + i}.{own}.": f"decoder.layers.{i}.{theirs}."
        for i in range(upper)
        for own, theirs in READING.items()
    }
    prefixes["denoiser.layer_norm."] = "decoder.layer_norm."
    return Counterpart("decoder", "decoder", upper, prefixes, left_out=("self_attn",))
