"""New targets from a diffusion model's own candidates, chosen by a teacher (`distill --self`).

A target is replaced only where a candidate is better than it, in the teacher's judgement and in
its words in common with the raw target.
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from difformer_plugin.data.data_bin_pairs import DataBinPairs
from difformer_plugin.decoding.settings import OPTIONS, check_not_both, read_settings
from difformer_plugin.distillation.choice import Choice, Tokens, sentence_bleu, units
from difformer_plugin.distillation.distilled_data_bin import MANIFEST, NUMBERS, file_order
from difformer_plugin.distillation.failures import TOO_LONG, failure
from difformer_plugin.distillation.plan import unusable
from difformer_plugin.distillation.settings import CUTS, FORMAT, OwnSettings, Settings
from difformer_plugin.distillation.teacher import Teacher
from difformer_plugin.distillation.teacher_outputs import (
    device_name,
    digest_pairs,
    load_pairs,
    load_sources,
)
from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import is_diffusion_model
from difformer_plugin.options import flag
from difformer_plugin.reranking.options import RERANKER_OPTIONS
from difformer_plugin.reranking.teacher import candidate_log_probs
from difformer_plugin.storage.files import digest_files

BEAMS = {"length_beam_size": 5, "noise_beam_size": 2}
BEAMS_WITHOUT_LENGTHS = {"length_beam_size": 1, "noise_beam_size": 10}  # as many candidates
DECODING = {"decoding_steps": 20}
COMPARED = 1000  # sources, to find out whether two data-bins belong together


class OwnOutputs:
    """The present pairs of a split, and the best of the model's candidates for each source.

    The score of a target is the teacher's mean log-probability per token, in nats, plus
    `bleu_weight` times its sentence BLEU against the raw target, as a fraction.

    Attributes:
        pairs: present pairs; a target stays where no candidate has a higher score.
        numbers: sentence number of each pair in the raw split.
        parts: the raw split, and those that follow it.
        setting: everything that the journal depends on: options, and hashes of data and models.
        later: options that apply after decoding.
        appended: share of `pairs` to append.
    Raises:
        UserError: data, model and teacher do not fit each other.
    """

    kept: str = "present"

    def __init__(self, settings: Settings) -> None:
        own: OwnSettings = settings.own
        device = device_name(settings)
        model = Teacher([own.model], settings.data, {}, device=device)
        teacher = Teacher(settings.teacher, settings.data, {}, device=device)
        check_models(own.model, model, settings.teacher, teacher)
        model.task.cfg.seed = settings.seed
        options = decoding_options(own, model.models[0].tries_lengths)
        model.generator = model.task.build_generator(model.models, Namespace(**options))
        pairs = load_pairs(settings, settings.data, model)
        raw = load_pairs(settings, own.raw, model)
        load_sources(model, settings, len(pairs))
        self.pairs, self.numbers, self.parts = pairs, raw_numbers(settings, pairs, raw), raw.parts
        self.setting = {
            "format": FORMAT,
            "data": digest_pairs(pairs, settings.data, model.languages),
            "raw": digest_pairs(raw, own.raw, model.languages),
            "model": digest_files([own.model]),
            "teacher": digest_files(settings.teacher),
            **settings.named_splits(),
            **dict(zip(("source", "target"), model.languages)),
            **given_options(model.generator.options),
            "--bleu-weight": own.bleu_weight,
            **settings.named("seed", *CUTS),
            "--shard": f"{settings.shard}/{settings.shards}",
        }
        self.later = {"--mix": own.mix}
        self.appended = own.mix
        self._raw, self._model, self._teacher = raw, model, teacher
        self._bleu_weight, self._device = own.bleu_weight, device

    def source_lengths(self) -> np.ndarray:
        """Number of source tokens that the model sees, (N,)."""
        return self._model.source_lengths()

    def causes(self) -> dict[int, str]:
        """Pairs that keep their target because a model cannot read them -> cause."""
        words, tokens = self.pairs.source_lengths(), self.source_lengths()
        longest_target = min(model.max_positions()[1] for model in self._teacher.models)
        too_long = np.flatnonzero(self.pairs.sides[1].sizes > longest_target)
        return (
            {int(i): TOO_LONG for i in too_long}
            | unusable(words, words + 1, self._teacher.max_source_tokens())
            | unusable(words, tokens, self._model.max_source_tokens())
        )

    def reference(self, sentence: int) -> list[int]:
        """The raw target of a pair, without EOS."""
        return self._raw.tokens(int(self.numbers[sentence]))[1]

    def choose(self, sentences: list[int]) -> list[Choice]:
        """Draw the candidates of a batch; each present target competes with them."""
        drawn = self._model.translate(sentences)
        present = [self.pairs.tokens(i) for i in sentences]
        references = [self.reference(i) for i in sentences]
        usable = [
            [c for c in candidates if failure(c, source, reference) is None]
            for (candidates, _), (source, _), reference in zip(drawn, present, references)
        ]
        targets = [[target, *own] for (_, target), own in zip(present, usable)]
        log_probs = self._log_probs([source for source, _ in present], targets)
        return [
            self._best(own, scores, reference, len(candidates) + 1 - len(own))
            for own, scores, reference, (candidates, _) in zip(
                targets, log_probs, references, drawn, strict=True
            )
        ]

    def _best(
        self, targets: Sequence[Tokens], log_probs: Sequence[float], reference: Tokens, failed: int
    ) -> Choice:
        """The target with the highest score; of equal ones the present one, which is the first."""
        words = self.pairs.target_words
        raw = words(reference, True)
        bleu = [sentence_bleu(words(tokens, False), raw) for tokens in targets]
        scores = [p + self._bleu_weight * b / 100 for p, b in zip(log_probs, bleu)]
        best = max(range(len(targets)), key=scores.__getitem__)
        counts = {
            "changed": int(best > 0),
            "candidates": len(targets) - 1 + failed,
            "failed_candidates": failed,
            "present_bleu": units(bleu[0]),
            "chosen_bleu": units(bleu[best]),
            "present_log_prob": units(log_probs[0]),
            "chosen_log_prob": units(log_probs[best]),
        }
        return Choice(targets[best], None, counts)

    @torch.inference_mode()
    def _log_probs(
        self, sources: Sequence[Tokens], targets: Sequence[Sequence[Tokens]]
    ) -> list[list[float]]:
        """The teacher's mean log-probability per token of each target."""
        dictionaries = self.pairs.dictionaries
        eos, pad = dictionaries[0].eos(), dictionaries[0].pad()
        rows = [torch.tensor([*source, eos]) for source in sources]
        src_tokens = pad_sequence(rows, True, pad).to(self._device)
        tensors = [[torch.tensor(tokens, dtype=torch.long) for tokens in own] for own in targets]
        (teacher,) = self._teacher.models
        return candidate_log_probs(teacher, src_tokens, tensors, dictionaries[1])


