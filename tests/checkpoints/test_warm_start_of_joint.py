"""A joint model starts from its teacher: lower layers as its encoder, upper ones as its decoder."""

import pytest
import torch
from fitting import FITTING

from difformer_plugin.checkpoints.warm_start import PARTS
from difformer_plugin.errors import UserError


@pytest.fixture
def joint_start(build_joint, joined_task, transformer, saved, start):
    """A joint model of four layers that began as a teacher of two and two, and the teacher."""
    shared = {"share_all_embeddings": True, "share_decoder_input_output_embed": True}
    sizes = {n: v for n, v in FITTING.items() if not n.startswith("encoder_")}

    def joint_start(parts=PARTS, teacher_options=None, **options):
        torch.manual_seed(3)  # the same teacher each time
        teacher = transformer(joined_task, **shared | (teacher_options or {}))
        model = build_joint(joined_task, **sizes | {"decoder_layers": 4} | options)
        initialised = start(model, saved(teacher), parts, joined_task)
        return model, teacher.model, initialised

    return joint_start


def test_a_joint_model_takes_the_encoder_and_how_the_decoder_reads_it(joint_start):
    model, teacher, initialised = joint_start()
    theirs = teacher.state_dict()
    for i, layer in enumerate(model.denoiser.layers):
        for name, own in layer.named_parameters():
            if i >= 2:
                name = f"decoder.layers.{i - 2}.{name.replace('self_attn', 'encoder_attn')}"
            else:
                name = f"encoder.layers.{i}.{name}"
            assert torch.equal(own, theirs[name]), name
    assert initialised.counts == {"encoder": 32, "embeddings": 1, "decoder": 32}
    assert not [name for name in initialised.fresh if "layers" in name]
    alone = joint_start(("decoder",))[0]
    assert torch.equal(alone.denoiser.layers[2].fc1.weight, model.denoiser.layers[2].fc1.weight)
    assert not torch.equal(alone.denoiser.layers[1].fc1.weight, model.denoiser.layers[1].fc1.weight)


def test_the_lower_half_reads_a_plain_source_as_the_teachers_encoder(joint_start, sentences):
    source = sentences([5, 9, 3])
    model, teacher, _ = joint_start(blind_source=True, plain_source=True)
    with torch.no_grad():
        memory = model.encoder(source)
        found = teacher.encoder(source, src_lengths=memory.lengths())["encoder_out"][0]
    found = found.transpose(0, 1)[source.ne(1)]
    third = memory.layers[2][memory.mask]
    assert torch.allclose(third, found, atol=1e-5)
    keys, values = model.conditions(memory).layers[2]
    theirs = teacher.decoder.layers[0].encoder_attn
    for own, projection in ((keys, theirs.k_proj), (values, theirs.v_proj)):
        own = own.transpose(1, 2).flatten(2)[memory.mask]
        assert torch.allclose(own, projection(found), atol=1e-5)


def test_a_joint_model_may_have_fewer_layers_but_not_more(joint_start):
    model, teacher, initialised = joint_start(decoder_layers=3)
    assert "the first 1 of its 2 decoder layers" in str(initialised)
    attention = teacher.decoder.layers[0].encoder_attn
    assert torch.equal(model.denoiser.layers[2].self_attn.k_proj.weight, attention.k_proj.weight)
    for layers, message in (
        (6, "--decoder-layers 6 needs 3 layers of the teacher's encoder, which has 2"),
        (1, "--decoder-layers 1 needs 0 layers of the teacher's decoder.* leave decoder out of"),
    ):
        with pytest.raises(UserError, match=message):
            joint_start(decoder_layers=layers)
    alone = joint_start(("encoder",), decoder_layers=1)[2]
    assert alone.counts == {"encoder": 16}


@pytest.mark.parametrize(
    "theirs, message",
    [
        ({"encoder_learned_pos": True}, "with --encoder-learned-pos, for which this model has no"),
        ({"layernorm_embedding": True}, "with --layernorm-embedding, for which .* leave encoder"),
        (
            {"decoder_attention_heads": 4},
            "--decoder-attention-heads is 2 here and 4 in the teacher's decoder",
        ),
    ],
)
def test_what_a_joint_model_cannot_take(joint_start, theirs, message):
    with pytest.raises(UserError, match=message):
        joint_start(teacher_options=theirs)
