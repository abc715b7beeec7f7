"""A teacher without a model, for the tests of distillation."""


def pairs(sentence):
    """Source and raw target."""
    return [sentence, sentence + 1, 5], [sentence, 7, 8]


def hypotheses(i):
    """Two per sentence: every tenth first one is empty, and half of these have no second one."""
    return [[] if i % 10 == 0 else [i, 7, 8, i % 3], [i, 9] if i % 20 == 0 else []]


def translate(sentences):
    return [(hypotheses(i), 40) for i in sentences]


def words(tokens, is_reference):
    return " ".join(map(str, tokens))
