"""Named architectures: the same from the command line and from hydra, and options win."""

import logging

import pytest
from fairseq import options
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

import difformer_plugin
from difformer_plugin.families.embeddings.config import ARCHITECTURES, check_config

difformer_plugin.register()

# Table 21 of the paper, as it is typed without a preset.
TABLE_21 = """
    --share-all-embeddings --noise-schedule sqrt --rescaling-factor 4 --self-cond
    --rescale-timesteps --embed-norm --embed-norm-affine --pred-length-offset --apply-bert-init
    --encoder-learned-pos --decoder-learned-pos
"""


def typed(*arguments):
    """The model's configuration from the command line."""
    words = ["data", "--task", "diffusion_translation", "--criterion", "difformer_loss"]
    parsed = options.parse_args_and_arch(options.get_training_parser(), [*words, *arguments])
    model = OmegaConf.to_container(convert_namespace_to_omegaconf(parsed).model)
    return model | {"rescaling_factor": given(model["rescaling_factor"])}


def hydra(**model):
    """The model's configuration from a file of hydra."""
    given_file = {"task": {"_name": "diffusion_translation", "data": "data"}, "model": model}
    cfg = OmegaConf.merge(OmegaConf.structured(FairseqConfig), given_file)
    add_defaults(cfg)
    model = OmegaConf.to_container(cfg.model, resolve=True, enum_to_str=True)
    return model | {"rescaling_factor": given(model["rescaling_factor"])}


def given(factor):
    return factor if factor == "auto" else float(factor)


@pytest.mark.parametrize("size, dropout", [("", "0.1"), ("_base", "0.1"), ("_iwslt_de_en", "0.3")])
def test_the_preset_of_the_paper_is_its_table(size, dropout):
    preset = typed("--arch", f"difformer_paper{size}")
    plain = typed("--arch", f"difformer{size}", *TABLE_21.split(), "--dropout", dropout)
    assert preset | {"_name": None} == plain | {"_name": None}
    assert hydra(_name=f"difformer_paper{size}") == preset


def test_the_small_preset_leaves_out_what_slows_the_start():
    plain = typed("--arch", "difformer_tiny", *TABLE_21.split())
    slow = {"apply_bert_init": False, "encoder_learned_pos": False, "decoder_learned_pos": False}
    assert typed("--arch", "difformer_paper_tiny") == plain | slow | {
        "_name": "difformer_paper_tiny"
    }


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_every_architecture_is_the_same_in_hydra(arch):
    """Its sizes too; hydra once took the defaults of the model without a word."""
    assert hydra(_name=arch) == typed("--arch", arch)
    check_config(OmegaConf.create(hydra(_name=arch)))


def test_options_that_are_given_win():
    own = ["--rescaling-factor", "auto", "--max-dgs", "0.2", "--encoder-layers", "3"]
    own += ["--no-self-cond", "--no-embed-norm-affine", "--no-share-all-embeddings"]
    found = typed("--arch", "difformer_paper_iwslt_de_en", *own)
    assert (found["rescaling_factor"], found["max_dgs"], found["encoder_layers"]) == (
        "auto",
        0.2,
        3,
    )
    assert not any(
        found[flag] for flag in ("self_cond", "embed_norm_affine", "share_all_embeddings")
    )
    assert found["embed_norm"] and found["encoder_ffn_embed_dim"] == 1024
    assert hydra(_name="difformer_paper_base", self_cond=False, dropout=0.4) == typed(
        "--arch", "difformer_paper_base", "--no-self-cond", "--dropout", "0.4"
    )


def test_the_authors_names_keep_their_defaults():
    plain = typed("--arch", "difformer")
    assert plain["rescaling_factor"] == 1 and plain["dropout"] == 0.1
    flags = ("self_cond", "embed_norm", "share_all_embeddings", "apply_bert_init")
    assert not any(plain[flag] for flag in flags)


@pytest.fixture
def vocabulary(task):
    """A task whose target dictionary is large enough for embeddings to degenerate."""
    for i in range(3000):
        task.target_dictionary.add_symbol(f"more{i}")
    return task


@pytest.mark.parametrize(
    "given_options, warned",
    [
        ({}, True),
        ({"rescaling_factor": "4"}, False),
        ({"rescaling_factor": "auto", "max_dgs": 0.15}, False),
        ({"rescaling_update_interval": 10, "max_dgs": 0.15}, False),
    ],
)
def test_training_without_rescaling_is_warned_of(build, vocabulary, caplog, given_options, warned):
    model = build(vocabulary, latent_dim=64, **given_options)
    with caplog.at_level(logging.WARNING):
        model.prepare_training(vocabulary)
    assert ("noise is not rescaled" in caplog.text) == warned
    if warned:
        assert "--rescaling-factor auto --max-dgs 0.15" in caplog.text
        assert "difformer_paper_iwslt_de_en" in caplog.text
