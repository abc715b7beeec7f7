"""Mean sentence BLEU of every candidate against the others, for many sentences at once in tensors.

The scores equal those of sacrebleu's `BLEU(effective_order=True).sentence_score`.

Each n-gram gets a number by sorting, without hash collisions: an n-gram is a pair of an (n-1)-gram
and a token. "The n-gram g occurs at least k times in the candidate" is a binary feature of the
candidate, so that the clipped number of matches of two candidates is the inner product of their
features.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
import torch
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

MAX_ORDER = 4
ELEMENTS = 2**22  # maximal size of a feature tensor; it limits how many sentences form a chunk

_tokenize_line = Tokenizer13a()


def mbr_scores(
    sentences: Sequence[Sequence[str]],
    device: torch.device | str = "cpu",
    evidence: Sequence[Sequence[str]] | None = None,
) -> list[list[float]]:
    """Mean sentence BLEU of each candidate with the other candidates as references (Sec. 3.3).

    Equal candidates are scored once. A single candidate without evidence scores 0.

    Args:
        sentences: for each sentence the texts of any number of candidates.
        device: the device on which n-grams are counted.
        evidence: for each sentence further texts, which are only used as references.
    Returns:
        for each sentence a list of scores, 0 to 100.
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


def mbr_scores_of_ids(
    ids: torch.Tensor, lengths: torch.Tensor, sentence: torch.Tensor
) -> torch.Tensor:
    """Mean BLEU of each candidate over token ids, with the others of its sentence as references.

    Args:
        ids: int64 (N, L), the tokens of each candidate, which are not negative, then any padding.
        lengths: int64 (N,), the number of tokens without padding.
        sentence: int64 (N,), the sentence of each candidate, in any order.
    Returns:
        float64 (N,) on the same device, 0 to 100. A single candidate scores 0.
    """
    device_lengths, (lengths, sentence) = lengths, torch.stack([lengths, sentence]).cpu()
    order = sentence.argsort(stable=True)
    device_order = order.to(ids.device)
    real = torch.arange(ids.shape[1], device=ids.device) < device_lengths[device_order, None]
    sizes = sentence[order].unique_consecutive(return_counts=True)[1]
    weights = torch.ones(len(order), dtype=torch.float64)
    means = _mean_bleu(ids[device_order][real], lengths[order], sizes, weights)
    return torch.empty_like(means).index_copy_(0, device_order, means)


class _WordIds(dict):
    """Maps a word to the ids of its 13a tokens; new tokens get the next free id."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def __missing__(self, word: str) -> list[int]:
        self[word] = ids = [self.ids.setdefault(t, len(self.ids)) for t in _tokens(word)]
        return ids


@lru_cache(maxsize=2**16)
def _tokens(text: str) -> list[str]:
    """The 13a tokens of a text."""
    return _tokenize_line(text.rstrip()).split()


def _word_ids(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tokenise N texts by sacrebleu's 13a rules, and number the tokens.

    Words are tokenised separately, so that a frequent word is tokenised once. That gives the same
    tokens, because the rules look at most one character ahead or back, never replace white space,
    and treat all white space except newlines alike.

    Returns:
        the ids of all tokens, int64 (T,), and the number of tokens of each text, int64 (N,).
    """
    ids_of, ids, ends = _WordIds().__getitem__, [], [0]
    for text in texts:
        words = [text] if "\n" in text else text.split()
        ids.extend(chain.from_iterable(map(ids_of, words)))
        ends.append(len(ids))
    return np.array(ids, np.int64), np.diff(ends)


