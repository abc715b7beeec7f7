"""MBR of made-up candidates: sacrebleu's loop against n-grams counted in tensors."""

import numpy as np

from difformer_plugin.bench import workload
from difformer_plugin.bench.measuring import in_turn, seconds, speeds
from difformer_plugin.reranking.choice import bleu_scores
from difformer_plugin.reranking.ngram_bleu import mbr_scores

CANDIDATES, SENTENCES = 21, 50
LOOP, TENSORS = "sacrebleu", "tensors"


def texts(subject, seed, sentences=SENTENCES):
    """Candidates of sentences of a split, made from its references by random edits of words."""
    dictionary, dataset = subject.task.target_dictionary, subject.dataset
    count = min(sentences, len(dataset))
    rng = np.random.default_rng(seed)
    words = [
        dictionary.string(dataset.tgt[int(i)], "@@ ", extra_symbols_to_ignore={dictionary.bos()})
        for i in workload.chosen(count, len(dataset), seed)
    ]
    vocabulary = sorted({word for sentence in words for word in sentence.split()})
    return [workload.edited(text.split(), vocabulary, CANDIDATES, rng) for text in words]


def measure(candidates, repetitions, device):
    """Score them both ways in turn: a dictionary for each, and by how much scores differ."""
    functions = {
        LOOP: lambda: [bleu_scores(own) for own in candidates],
        TENSORS: lambda: mbr_scores(candidates, device),
    }
    mbr_scores(candidates[:1], device)
    times, scores = {name: [[] for _ in range(repetitions)] for name in functions}, {}
    for repetition, _, name in in_turn(list(functions), repetitions, 1):
        taken, scores[name] = seconds(functions[name], device)
        times[name][repetition].append(taken)
    tokens = sum(len(text.split()) for own in candidates for text in own)
    rows = [
        {"name": name, **speeds(times[name], times[LOOP], len(candidates), tokens)}
        for name in functions
    ]
    difference = np.abs(np.array(scores[LOOP]) - np.array(scores[TENSORS])).max()
    return {
        "candidates": CANDIDATES,
        "sentences": len(candidates),
        "rows": rows,
        "greatest_difference": float(difference),
    }
