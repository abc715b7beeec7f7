"""A model starts from its teacher: the same weights, the same encoder, and nothing that misfits."""

import pickle
from types import SimpleNamespace

import pytest
import torch
from fitting import FITTING
from tiny import make_dictionary

from difformer_plugin.checkpoints.teacher import load_teacher
from difformer_plugin.checkpoints.warm_start import (
    encoder_parameters,
    parse_parts,
)
from difformer_plugin.errors import UserError


@pytest.fixture(params=["difformer", "tokens", "insertion"])
def build_any(request, build, build_discrete):
    """A function that builds a model of each family, of the teacher's sizes."""

    def build_any(**options):
        if request.param == "difformer":
            return build(**FITTING | options)
        if request.param == "tokens":
            return build_discrete(**FITTING | options)
        return build_discrete(**FITTING | options, objective="flexible")

    return build_any


def test_every_family_takes_the_teachers_weights_bit_by_bit(build_any, transformer, saved, start):
    teacher = transformer()
    model, untouched = build_any(), build_any()
    before = dict(untouched.named_parameters())
    initialised = start(model, saved(teacher))
    theirs, taken = dict(teacher.model.named_parameters(remove_duplicate=False)), set()
    for name, own in model.named_parameters():
        source = name.replace("denoiser.", "decoder.")
        if source in theirs:
            assert torch.equal(own, theirs[source]), name
            assert not torch.equal(own, before[name])
            taken.add(source)
        else:
            assert torch.equal(own, before[name]), name
    layers = {n for n in theirs if ".layers." in n}
    tables = {n for n in theirs if n.endswith(("embed_tokens.weight", "output_projection.weight"))}
    assert taken == layers | tables
    assert initialised.counts == {"encoder": 32, "embeddings": 3, "decoder": 52}
    assert "denoiser.embed_time" in initialised.fresh
    assert not [n for n in initialised.fresh if "layers" in n or "embed_tokens" in n]


def test_the_encoder_computes_what_the_teachers_does(build, transformer, saved, start, sentences):
    """The same states for the same tokens, position by position (a teacher's have no BOS)."""
    teacher, model = transformer(), build(**FITTING)
    source = sentences([5, 9, 3])
    before = model.encoder(source).states
    start(model, saved(teacher))
    with torch.no_grad():
        ours = model.encoder(source)
        theirs = teacher.model.encoder(source, src_lengths=ours.lengths())["encoder_out"][0]
    real = ours.mask
    assert torch.allclose(ours.states[real], theirs.transpose(0, 1)[real], atol=1e-5)
    assert not torch.allclose(ours.states[real], before[real], atol=0.1)


@pytest.mark.parametrize("parts", [("encoder",), ("embeddings",), ("decoder", "encoder")])
def test_parts_alone(build, transformer, saved, start, parts):
    model, before = build(**FITTING), dict(build(**FITTING).named_parameters())
    initialised = start(model, saved(transformer()), parts)
    assert set(initialised.counts) == set(parts)
    part_of = {"encoder.layers": "encoder", "denoiser.layers": "decoder"}
    for name, own in model.named_parameters():
        module = ".".join(name.split(".")[:2])
        table = module.endswith(("embed_tokens", "output_projection"))
        part = "embeddings" if table else part_of.get(module)
        assert torch.equal(own, before[name]) == (part not in parts), name


def test_only_the_layers_need_a_teachers_dimension(build, transformer, saved, start):
    """Tables of another dimension than the states stay fresh, and so do their projections."""
    model = build(**FITTING | {"latent_dim": 8})
    initialised = start(model, saved(transformer()), ("encoder", "decoder"))
    assert {"encoder.embed_tokens", "encoder.project_in_dim"} <= set(initialised.fresh)


def test_a_model_with_fewer_layers_takes_the_first(build, transformer, saved, start):
    teacher, model = transformer(decoder_layers=3), build(**FITTING | {"encoder_layers": 1})
    initialised = start(model, saved(teacher))
    assert "the first 1 of its 2 encoder layers" in str(initialised)
    assert "the first 2 of its 3 decoder layers" in str(initialised)
    theirs = teacher.model.state_dict()
    name = "layers.1.fc1.weight"
    assert torch.equal(model.state_dict()[f"denoiser.{name}"], theirs[f"decoder.{name}"])