def _mean_bleu(
    tokens: torch.Tensor, lengths: torch.Tensor, sizes: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Mean BLEU of each candidate with all other references of its sentence.

    Args:
        tokens: int64 (T,), the tokens of all candidates, in order of sentences and candidates.
        lengths: int64 (N,) on the CPU, the number of tokens of each candidate.
        sizes: int64 (S,) on the CPU, the number of candidates of each sentence.
        weights: float64 (N,) on the CPU, how many references have the text of each candidate,
            including the candidate itself.
    Returns:
        float64 (N,) on the device of `tokens`, 0 to 100.
    """
    counts = _chunks(lengths, sizes)
    chunk_sizes = sizes.split(counts)
    candidates = [int(chunk.sum()) for chunk in chunk_sizes]
    chunk_lengths, chunk_weights = lengths.split(candidates), weights.split(candidates)
    chunk_tokens = tokens.split([int(chunk.sum()) for chunk in chunk_lengths])
    means = [tokens.new_zeros(0, dtype=torch.float64)]
    for chunk in zip(chunk_tokens, chunk_lengths, chunk_sizes, chunk_weights):
        means.append(_mean_bleu_of_chunk(*chunk))
    return torch.cat(means)


def _chunks(lengths: torch.Tensor, sizes: torch.Tensor) -> list[int]:
    """The number of sentences in each chunk; a chunk has at most ELEMENTS features if possible."""
    ends = sizes.cumsum(0)
    tokens = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    # A sentence has at most as many features of an order as its candidates have tokens.
    features = tokens[ends] - tokens[ends - sizes]
    counts: list[int] = []
    count, rows, columns = 0, 0, 0
    for size, width in zip(sizes.tolist(), features.maximum(sizes).tolist()):
        rows, columns = max(rows, size), max(columns, width)
        if count and (count + 1) * rows * columns > ELEMENTS:
            counts.append(count)
            count, rows, columns = 0, size, width
        count += 1
    return [*counts, count] if count else counts


def _mean_bleu_of_chunk(
    tokens: torch.Tensor, lengths: torch.Tensor, sizes: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """`_mean_bleu` of few enough sentences that their features fit into memory."""
    if not len(tokens):
        return tokens.new_zeros(len(lengths), dtype=torch.float64)
    slots = int(sizes.max())
    # Each sentence gets as many slots as the largest one has candidates.
    shift = torch.arange(len(sizes)) * slots - (sizes.cumsum(0) - sizes)
    rows = torch.arange(len(lengths)) + shift.repeat_interleave(sizes)  # indices into (S, slots)
    # Lengths and weights are transferred to the device together.
    table = torch.zeros(2, len(sizes) * slots, dtype=torch.float64)
    table[0, rows], table[1, rows] = lengths.double(), weights
    length, weight = table.to(tokens.device).view(2, len(sizes), slots)
    matches = _matches(tokens, lengths, rows, slots, len(sizes))
    bleu = _bleu(matches, length)
    others = (bleu @ weight[..., None])[..., 0] - bleu.diagonal(dim1=1, dim2=2)
    means = others / (weight.sum(1, keepdim=True) - 1).clamp(min=1)
    return means.flatten()[rows.to(tokens.device)]


def _bleu(matches: Sequence[torch.Tensor], length: torch.Tensor) -> torch.Tensor:
    """BLEU of all pairs of candidates (Papineni et al., 2002), with sacrebleu's smoothing.

    The i-th order without a match counts as 2^-i matches (`exp` smoothing, Chen and Cherry, 2014).
    Orders that are longer than the hypothesis are omitted (effective order).

    Args:
        matches: for each order the clipped matches of hypothesis and reference, float64 (S, C, C).
        length: float64 (S, C), the number of tokens of each candidate.
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


def _matches(
    tokens: torch.Tensor, lengths: torch.Tensor, rows: torch.Tensor, slots: int, sentences: int
) -> list[torch.Tensor]:
    """The clipped number of n-gram matches of all pairs of candidates of each sentence.

    Args:
        tokens: int64 (T,), the tokens of all candidates, in order of sentences and candidates.
        lengths: int64 (N,) on the CPU, the number of tokens of each candidate.
        rows: int64 (N,) on the CPU, the index of each candidate in a tensor (S, C), flattened.
        slots: C, the number of slots per sentence.
        sentences: S, the number of sentences.
    Returns:
        for each order that occurs, float64 (S, C, C).
    """
    count, device = len(tokens), tokens.device
    position = torch.arange(count, device=device)
    row_and_end = torch.stack([rows, lengths.cumsum(0)]).to(device)
    row, end = row_and_end.repeat_interleave(lengths.to(device), dim=1, output_size=count)
    key = row.div(slots, rounding_mode="floor") * (tokens.max() + 1) + tokens
    features = []
    for order in range(1, MAX_ORDER + 1):
        present = int((lengths - order + 1).clamp(min=0).sum())
        if not present:
            break
        # n-grams that extend beyond a candidate's end are sorted behind all others.
        key = key.masked_fill(position + order > end, torch.iinfo(key.dtype).max)
        key, at = key.sort(stable=True)  # stable: equal n-grams stay in order of candidates
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


def _features(
    gram: torch.Tensor, new: torch.Tensor, owner: torch.Tensor, slots: int
) -> torch.Tensor:
    """Number the features (n-gram, k) of each sentence, k being the occurrence in the candidate.

    Args:
        gram: int64 (T,), the n-grams in ascending order, so that those of a sentence are adjacent.
        new: bool (T,), whether an n-gram differs from the one before it.
        owner: int64 (T,), the row of the candidate, in ascending order among equal n-grams.
        slots: the number of rows per sentence.
    Returns:
        int64 (T,), numbers from 0 without gaps in each sentence.
    """
    position = torch.arange(len(gram), device=gram.device)
    occurrence = position - _last_marked(position, new | _changes(owner))
    # A feature occurs for the first time where k exceeds all earlier k of the same n-gram.
    first = _changes((gram * len(gram) + occurrence).cummax(0).values)
    number = first.cumsum(0) - 1
    sentence = owner.div(slots, rounding_mode="floor")
    return _last_marked(number, new) + occurrence - _last_marked(number, _changes(sentence))


def _changes(values: torch.Tensor) -> torch.Tensor:
    """Bool (T,), True at the first value and where a value differs from the one before it."""
    changes = torch.ones_like(values, dtype=torch.bool)
    changes[1:] = values[1:] != values[:-1]
    return changes


def _last_marked(values: torch.Tensor, marked: torch.Tensor) -> torch.Tensor:
    """For each position, the value at the last marked position up to it.

    Args:
        values: int64 (T,), not negative and not decreasing.
        marked: bool (T,).
    """
    return values.masked_fill(~marked, 0).cummax(0).values
