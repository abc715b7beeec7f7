"""Time MBR with BLEU on synthetic candidates: sacreBLEU in a loop against n-grams in tensors."""

from typing import Any

import numpy as np
import torch

from difformer_plugin.bench import workload
from difformer_plugin.bench.measurement import interleave, throughput, timed
from difformer_plugin.bench.subjects import Subject
from difformer_plugin.reranking.mbr import bleu_scores
from difformer_plugin.reranking.ngram_bleu import mbr_scores

CANDIDATES, SENTENCES = 21, 50
LOOP, TENSORS = "sacrebleu", "tensors"


def synthetic_candidates(
    subject: Subject, seed: int, sentences: int = SENTENCES
) -> list[list[str]]:
    """Candidates of sentences of the subject's split: random edits of their references."""
    dictionary, dataset = subject.task.target_dictionary, subject.dataset
    count = min(sentences, len(dataset))
    rng = np.random.default_rng(seed)
    texts = [
        dictionary.string(dataset.tgt[int(i)], "@@ ", extra_symbols_to_ignore={dictionary.bos()})
        for i in workload.choose_sentences(count, len(dataset), seed)
    ]
    vocabulary = sorted({word for text in texts for word in text.split()})
    return [workload.random_edits(text.split(), vocabulary, CANDIDATES, rng) for text in texts]


def measure(candidates: list[list[str]], repetitions: int, device: torch.device) -> dict[str, Any]:
    """Score candidates with both implementations in turn.

    Returns:
        a dictionary: `candidates` (of a sentence), `sentences`, `rows` (see
        `measurement.throughput`) and `greatest_difference` (between the scores of the two).
    """
    functions = {
        LOOP: lambda: [bleu_scores(own) for own in candidates],
        TENSORS: lambda: mbr_scores(candidates, device),
    }
    mbr_scores(candidates[:1], device)  # warm-up
    times, scores = {name: [[] for _ in range(repetitions)] for name in functions}, {}
    for repetition, _, name in interleave(list(functions), repetitions, 1):
        duration, scores[name] = timed(functions[name], device)
        times[name][repetition].append(duration)
    tokens = sum(len(text.split()) for own in candidates for text in own)
    rows = [
        {"name": name, **throughput(times[name], times[LOOP], len(candidates), tokens)}
        for name in functions
    ]
    difference = np.abs(np.array(scores[LOOP]) - np.array(scores[TENSORS])).max()
    return {
        "candidates": CANDIDATES,
        "sentences": len(candidates),
        "rows": rows,
        "greatest_difference": float(difference),
    }