def check_models(path: str, model: Teacher, teacher_paths: list[str], teacher: Teacher) -> None:
    """Check that a diffusion model draws and one autoregressive model judges.

    Raises:
        UserError: otherwise.
    """
    if not is_diffusion_model(model.models[0]):
        kind = type(model.models[0]).__name__
        raise UserError(
            f"--self {path} is a {kind}, not a diffusion model: give a diffusion model's checkpoint"
        )
    if len(teacher.models) > 1:
        raise UserError(f"--teacher names {len(teacher.models)} models: give one with --self")
    if is_diffusion_model(teacher.models[0]):
        kind = type(teacher.models[0]).__name__
        raise UserError(
            f"--teacher {teacher_paths[0]} is a {kind}: give an autoregressive model with --self"
        )
    if model.languages != teacher.languages:
        pairs = ["-".join(each.languages) for each in (model, teacher)]
        raise UserError(f"--self translates {pairs[0]}, and --teacher {pairs[1]}: give one pair")


def decoding_options(own: OwnSettings, tries_lengths: bool) -> dict[str, Any]:
    """The options of decoding, name -> value; those of reranking are off, as the teacher chooses.

    Args:
        tries_lengths: of the model.
    """
    values = read_settings(own.decoding_settings) if own.decoding_settings else {}
    check_not_both(own.decoding, values, own.decoding_settings)
    beams = BEAMS if tries_lengths else BEAMS_WITHOUT_LENGTHS
    off = {name: OPTIONS[name].default for name in RERANKER_OPTIONS}
    return DECODING | beams | values | own.decoding | off | {"decoding_settings": None}


def given_options(options: Any) -> dict[str, Any]:
    """The size of the beams, the steps and all options that are not at their default, by flag."""
    always = {*BEAMS, *DECODING}
    values = {name: vars(options)[name] for name in OPTIONS}
    return {
        flag(name): value
        for name, value in values.items()
        if name in always or value != OPTIONS[name].default
    }


def raw_numbers(settings: Settings, pairs: DataBinPairs, raw: DataBinPairs) -> np.ndarray:
    """The sentence number of each present pair in the raw split, ascending, (N,).

    Args:
        settings: `data` is the data-bin of `pairs`; a distilled one says which sentences it holds.
    Raises:
        UserError: it holds sentences twice, or other ones than the raw split.
    """
    data, split, numbers = settings.data, settings.split, np.arange(len(pairs))
    if (data / MANIFEST).is_file():
        try:
            manifest = json.loads((data / MANIFEST).read_text("utf-8"))
            setting = manifest["setting"]
            if setting["split"] == split:
                numbers = np.load(data / NUMBERS)
                numbers = numbers[file_order(manifest, numbers)]
            all_splits = setting.get("--all-train-splits", False)
        except (
            OSError,
            EOFError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ):
            raise UserError(f"{data} is damaged: distil it again") from None
        if setting["split"] == split and all_splits != settings.all_train_splits:
            verb = "give" if all_splits else "omit"
            raise UserError(
                f"{data} was distilled {'with' if all_splits else 'without'} --all-train-splits: "
                f"{verb} it here, too"
            )
    if (np.diff(numbers) <= 0).any():
        raise UserError(
            f"{data} holds pairs twice: give a data-bin distilled without --add-raw and --mix"
        )
    if not _same_sources(pairs, raw, numbers):
        raise UserError(
            f"{data} and --raw do not have the same sources in {split}: give the raw data-bin that "
            "it was distilled from"
        )
    return numbers


def _same_sources(pairs: DataBinPairs, raw: DataBinPairs, numbers: np.ndarray) -> bool:
    """Whether all sources are equally long, and some of them equal."""
    if len(numbers) != len(pairs) or len(numbers) == 0 or numbers[-1] >= len(raw):
        return False
    if not np.array_equal(pairs.sides[0].sizes, raw.sides[0].sizes[numbers]):
        return False
    some = np.linspace(0, len(numbers) - 1, min(COMPARED, len(numbers))).astype(int).tolist()
    return all(pairs.sides[0][i].equal(raw.sides[0][int(numbers[i])]) for i in some)
