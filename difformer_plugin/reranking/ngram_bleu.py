"""Minimum Bayes risk with sentence BLEU for all candidates of all sentences at once, in tensors.

The scores are those of sacrebleu's `BLEU(effective_order=True).sentence_score`. N-grams are
numbered exactly, by sorting: an n-gram is a pair of an (n-1)-gram and a word. The k-th occurrence
of an n-gram in a candidate is a binary feature of the candidate. So the clipped number of matches
of two candidates is the inner product of their features.
"""

from collections import Counter
from functools import lru_cache
from itertools import chain

import numpy as np
import torch
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

MAX_ORDER = 4
ELEMENTS = 2**22  # of the features of a chunk of sentences, at most

_tokenize_line = Tokenizer13a()


def mbr_scores(sentences, device="cpu", evidence=None):
    """For each candidate its mean sentence BLEU with the others as references (Sec. 3.3).

    Equal candidates are scored once. A single candidate without evidence has 0.

    Args:
        sentences: for each sentence the texts of its candidates, any number of them.
        device: where n-grams are counted.
        evidence: for each sentence further texts, which are references only.
    Returns:
        for each sentence a list of floats on sacrebleu's scale of 0 to 100.
    """
    evidence = evidence or [()] * len(sentences)
    counts = [Counter(chain(*texts)) for texts in zip(sentences, evidence, strict=True)]
    tokens, lengths = _word_ids(chain.from_iterable(counts))
    means = _mean_bleu(
        torch.from_numpy(tokens).to(device),
        torch.from_numpy(lengths),
        torch.tensor([len(texts) for texts in counts], dtype=torch.int64),
        torch.tensor([n for texts in counts for n in texts.values()], dtype=torch.float64),
    )
    rest = iter(means.tolist())
    scores = [dict(zip(texts, rest)) for texts in counts]
    return [[score[text] for text in texts] for score, texts in zip(scores, sentences)]


def mbr_scores_of_ids(ids, lengths, sentence):
    """For each candidate its mean BLEU over token ids with the others of its sentence.

    Args:
        ids: int64 (N, L), the tokens of each candidate, not negative, then any padding.
        lengths: int64 (N,), how many of them count.
        sentence: int64 (N,), which sentence each candidate is of, in any order.
    Returns:
        float64 (N,) on the same device, 0 to 100; a candidate alone has 0.
    """
    lengths_there, (lengths, sentence) = lengths, torch.stack([lengths, sentence]).cpu()
    order = sentence.argsort(stable=True)
    there = order.to(ids.device)
    real = torch.arange(ids.shape[1], device=ids.device) < lengths_there[there, None]
    sizes = sentence[order].unique_consecutive(return_counts=True)[1]
    weights = torch.ones(len(order), dtype=torch.float64)
    means = _mean_bleu(ids[there][real], lengths[order], sizes, weights)
    return torch.empty_like(means).index_copy_(0, there, means)


class _WordIds(dict):
    """From a word to the ids of its 13a tokens, counted in the order in which they appear."""

    def __init__(self):
        self.ids = {}

    def __missing__(self, word):
        self[word] = ids = [self.ids.setdefault(t, len(self.ids)) for t in _tokens(word)]
        return ids


@lru_cache(maxsize=2**16)
def _tokens(text):
    return _tokenize_line(text.rstrip()).split()


def _word_ids(texts):
    """The 13a tokens of texts as ids, int64 (T,) for all, and the number of tokens of each, (N,).

    The rules of 13a look at one neighbour of a character, never replace white space by something
    else and treat all of it alike, newlines apart. So words can be tokenised one by one.
    """
    ids_of, ids, ends = _WordIds().__getitem__, [], [0]
    for text in texts:
        words = [text] if "\n" in text else text.split()
        ids.extend(chain.from_iterable(map(ids_of, words)))
        ends.append(len(ids))
    return np.array(ids, np.int64), np.diff(ends)


def _mean_bleu(tokens, lengths, sizes, weights):
    """The mean BLEU of each candidate with all references of its sentence but itself.

    Args:
        tokens: int64 (T,), candidate after candidate, sentence after sentence.
        lengths: int64 (N,) on the CPU, the number of tokens of each candidate.
        sizes: int64 (S,) on the CPU, the number of candidates of each sentence.
        weights: float64 (N,) on the CPU, how often each candidate is a reference, itself included.
    Returns:
        float64 (N,) on the device of `tokens`.
    """
    numbers = _chunks(lengths, sizes)
    sizes = sizes.split(numbers)
    candidates = [int(chunk.sum()) for chunk in sizes]
    lengths, weights = lengths.split(candidates), weights.split(candidates)
    tokens_of = [int(chunk.sum()) for chunk in lengths]
    means = [tokens.new_zeros(0, dtype=torch.float64)]
    for chunk in zip(tokens.split(tokens_of), lengths, sizes, weights):
        means.append(_mean_bleu_of_chunk(*chunk))
    return torch.cat(means)


def _chunks(lengths, sizes):
    """How many sentences to count at a time, so that the features do not exceed ELEMENTS."""
    ends = sizes.cumsum(0)
    tokens = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    # a sentence has at most as many features of an order as its candidates have tokens
    features = tokens[ends] - tokens[ends - sizes]
    numbers, number, rows, columns = [], 0, 0, 0
    for size, width in zip(sizes.tolist(), features.maximum(sizes).tolist()):
        rows, columns = max(rows, size), max(columns, width)
        if number and (number + 1) * rows * columns > ELEMENTS:
            numbers.append(number)
            number, rows, columns = 0, size, width
        number += 1
    return [*numbers, number] if number else numbers