def test_shared_tables(build, joined_task, transformer, saved, start):
    """One table here, one there: a tensor. Three there cannot become one."""
    shared = {"share_all_embeddings": True, "share_decoder_input_output_embed": True}
    teacher = transformer(joined_task, **shared)
    model = build(joined_task, **FITTING, share_all_embeddings=True)
    initialised = start(model, saved(teacher), task=joined_task)
    assert initialised.counts["embeddings"] == 1
    table = teacher.model.encoder.embed_tokens.weight
    assert torch.equal(model.denoiser.output_projection.weight, table)
    separate = build(joined_task, **FITTING)
    assert start(separate, saved(teacher), task=joined_task).counts["embeddings"] == 3
    assert torch.equal(separate.denoiser.embed_tokens.weight, table)
    with pytest.raises(UserError, match="are one table here: omit --share-all-embeddings"):
        start(model, saved(transformer(joined_task)), task=joined_task)


def test_learned_positions_and_pre_norm_are_taken_as_well(build, transformer, saved, start):
    options = {
        f"{side}_{name}": True
        for side in ("encoder", "decoder")
        for name in ("learned_pos", "normalize_before")
    }
    teacher, model = transformer(**options), build(**FITTING | options)
    start(model, saved(teacher))
    own, theirs = model.state_dict(), teacher.model.state_dict()
    for name in ("embed_positions.weight", "layer_norm.weight"):
        assert torch.equal(own[f"encoder.{name}"], theirs[f"encoder.{name}"])
        assert torch.equal(own[f"denoiser.{name}"], theirs[f"decoder.{name}"])


def test_a_diffusion_model_can_be_the_teacher(build, build_discrete, tmp_path, start, task):
    first, path = build(**FITTING), tmp_path / "first.pt"
    cfg = {"model": dict(vars(first.cfg))}
    torch.save({"cfg": cfg, "model": first.state_dict()}, path)
    model = build_discrete(**FITTING)
    assert start(model, path).counts == {"encoder": 32, "embeddings": 3, "decoder": 52}
    assert torch.equal(model.denoiser.layers[1].fc2.weight, first.denoiser.layers[1].fc2.weight)
    words = reversed(task.target_dictionary.symbols[4:])
    other = SimpleNamespace(
        source_dictionary=task.source_dictionary, target_dictionary=make_dictionary(words)
    )
    with pytest.raises(UserError, match="target dictionary of 24 types .fingerprint"):
        start(build_discrete(other, **FITTING), path, task=other)


@pytest.mark.parametrize(
    "theirs, ours, message",
    [
        ({}, {"latent_dim": 8}, "--latent-dim is 8 here and 16 in the teacher.*embeddings out of"),
        ({}, {"model_dim": 32}, "--model-dim is 32 here and 16 in the teacher.*encoder out of"),
        ({}, {"decoder_ffn_embed_dim": 20}, "--decoder-ffn-embed-dim is 20 here and 24 in"),
        ({}, {"encoder_layers": 3}, "--encoder-layers 3 needs 3 layers of .* encoder, which has 2"),
        ({}, {"encoder_attention_heads": 4}, "--encoder-attention-heads is 4 here and 2 in"),
        ({"encoder_normalize_before": True}, {}, "--encoder-normalize-before is off here and on"),
        ({}, {"decoder_normalize_before": True}, "--decoder-normalize-before is on here and off"),
        ({"encoder_learned_pos": True}, {}, "--encoder-learned-pos is off here and on"),
        ({}, {"decoder_learned_pos": True}, "--decoder-learned-pos is on here and off"),
        (
            {"no_token_positional_embeddings": True},
            {},
            "trained with --no-token-positional-embeddings, for which .* leave encoder out",
        ),
        ({}, {"activation_fn": "gelu"}, "--activation-fn is gelu here and relu in the teacher"),
        ({"no_scale_embedding": True}, {}, "--no-scale-embedding is off here and on in"),
        ({"layernorm_embedding": True}, {}, "--layernorm-embedding is off here and on in"),
        (
            {"encoder_learned_pos": True, "max_source_positions": 50},
            {"encoder_learned_pos": True},
            r"shape \(42, 16\) here and \(52, 16\) in the teacher \(--max-source-positions\)",
        ),
        ({"scale_fc": True}, {}, "its layers have .*, which layers of this model lack"),
        ({"adaptive_softmax_cutoff": [8, 12]}, {}, "output_projection.weight has none"),
    ],
)
def test_what_cannot_fit_is_refused(build, transformer, saved, start, theirs, ours, message):
    model, path = build(**FITTING | ours), saved(transformer(**theirs))
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(UserError, match=f"^--init-from-teacher {path}: .*{message}") as caught:
        start(model, path)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("side", ["source", "target"])
