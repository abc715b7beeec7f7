"""The options of --eval-bleu-args: validation during training has no teacher."""

from types import SimpleNamespace

import pytest

from difformer_plugin.errors import UserError
from difformer_plugin.tasks.eval_bleu import generator_options


def config(text="{}", rerank=None):
    return SimpleNamespace(eval_bleu_args=text, rerank=rerank)


def test_a_reranker_that_needs_a_teacher_is_refused():
    with pytest.raises(UserError, match="rerank mbr=1,teacher=0.5 needs a teacher") as error:
        generator_options(config('{"rerank": "mbr=1,teacher=0.5"}'))
    assert "\n" not in str(error.value)


def test_the_reranker_of_decoding_is_left_out_in_validation_if_it_needs_a_teacher():
    assert generator_options(config(rerank="mbr=1,teacher=0.5")).rerank is None


def test_other_rerankers_are_kept():
    options = generator_options(config('{"rerank": "mbr=1,length=0.1"}'))
    assert options.rerank == "mbr=1,length=0.1"
    assert not hasattr(generator_options(config(rerank="mbr=1")), "rerank")
