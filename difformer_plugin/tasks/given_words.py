"""Words that translations have to contain, as fairseq's commands give them to the task."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import torch
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.token_generation_constraints import unpack_constraints

from difformer_plugin.decoding.constraints import MAX_UNORDERED, Constraint
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.diffusion.gaussian.samplers.base import INFILL
from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import Family

ORDERED = "ordered"  # a value of --constraints


class GivenWords:
    """Connects --prefix-size, --constraints and --constraints-file with a generator.

    Args:
        dictionary: of the target.
        args: fairseq's options of generation.
        generator: None as long as there is none.
    Raises:
        UserError: two of the options are given.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        args: Any = None,
        generator: DiffusionGenerator | None = None,
    ):
        args = args or Namespace()
        self.dictionary, self.generator = dictionary, generator
        self.prefix_size = getattr(args, "prefix_size", 0)
        self.phrases = getattr(args, "constraints", None)  # "ordered", "unordered" or None
        self.numbered = 0  # sentences of fairseq-interactive that have been read
        if self.has_file and (self.phrases or self.prefix_size):
            option = "--constraints" if self.phrases else "--prefix-size"
            raise UserError(f"{option} and --constraints-file exclude each other: choose one")

    @property
    def has_file(self) -> bool:
        """Whether there is a --constraints-file."""
        return self.generator is not None and self.generator.constraints is not None

    def check_infill(self, model: Family) -> None:
        """Refuse --infill where nothing is given that it could overwrite.

        Raises:
            UserError: nothing is.
        """
        assert self.generator is not None
        given = self.prefix_size > 0 or self.phrases or self.has_file or model.noises_source
        if self.generator.options.infill != INFILL and not given:
            raise UserError(
                "--infill has no effect where no words are given: give --prefix-size or "
                "--constraints-file as well, or leave it out"
            )

    def check_count(self, sentences: int) -> None:
        """Check that --constraints-file has a line for each of so many typed sentences.

        Raises:
            UserError: it has not.
        """
        if self.has_file:
            self._check_lines(sentences, "the input")

    def _check_lines(self, sentences: int, what: str) -> None:
        generator = self.generator
        assert generator is not None and generator.constraints is not None
        if len(generator.constraints) != sentences:
            raise UserError(
                f"--constraints-file {generator.options.constraints_file} has "
                f"{len(generator.constraints):,} lines, but {what} has {sentences:,} sentences: "
                "write a line for each, an empty one where nothing is given"
            )

    def check_splits(self, model: Family, datasets: Mapping[str, LanguagePairDataset]) -> None:
        """Check the words of all sentences of the splits that are loaded.

        Raises:
            UserError: they have no room, a split has no targets for --prefix-size, or not as many
                sentences as --constraints-file has lines.
        """
        generator = self.generator
        assert generator is not None
        for split, dataset in datasets.items():
            if self.prefix_size > 0 and dataset.tgt is None:
                raise UserError(
                    f"--prefix-size needs references, which the split {split} does not have: use "
                    "--constraints-file"
                )
            lines = generator.constraints
            if lines is not None:
                self._check_lines(len(dataset), f"the split {split}")
            # prefixes of references have room, unless the length is forced
            if lines is None and not (self.prefix_size > 0 and generator.options.forces_length):
                continue
            for number in range(len(dataset)):
                constraint = (
                    lines[number] if lines is not None else self._prefix(dataset.tgt, number)
                )
                generator.check_length(model, constraint, int(dataset.src_sizes[number]))

    def _prefix(self, targets: Any, number: int) -> Constraint:
        """The constraint of --prefix-size for a sentence."""
        tokens = targets[number][1 : self.prefix_size + 1].tolist()
        return Constraint.of_prefix(tokens, self.dictionary, f"the prefix of sentence {number}")

    def next_numbers(self, count: int) -> torch.Tensor | None:
        """What stands for constraints in a data set of typed sentences: their numbers (n, 1).

        The batches of fairseq-interactive have no "id". None without --constraints-file.
        """
        if not self.has_file:
            return None
        self.numbered += count
        return torch.arange(self.numbered - count, self.numbered)[:, None]

    def of_sample(
        self, sample: dict[str, Any], constraints: torch.Tensor | None
    ) -> tuple[dict[str, Any], list[Constraint] | None]:
        """A batch with the numbers of its sentences, and its constraints if fairseq gave them.

        Args:
            constraints: of `next_numbers`, or fairseq's packed phrases (B, M) of --constraints.
        Raises:
            UserError: a phrase has an unknown word, or there are too many.
        """
        if constraints is None:
            return sample, None
        if not self.phrases:
            return {**sample, "id": constraints[:, 0]}, None
        return sample, [self._phrases(row.cpu()) for row in constraints]

    def _phrases(self, packed: torch.Tensor) -> Constraint:
        """The constraint of a row of fairseq's packed phrases."""
        found = [tuple(phrase.tolist()) for phrase in unpack_constraints(packed)]
        shown = ", ".join(repr(self.dictionary.string(torch.tensor(p))) for p in found)
        name = f"--constraints {shown}"
        if any(token < self.dictionary.nspecial for phrase in found for token in phrase):
            raise UserError(f"{name}: a word is not in the target dictionary: give another")
        if len(found) > MAX_UNORDERED and self.phrases != ORDERED:
            raise UserError(
                f"{name}: at most {MAX_UNORDERED} phrases, or any number with --constraints ordered"
            )
        return Constraint(
            anywhere=tuple(filter(None, found)), ordered=self.phrases == ORDERED, name=name
        )
