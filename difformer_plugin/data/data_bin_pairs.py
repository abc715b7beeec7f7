"""Sentence pairs of a data-bin's split, as tokens and as words."""

from os import PathLike

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.data.data_utils import load_indexed_dataset, post_process

from difformer_plugin.data.data_bin_files import check_dataset, stem_of
from difformer_plugin.errors import UserError


def check_mark(mark: str, option: str = "--post-process") -> None:
    """Check that fairseq knows a way of joining subwords, such as '@@ '.

    Args:
        option: what messages call it.
    Raises:
        UserError: it does not.
    """
    try:
        post_process("", mark)
    except NotImplementedError:  # what fairseq raises for an unknown name
        raise UserError(f"{option} '{mark}' is unknown to fairseq: give '@@ '") from None


class DataBinPairs:
    """The sentence pairs of a split.

    Args:
        data: the data-bin.
        split: name of the split, such as "train".
        languages: source and target language.
        dictionaries: source and target dictionary.
        mark: how subwords are joined, as in fairseq's --post-process.
    Attributes:
        stems: paths of the source and target files, without .bin and .idx.
        sides: source and target; each maps a sentence number to its tokens with EOS, (N,).
    Raises:
        UserError: the split does not exist, or has no targets.
    """

    def __init__(
        self,
        data: str | PathLike,
        split: str,
        languages: tuple[str, str],
        dictionaries: tuple[Dictionary, Dictionary],
        mark: str,
    ) -> None:
        check_dataset(data, split, *languages)
        self.stems = [stem_of(data, split, *languages, language) for language in languages]
        if self.stems[1] is None:
            raise UserError(
                f"{data}: {split} has no {languages[1]} side; distillation replaces targets, so "
                "binarise both sides with fairseq-preprocess"
            )
        check_mark(mark)
        self.dictionaries, self.mark = dictionaries, mark
        self.sides = [load_indexed_dataset(str(stem), None, None) for stem in self.stems]

    def __len__(self) -> int:
        return len(self.sides[0])

    def source_lengths(self) -> np.ndarray:
        """Number of source tokens of each sentence without EOS, (number of sentences,)."""
        return self.sides[0].sizes - 1

    def tokens(self, sentence: int) -> list[list[int]]:
        """Source and target tokens of a sentence, without EOS."""
        return [side[sentence].tolist()[:-1] for side in self.sides]

    def target_words(self, tokens: torch.Tensor | list[int], escape_unk: bool = False) -> str:
        """Target tokens as text.

        Args:
            escape_unk: write <unk> in a way that no output matches, for references.
        """
        return self.dictionaries[1].string(tokens, self.mark, escape_unk)

    def source_words(self, sentence: int) -> str:
        """The source of a sentence as text."""
        return self.dictionaries[0].string(self.sides[0][sentence], self.mark)