def test_other_dictionaries_are_refused(build, task, transformer, saved, start, side):
    path = saved(transformer())
    other = SimpleNamespace(**vars(task) | {f"{side}_dictionary": make_dictionary("ab")})
    with pytest.raises(UserError, match=f"{side} dictionary of .* types is not the data's of 6"):
        start(build(other, **FITTING), path, task=other)


def test_vectors_from_a_file_contradict_the_teachers(build, transformer, saved, start, tmp_path):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("s1 " + " ".join("1" * 16))
    model = build(**FITTING, encoder_embed_path=str(vectors))
    with pytest.raises(UserError, match="and from --encoder-embed-path"):
        start(model, saved(transformer()))
    assert start(model, saved(transformer()), ("encoder", "decoder")).counts["encoder"] == 32


class Malicious:
    def __reduce__(self):
        return print, ("code of a checkpoint runs",)


def test_files_that_are_no_teachers(transformer, saved, tmp_path, capsys):
    built = transformer()
    path = tmp_path / "teacher.pt"

    def refused(message):
        with pytest.raises(UserError, match=f"^--init-from-teacher.*{message}") as caught:
            load_teacher(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)

    refused("no such checkpoint")
    path.write_text("text")
    refused("not a readable checkpoint")
    saved(built, extra=Malicious())
    refused("asks for code")
    assert "runs" not in capsys.readouterr().out
    path.write_bytes(pickle.dumps(Malicious()))
    refused("")
    saved(built)
    path.write_bytes(path.read_bytes()[:3000])
    refused("truncated")
    saved(built, model={"encoder.weight": torch.ones(1)})
    refused(r"not an encoder-decoder Transformer of fairseq's \(no encoder.layers\)")
    saved(built, cfg=None)
    refused("holds no fairseq model")
    torch.save([1], path)
    refused("holds no fairseq model")


def test_an_old_checkpoint_with_args_alone(transformer, saved):
    teacher = transformer()
    path = saved(teacher, args=teacher.args, cfg=None)
    assert load_teacher(path).settings["encoder_attention_heads"] == 2


def test_the_fingerprint_is_of_the_weights(transformer, saved):
    teacher = transformer()
    first = load_teacher(saved(teacher)).fingerprint
    assert first == load_teacher(saved(teacher, extra_state={"epoch": 3})).fingerprint
    teacher.model.encoder.layers[0].fc1.bias.data[0] += 1e-3
    assert first != load_teacher(saved(teacher)).fingerprint


def test_names_of_parts():
    assert parse_parts("decoder, encoder") == ("encoder", "decoder")
    for text in ("", ",", "encoder,decodr", "all"):
        with pytest.raises(UserError, match="give one or more of encoder, embeddings, decoder"):
            parse_parts(text)


def test_what_is_frozen(build):
    model = build(**FITTING | {"encoder_learned_pos": True})
    frozen = {id(parameter) for parameter in encoder_parameters(model)}
    names = {n for n, p in model.named_parameters() if id(p) in frozen}
    assert names == {
        n
        for n, _ in model.named_parameters()
        if n.startswith(("encoder.layers", "encoder.embed_positions"))
    }


@pytest.mark.parametrize(
    "options, message",
    [
        ({"init_parts": "encoder"}, "--init-parts has no effect without --init-from-teacher"),
        ({"init_from_teacher": "x", "init_parts": "x"}, "--init-parts 'x': give one or more"),
        ({"freeze_encoder_updates": 3}, "would freeze a random encoder"),
        ({"init_from_teacher": "x", "freeze_encoder_updates": -1}, "at least 0, not -1"),
        (
            {"init_from_teacher": "x", "init_parts": "decoder", "freeze_encoder_updates": 1},
            "would freeze a random encoder",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(build, options, message):
    with pytest.raises(UserError, match=message):
        build(**FITTING | options)
