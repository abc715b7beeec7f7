"""Weights meet only the dictionaries that they were trained with."""

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.dataclass.configs import EMAConfig
from fairseq.models.ema import EMA

import difformer_plugin
from difformer_plugin.checkpoints.fingerprint import KEY, check_table_sizes, fingerprint
from difformer_plugin.errors import UserError

difformer_plugin.register()  # --ema-fp32 needs a patch where state is no tensor


def dictionary_of(*words):
    dictionary = Dictionary()
    for word in words:
        dictionary.add_symbol(word)
    return dictionary


def test_fingerprint_sees_symbols_and_their_order():
    marks = [
        fingerprint(dictionary_of(*words))
        for words in (["a", "b"], ["b", "a"], ["a"], ["ab"], ["a", "b", "c"], [])
    ]
    assert len(set(marks)) == len(marks)
    assert marks[0] == fingerprint(dictionary_of("a", "b"))
    assert all(0 <= mark < 2**48 for mark in marks)


def test_own_weights_load(build):
    state = build().state_dict()
    assert build(no_scale_embedding=True).load_state_dict(state).missing_keys == []


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("words", [["x", "y"], [f"{c}{i}" for c in "z" for i in range(15)]])
def test_other_dictionaries_are_refused(build, task, side, words):
    state = build().state_dict()
    setattr(task, f"{side}_dictionary", dictionary_of(*words))
    with pytest.raises(UserError, match=f"{side} dictionary"):
        build(task).load_state_dict(state)


def test_the_same_words_in_another_order_are_refused(build, task):
    state = build().state_dict()
    task.target_dictionary = dictionary_of(*reversed(task.target_dictionary.symbols[4:]))
    with pytest.raises(UserError, match="target dictionary of 24 types.*fingerprint"):
        build(task).load_state_dict(state)


def test_a_converted_state_is_compared_by_size(build, task):
    state = build().state_dict()
    mark = state.pop(KEY)
    model = build()
    model.load_state_dict(state)
    assert (model.state_dict()[KEY] == mark).all()
    task.source_dictionary = dictionary_of("x")
    with pytest.raises(UserError, match="source dictionary of 19 types"):
        build(task).load_state_dict(state)


def test_table_sizes_of_a_teacher():
    tables = {
        "encoder.embed_tokens.weight": [0] * 10,
        "decoder.embed_tokens.weight": [0] * 12,
    }
    assert check_table_sizes(tables, 10, 12) is None
    assert check_table_sizes({"other": [0]}, 10, 12) is None
    with pytest.raises(UserError, match="source dictionary of 10 types"):
        check_table_sizes(tables, 11, 12)
    with pytest.raises(UserError, match="target dictionary of 12 types"):
        check_table_sizes(tables, 10, 11)


@pytest.mark.parametrize("options", [{}, {"ema_fp32": True}], ids=["", "fp32"])
@pytest.mark.parametrize("family", ["build", "build_discrete"])
def test_moving_averages_leave_the_mark_alone(request, family, options):
    build = request.getfixturevalue(family)
    model, start = build(), build()
    mark = model.state_dict()[KEY].clone()
    ema = EMA(model, EMAConfig(store_ema=True, ema_decay=0.75, **options))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    for updates in (1, 2):
        ema.step(model, updates)
    averaged = ema.get_model().state_dict()
    assert averaged.keys() == model.state_dict().keys()
    assert averaged[KEY].dtype == mark.dtype and torch.equal(averaged[KEY], mark)
    moved = ema.reverse(build())
    assert torch.equal(moved.state_dict()[KEY], mark)
    for name, weight in start.named_parameters():
        expected = weight + 1 - 0.75**2
        torch.testing.assert_close(dict(moved.named_parameters())[name], expected, msg=name)