def _mean_bleu_of_chunk(tokens, lengths, sizes, weights):
    """As _mean_bleu, of a few sentences."""
    if not len(tokens):
        return tokens.new_zeros(len(lengths), dtype=torch.float64)
    slots = int(sizes.max())
    first = torch.arange(len(sizes)) * slots - (sizes.cumsum(0) - sizes)
    rows = torch.arange(len(lengths)) + first.repeat_interleave(sizes)  # in (S, slots)
    # one transfer to the device
    table = torch.zeros(2, len(sizes) * slots, dtype=torch.float64)
    table[0, rows], table[1, rows] = lengths.double(), weights
    length, weight = table.to(tokens.device).view(2, len(sizes), slots)
    matches = _matches(tokens, lengths, rows, slots, len(sizes))
    bleu = _bleu(matches, length)
    others = (bleu @ weight[..., None])[..., 0] - bleu.diagonal(dim1=1, dim2=2)
    means = others / (weight.sum(1, keepdim=True) - 1).clamp(min=1)
    return means.flatten()[rows.to(tokens.device)]


def _bleu(matches, length):
    """BLEU of pairs from their matches (Papineni et al., 2002), as sacrebleu smooths it.

    Where no n-gram of the i-th such order matches, it counts as 2^-i matches (`exp` smoothing, Chen
    and Cherry, 2014); orders of which the hypothesis has no n-gram are left out (effective order).

    Args:
        matches: float64 (S, C, C) for each order, the hypothesis first.
        length: float64 (S, C), in tokens.
    Returns:
        float64 (S, C, C), 0 to 100.
    """
    hypothesis, reference = length[:, :, None], length[:, None, :]
    product, smoothed = torch.ones_like(matches[0]), torch.ones_like(matches[0])
    for order, matched in enumerate(matches, 1):
        total = hypothesis - order + 1
        smoothed = smoothed.where(matched > 0, smoothed / 2)
        precision = matched.where(matched > 0, smoothed) / total
        product = product.where(total <= 0, product * precision)
    score = product.pow(1 / hypothesis.clamp(1, MAX_ORDER))
    brevity = (1 - reference / hypothesis).clamp(max=0).exp()
    return (100 * brevity * score).masked_fill(matches[0] == 0, 0)


def _matches(tokens, lengths, rows, slots, sentences):
    """The clipped number of matches of any two candidates of a sentence.

    Args:
        tokens: int64 (T,), candidate after candidate.
        lengths, rows: int64 (N,) on the CPU, the length of each candidate and its place in (S, C).
        slots, sentences: C and S.
    Returns:
        for each order float64 (S, C, C).
    """
    count, device = len(tokens), tokens.device
    position = torch.arange(count, device=device)
    spread = torch.stack([rows, lengths.cumsum(0)]).to(device)
    row, end = spread.repeat_interleave(lengths.to(device), dim=1, output_size=count)
    key = row.div(slots, rounding_mode="floor") * (tokens.max() + 1) + tokens
    features = []
    for order in range(1, MAX_ORDER + 1):
        present = int((lengths - order + 1).clamp(min=0).sum())
        if not present:
            break
        # n-grams that a candidate's end cuts off are put behind all others
        key = key.masked_fill(position + order > end, torch.iinfo(key.dtype).max)
        key, at = key.sort(stable=True)  # so candidates stay in order among equal n-grams
        new = _changes(key)
        number = new.cumsum(0) - 1
        gram = torch.empty_like(number).scatter_(0, at, number)
        owner = row[at[:present]]
        features.append((owner, _features(number[:present], new[:present], owner, slots)))
        if order == 1:
            word = gram
        key = gram * count + word.roll(-order)
    widths = torch.stack([feature.max() + 1 for _, feature in features]).tolist()
    matches = []
    for (owner, feature), width in zip(features, widths):
        has = torch.zeros(sentences * slots * width, dtype=torch.float64, device=device)
        has = has.index_fill_(0, owner * width + feature, 1).view(sentences, slots, width)
        matches.append(has @ has.mT)
    return matches


def _features(gram, new, owner, slots):
    """Number the pairs (n-gram, k-th occurrence in its candidate) within each sentence.

    Args:
        gram: int64 (T,), the n-grams, sorted, those of a sentence together.
        new: bool (T,), whether it differs from the one before.
        owner: int64 (T,), its candidate's row, sorted among equal n-grams.
        slots: rows of a sentence.
    Returns:
        int64 (T,), from 0 in each sentence, without gaps.
    """
    position = torch.arange(len(gram), device=gram.device)
    occurrence = position - _carried(position, new | _changes(owner))
    # seen for the first time where it exceeds all earlier occurrences of the n-gram
    first = _changes((gram * len(gram) + occurrence).cummax(0).values)
    number = first.cumsum(0) - 1
    sentence = owner.div(slots, rounding_mode="floor")
    return _carried(number, new) + occurrence - _carried(number, _changes(sentence))


def _changes(values):
    """Where a value differs from the one before it; the first one does."""
    changes = torch.ones_like(values, dtype=torch.bool)
    changes[1:] = values[1:] != values[:-1]
    return changes


def _carried(values, marked):
    """The value at the last marked place, for values that do not fall."""
    return values.masked_fill(~marked, 0).cummax(0).values
