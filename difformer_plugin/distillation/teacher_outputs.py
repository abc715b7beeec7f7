"""New targets from a teacher's beam search (`difformer distill --teacher`)."""

from pathlib import Path

import numpy as np
import torch

from difformer_plugin.data.data_bin_pairs import DataBinPairs
from difformer_plugin.distillation.choice import CHOOSERS, Choice
from difformer_plugin.distillation.plan import unusable
from difformer_plugin.distillation.settings import (
    CHOICES,
    CUTS,
    FORMAT,
    LIKELIEST,
    PICK,
    SEARCH,
    Settings,
)
from difformer_plugin.distillation.teacher import Teacher
from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import digest_files

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


class TeacherOutputs:
    """The raw pairs of a split, and the teacher's hypothesis for each source.

    Attributes:
        pairs: raw pairs; a target stays where the teacher fails.
        numbers: sentence number of each pair in the raw split.
        parts: the raw split, and those that follow it.
        setting: everything that the journal depends on: options, and hashes of data and teacher.
        later: options that apply after decoding.
        appended: share of `pairs` to append.
    Raises:
        UserError: data and teacher do not fit each other.
    """

    kept: str = "raw"

    def __init__(self, settings: Settings) -> None:
        device = device_name(settings)
        if settings.precision == "fp16" and device == "cpu":
            raise UserError("--fp16 needs a GPU: use --bf16 on the CPU, or neither")
        precision = PRECISIONS.get(settings.precision) if settings.precision else None
        teacher = Teacher(settings.teacher, settings.data, settings.search(), precision, device)
        if not teacher.has_beam_search and settings.choose != LIKELIEST:
            raise UserError(
                f"--choose {settings.choose}: {settings.teacher[0]} has no beam search, and so one "
                "translation to choose from: leave the option out"
            )
        pairs = load_pairs(settings, settings.data, teacher)
        load_sources(teacher, settings, len(pairs))
        self.pairs, self.numbers, self.parts = pairs, np.arange(len(pairs)), pairs.parts
        self.setting = {
            "format": FORMAT,
            "data": digest_pairs(pairs, settings.data, teacher.languages),
            "teacher": digest_files(settings.teacher),
            **settings.named_splits(),
            **dict(zip(("source", "target"), teacher.languages)),
            **settings.named(*PICK, *SEARCH, *CUTS),
            "precision": settings.precision or "float32",
            "--shard": f"{settings.shard}/{settings.shards}",
        }
        self.later = settings.named(*CHOICES)
        self.appended = settings.add_raw
        self._teacher, self._choose = teacher, CHOOSERS[settings.choose]

    def source_lengths(self) -> np.ndarray:
        """Number of source tokens that the teacher sees, (N,)."""
        return self._teacher.source_lengths()

    def causes(self) -> dict[int, str]:
        """Sentences that are not translated -> cause."""
        longest = self._teacher.max_source_tokens()
        return unusable(self.pairs.source_lengths(), self.source_lengths(), longest)

    def reference(self, sentence: int) -> list[int]:
        """The raw target, without EOS."""
        return self.pairs.tokens(sentence)[1]

    def choose(self, sentences: list[int]) -> list[Choice]:
        """Translate a batch and choose among the hypotheses of each sentence."""
        choices, words = [], self.pairs.target_words
        translations = self._teacher.translate(sentences)
        for sentence, (hypotheses, limit) in zip(sentences, translations, strict=True):
            source, target = self.pairs.tokens(sentence)
            choices.append(self._choose(hypotheses, source, target, limit, words))
        return choices


def device_name(settings: Settings) -> str:
    """The device to decode on."""
    return "cuda" if torch.cuda.is_available() and not settings.cpu else "cpu"


def load_pairs(settings: Settings, data: Path, teacher: Teacher) -> DataBinPairs:
    """The pairs of the split in a data-bin that has the teacher's dictionaries."""
    languages, dictionaries = teacher.languages, teacher.dictionaries
    mark, numbered = settings.post_process, settings.all_train_splits
    return DataBinPairs(data, settings.split, languages, dictionaries, mark, numbered)


def load_sources(model: Teacher, settings: Settings, lines: int) -> None:
    """Load the sentences to translate.

    Raises:
        UserError: the model's task repeats or skips sentences, as some of fairseq's do.
    """
    model.load_split(settings.split, settings.all_train_splits)
    if len(model.source_lengths()) != lines:
        raise UserError(
            f"the teacher's task reads {len(model.source_lengths())} of {lines} lines: use a "
            "teacher of fairseq's task translation"
        )


def digest_pairs(pairs: DataBinPairs, data: Path, languages: tuple[str, str]) -> str:
    """Digest of a split and of its dictionaries."""
    files = [Path(name) for part in pairs.parts for name in part.files]
    return digest_files([*files, *(data / f"dict.{language}.txt" for language in languages)])
