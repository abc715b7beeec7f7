"""A teacher without a model, for the tests of distillation."""

from difformer_plugin.distillation.choice import likeliest


def pairs(sentence):
    """Source and raw target."""
    return [sentence, sentence + 1, 5], [sentence, 7, 8]


def hypotheses(i):
    """Two per sentence: every tenth first one is empty, and half of these have no second one."""
    return [[] if i % 10 == 0 else [i, 7, 8, i % 3], [i, 9] if i % 20 == 0 else []]


def translate(sentences):
    return [(hypotheses(i), 40) for i in sentences]


def choose(sentences, one=likeliest):
    """The choice for each sentence of a batch."""
    return [
        one(found, *pairs(i), limit, words)
        for i, (found, limit) in zip(sentences, translate(sentences))
    ]


def reference(sentence):
    return pairs(sentence)[1]


def words(tokens, is_reference):
    return " ".join(map(str, tokens))
