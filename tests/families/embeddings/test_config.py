"""The checks of a configuration, and the named architectures."""

import pytest
import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from difformer_plugin import register
from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.config import ARCHITECTURES, DifformerConfig, check_config
from difformer_plugin.families.embeddings.model import Difformer

# Table 21: d_model, d_emb, d_ffn, heads, encoder and decoder layers
TABLE_21 = {
    "difformer": (512, 128, 2048, 8, 6, 6),
    "difformer_iwslt_de_en": (512, 128, 1024, 4, 6, 6),
    "difformer_base": (768, 128, 3072, 12, 6, 6),
}


def parse(*arguments):
    """The model's configuration as fairseq-train would have it."""
    register()
    parser = options.get_training_parser()
    args = options.parse_args_and_arch(
        parser, ["data", "--task", "diffusion_translation", *arguments]
    )
    return convert_namespace_to_omegaconf(args).model


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_build(name, task):
    cfg = parse("--arch", name)
    cfg.share_all_embeddings = False  # the dictionaries of this task differ
    with torch.device("meta"):
        model = Difformer.build_model(cfg, task)
    sizes = (
        model.encoder.layers[0].fc1.in_features,
        model.encoder.embed_tokens.embedding_dim,
        model.encoder.layers[0].fc1.out_features,
        model.encoder.layers[0].self_attn.heads,
        len(model.encoder.layers),
        len(model.denoiser.layers),
    )
    layer = model.denoiser.layers[0]
    assert sizes[2:4] == (layer.fc1.out_features, layer.encoder_attn.heads)
    size = name.replace("_paper", "")  # the recipe of a preset changes no sizes
    if size in TABLE_21:
        assert sizes == TABLE_21[size]
    else:
        assert sizes[0] < 512
    assert len(model.process) == 2000 and cfg.noise_schedule == "sqrt"


def test_every_architecture_of_the_paper_is_there():
    assert set(TABLE_21) <= set(ARCHITECTURES)


def test_options_override_the_architecture():
    """Even with a value that is the default of another architecture."""
    given = ["--model-dim", "96", "--encoder-layers", str(DifformerConfig.encoder_layers)]
    cfg = parse("--arch", "difformer_tiny", *given)
    assert (cfg.model_dim, cfg.encoder_layers, cfg.decoder_layers) == (96, 6, 2)


@pytest.mark.parametrize(
    "values, said",
    [
        ({"noise_schedule": "cubic"}, "sqrt.*cubic"),
        ({"rescaling_factor": 0.0}, "--rescaling-factor"),
        ({"diffusion_steps": 1}, "--diffusion-steps"),
        ({"model_dim": 0}, "--model-dim"),
        ({"latent_dim": -1}, "--latent-dim"),
        ({"encoder_layers": 0}, "--encoder-layers"),
        ({"decoder_layers": 0}, "--decoder-layers"),
        ({"encoder_attention_heads": 7}, "--encoder-attention-heads.*512.*7"),
        ({"decoder_attention_heads": 0}, "--decoder-attention-heads"),
        ({"freeze_embeddings": True}, "--freeze-embeddings.*--decoder-embed-path"),
    ],
)
def test_impossible_values(values, said):
    with pytest.raises(UserError, match=said):
        check_config(DifformerConfig(**values))


def test_the_defaults_pass():
    assert check_config(DifformerConfig()) is None
