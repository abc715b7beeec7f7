"""A teacher: any translation model of fairseq, which translates the sentences of a data-bin."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from fairseq import checkpoint_utils, tasks, utils
from fairseq.dataclass.configs import GenerationConfig
from fairseq.sequence_generator import SequenceGenerator

from difformer_plugin.checkpoints.fingerprint import check_table_sizes
from difformer_plugin.data.data_bin import check_folder
from difformer_plugin.data.data_bin_files import stem_of
from difformer_plugin.data.indexed import implementation
from difformer_plugin.errors import UserError


class Teacher:
    """One model or an ensemble, with its task and, once loaded, the split to translate.

    Args:
        paths: checkpoints; several are an ensemble.
        data: the data-bin.
        search: fields of fairseq's GenerationConfig.
        precision: torch.float16 or torch.bfloat16; None keeps that of the checkpoint.
        device: of the models.
    Raises:
        UserError: a checkpoint cannot be read, or does not fit the data.
    """

    def __init__(
        self,
        paths: Sequence[str],
        data: str | PathLike,
        search: dict[str, Any],
        precision: torch.dtype | None = None,
        device: str = "cpu",
    ) -> None:
        self.models, cfg, self.task = _load(paths, str(data))
        self.languages = (self.task.cfg.source_lang, self.task.cfg.target_lang)
        self.dictionaries = (self.task.source_dictionary, self.task.target_dictionary)
        self.dataset: Any = None  # until `load_split`
        self.device = torch.device(device)
        for model in self.models:
            model.to(device=self.device, dtype=precision).eval()
            model.prepare_for_inference_(cfg)
        self.generator = self.task.build_generator(self.models, GenerationConfig(**search))

    @property
    def has_beam_search(self) -> bool:
        """Whether it searches from left to right, and has as many hypotheses as --beam says."""
        return isinstance(self.generator, SequenceGenerator)

    def load_split(self, split: str, numbered: bool = False) -> None:
        """Load the sentences to translate, with the BOS and EOS that the task adds.

        Args:
            numbered: whether split1, split2, ... follow.
        """
        stem = stem_of(self.task.cfg.data, split, *self.languages, self.languages[0])
        self.task.cfg.dataset_impl = implementation(str(stem))
        self.task.load_dataset(split, combine=numbered)
        self.dataset = self.task.dataset(split)

    def source_lengths(self) -> np.ndarray:
        """Number of source tokens of each sentence, BOS and EOS included, (N,)."""
        return np.asarray(self.dataset.src_sizes)

    def max_source_tokens(self) -> int:
        """Length of the longest source that the teacher has positions for."""
        limits = [self.task.max_positions(), *(model.max_positions() for model in self.models)]
        return utils.resolve_max_positions(*limits)[0]

    @torch.inference_mode()
    def translate(self, sentences: Sequence[int]) -> list[tuple[list[list[int]], int | None]]:
        """Translate one batch; if it does not fit into the memory, in halves.

        Args:
            sentences: their numbers.
        Returns:
            for each sentence (hypotheses, limit): the hypotheses as tokens without BOS and EOS, the
            best first, and the number of tokens at which the search cuts them off, None if unknown.
        Raises:
            UserError: a sentence alone exceeds the memory, or the scores are not finite.
        """
        try:
            sample = self.dataset.collater([self.dataset[int(i)] for i in sentences])
            sample = utils.apply_to_sample(lambda tensor: tensor.to(self.device), sample)
            found = self.task.inference_step(self.generator, self.models, sample)
        except torch.OutOfMemoryError:
            found = None  # the memory of the failed attempt is released after this block
        except AssertionError as error:  # fairseq's search raises it if all scores are NaN
            raise UserError(
                "the teacher's scores are not finite: use --bf16 or float32, or another teacher"
            ) from error
        if found is None:
            if len(sentences) == 1:
                raise UserError(
                    f"sentence {sentences[0]} alone does not fit into the GPU's memory: use a "
                    "smaller --beam, --fp16, or --cpu"
                )
            del sample
            half = len(sentences) // 2
            return self.translate(sentences[:half]) + self.translate(sentences[half:])
        outputs = {
            number: [self._body(hypothesis["tokens"]) for hypothesis in hypotheses]
            for number, hypotheses in zip(sample["id"].tolist(), found)
        }
        limit = self._limit(sample["net_input"]["src_tokens"].shape[1])
        return [(outputs[int(i)], limit) for i in sentences]

    def _body(self, tokens: torch.Tensor) -> list[int]:
        """Tokens without BOS, EOS and padding."""
        dictionary = self.dictionaries[1]
        frame = {dictionary.bos(), dictionary.eos(), dictionary.pad()}
        return [token for token in tokens.tolist() if token not in frame]

    def _limit(self, width: int) -> int | None:
        """Number of tokens after which fairseq's beam search forces EOS.

        Args:
            width: source tokens of the batch, padding included.
        Returns:
            None for generators other than beam search.
        """
        generator = self.generator
        if not self.has_beam_search:
            return None
        longest = int(generator.max_len_a * width + generator.max_len_b)
        return min(longest, generator.max_len - 1)


def _load(paths: Sequence[str], data: str) -> tuple[list, Any, Any]:
    """The models, the first one's configuration, and the task with the data's dictionaries."""
    models, first, task = [], None, None
    for path in paths:
        overrides = {"data": data, "eval_bleu": False, "upsample_primary": 1}
        state = checkpoint_utils.load_checkpoint_to_cpu(path, overrides)
        cfg = state["cfg"]
        try:
            task = task or _task(cfg.task, data)
            check_table_sizes(
                state["model"], len(task.source_dictionary), len(task.target_dictionary)
            )
            (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task(
                [path], task=task, state=state
            )
        except UserError as error:
            raise UserError(f"{path} with {data}: {error}") from error
        except (RuntimeError, ValueError, AssertionError, KeyError) as error:
            cause = " ".join(str(error).split())[:160]
            raise UserError(
                f"{path} cannot be loaded with {data}: use the data-bin whose dict.*.txt it was "
                f"trained with, and a model of this fairseq ({cause})"
            ) from error
        models.append(model)
        first = first or cfg
    return models, first, task


def _task(cfg: Any, data: str) -> Any:
    """Set up the task of a checkpoint on this data."""
    if "source_lang" not in cfg:
        raise UserError(f"its task {cfg._name} is not a translation task")
    check_folder(data, cfg.source_lang, cfg.target_lang)
    return tasks.setup_task(cfg, from_checkpoint=True)
