"""Sentence pairs of a data-bin's split, as tokens and as words."""

import os
from os import PathLike
from typing import NamedTuple

import numpy as np
import torch
from fairseq.data import ConcatDataset, Dictionary

from difformer_plugin.data.data_bin_files import check_dataset, numbered_splits, stem_of
from difformer_plugin.data.indexed import open_dataset
from difformer_plugin.data.word_marks import check_mark
from difformer_plugin.errors import UserError


class Part(NamedTuple):
    """A split among several that are read one after the other.

    Attributes:
        name: of its files, such as train1.de-en.
        lines: number of its sentences.
        files: the .idx and .bin files of source and target.
    """

    name: str
    lines: int
    files: list[str]


class DataBinPairs:
    """The sentence pairs of a split, or of it and the numbered ones that fairseq-train adds to it.

    Args:
        data: the data-bin.
        split: name of the split, such as "train".
        languages: source and target language.
        dictionaries: source and target dictionary.
        mark: how subwords are joined, as in fairseq's --post-process.
        numbered: whether split1, split2, ... follow the split, as in fairseq's training.
    Attributes:
        parts: the split, and the numbered ones.
        left_out: the numbered splits that are there, but not read.
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
        numbered: bool = False,
    ) -> None:
        check_mark(mark)
        self.dictionaries, self.mark = dictionaries, mark
        others = numbered_splits(data, split, *languages)
        self.left_out = [] if numbered else others
        self.parts: list[Part] = []
        sides: list[list] = [[], []]
        for each in [split, *others] if numbered else [split]:
            stems = self._stems(data, each, languages)
            loaded = [open_dataset(stem) for stem in stems]
            name = os.path.basename(stems[0]).removesuffix(f".{languages[0]}")
            files = [f"{stem}.{end}" for stem in stems for end in ("idx", "bin")]
            self.parts.append(Part(name, len(loaded[0]), files))
            for side, own in zip(sides, loaded):
                side.append(own)
        self.sides = [side[0] if len(side) == 1 else ConcatDataset(side) for side in sides]

    def _stems(
        self, data: str | PathLike, split: str, languages: tuple[str, str]
    ) -> tuple[str, str]:
        """Paths of the source and target files of a split, without .bin and .idx."""
        types = len(self.dictionaries[0]), len(self.dictionaries[1])
        check_dataset(data, split, *languages, types)
        source, target = (stem_of(data, split, *languages, language) for language in languages)
        if target is None:
            raise UserError(
                f"{data}: {split} has no {languages[1]} side; distillation replaces targets, so "
                "binarise both sides with fairseq-preprocess"
            )
        return str(source), str(target)

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
