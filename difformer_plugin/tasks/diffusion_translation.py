"""The fairseq task: parallel data framed by BOS and EOS, and decoding by diffusion."""

import json
import logging
import os
from argparse import Namespace
from dataclasses import dataclass
from typing import Optional

import numpy as np
import torch
from fairseq import utils
from fairseq.data import LanguagePairDataset, ListDataset, PrependTokenDataset, encoders
from fairseq.data.data_utils import load_indexed_dataset
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask, register_task
from fairseq.tasks.translation import (
    EVAL_BLEU_ORDER,
    TranslationConfig,
    TranslationTask,
    load_langpair_dataset,
)
from omegaconf import II
from sacrebleu.metrics import BLEU

from difformer_plugin import fairseq_patches
from difformer_plugin.checkpoints.fingerprint import check_table_sizes
from difformer_plugin.data.data_bin import check_dataset, check_folder
from difformer_plugin.decoding import settings
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.errors import UserError
from difformer_plugin.families import registered  # noqa: F401  (--user-dir registers them by this)
from difformer_plugin.families.contract import is_diffusion_model
from difformer_plugin.options import option

logger = logging.getLogger(__name__)
COUNTED = 100_000  # sentences from which the distribution of types is estimated
fairseq_patches.install()


def _bleu(meters):
    """BLEU from the counts that validation has summed."""
    return BLEU.compute_bleu(
        correct=meters["_bleu_counts"].sum,
        total=meters["_bleu_totals"].sum,
        sys_len=int(meters["_bleu_sys_len"].sum),
        ref_len=int(meters["_bleu_ref_len"].sum),
        smooth_method="exp",
    ).score


@dataclass
class DiffusionTranslationConfig(DecodingOptions, TranslationConfig):
    decoding_settings: Optional[str] = option(
        None,
        "a TOML file of options of decoding, as difformer tune writes it, for those that are "
        "left at their defaults",
    )
    seed: int = II("common.seed")


@register_task("diffusion_translation", dataclass=DiffusionTranslationConfig)
class DiffusionTranslationTask(TranslationTask):
    """Translation by a diffusion model.

    It differs from fairseq's `translation` in that sources and targets begin with BOS, that
    decoding has its own generator, and that no sentence is ever left out.
    """

    cfg: DiffusionTranslationConfig

    @classmethod
    def setup_task(cls, cfg, **kwargs):
        """Load the dictionaries of the (first) data folder."""
        alone = not torch.distributed.is_initialized() and not kwargs.get("from_checkpoint")
        if alone and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                "these processes of one torchrun know nothing of each other and would all do the "
                "same: on a CPU, start fairseq-train with torchrun"
            )
        check_folder(utils.split_paths(cfg.data)[0], cfg.source_lang, cfg.target_lang)
        return super().setup_task(cfg, **kwargs)

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        """Load a split; of several data folders, training takes one an epoch in turn."""
        paths = utils.split_paths(self.cfg.data)
        path = paths[(epoch - 1) % len(paths)] if split == self.cfg.train_subset else paths[0]
        cfg, source, target = self.cfg, self.cfg.source_lang, self.cfg.target_lang
        if cfg.dataset_impl != "raw":
            check_dataset(path, split, source, target)
        self.datasets[split] = load_langpair_dataset(
            path,
            split,
            source,
            self.src_dict,
            target,
            self.tgt_dict,
            combine=combine,
            dataset_impl=cfg.dataset_impl,
            upsample_primary=cfg.upsample_primary,
            left_pad_source=cfg.left_pad_source,
            left_pad_target=cfg.left_pad_target,
            # read for truncation only, which comes before BOS does
            max_source_positions=cfg.max_source_positions - 1,
            max_target_positions=cfg.max_target_positions,
            truncate_source=cfg.truncate_source,
            num_buckets=cfg.num_batch_buckets,
            shuffle=split != "test",
            pad_to_multiple=cfg.required_seq_len_multiple,
            prepend_bos=True,
        )

    def build_dataset_for_inference(self, src_tokens, src_lengths, constraints=None):
        """Sources as the model knows them: with BOS."""
        if constraints is not None:
            raise UserError("--constraints: diffusion decoding has no lexical constraints")
        source = PrependTokenDataset(ListDataset(src_tokens, src_lengths), self.src_dict.bos())
        return LanguagePairDataset(source, source.sizes, self.src_dict, tgt_dict=self.tgt_dict)

    def build_model(self, cfg, from_checkpoint=False):
        """Build a model; a teacher loaded beside it must have the same dictionaries."""
        model = FairseqTask.build_model(self, cfg, from_checkpoint)
        model.register_load_state_dict_pre_hook(
            lambda module, state, *unused: check_table_sizes(
                state, len(self.src_dict), len(self.tgt_dict)
            )
        )
        diffusion = is_diffusion_model(model)
        if not diffusion and not from_checkpoint:
            raise UserError(
                f"--task diffusion_translation cannot train a {type(model).__name__}: use --arch "
                "difformer or discrete_diffusion, or one of their sizes"
            )
        if diffusion:
            self.criterion, self.model_cfg = model.criterion, model.cfg
            self.model_objective = model.objective
        if diffusion and not from_checkpoint:
            model.prepare_training(self)
        if self.cfg.eval_bleu and diffusion and not from_checkpoint:
            self._prepare_eval_bleu(model)
        return model

    def valid_step(self, sample, model, criterion):
        """fairseq's; a checkpoint's --eval-bleu is prepared here, as many who load it need none."""
        if self.cfg.eval_bleu and not hasattr(self, "sequence_generator"):
            self._prepare_eval_bleu(model)
        return super().valid_step(sample, model, criterion)

    def build_criterion(self, cfg, from_checkpoint=False):
        """Build a criterion, which must be the one of the model."""
        if cfg._name != self.criterion:
            raise UserError(
                f"--criterion {cfg._name} is none of this model's: use --criterion {self.criterion}"
            )
        return super().build_criterion(cfg, from_checkpoint)

    def target_counts(self):
        """How often each type is in the training targets, float64 (V,); of at most 100,000."""
        path = utils.split_paths(self.cfg.data)[0]
        pair = f"{self.cfg.source_lang}-{self.cfg.target_lang}"
        for name in (pair, "-".join(reversed(pair.split("-")))):
            prefix = os.path.join(path, f"{self.cfg.train_subset}.{name}.{self.cfg.target_lang}")
            targets = load_indexed_dataset(prefix, self.tgt_dict, self.cfg.dataset_impl)
            if targets is not None:
                break
        else:
            raise UserError(
                f"{path}: no targets of {self.cfg.train_subset}, whose types this process counts: "
                "train on a data-bin that has them"
            )
        chosen = np.linspace(0, len(targets) - 1, min(len(targets), COUNTED)).astype(int)
        tokens = torch.cat([targets[i].long() for i in chosen])
        return torch.bincount(tokens, minlength=len(self.tgt_dict)).double()

    def _prepare_eval_bleu(self, model):
        """What fairseq's translation task validates BLEU with."""
        detokeniser = json.loads(self.cfg.eval_bleu_detok_args)
        self.tokenizer = encoders.build_tokenizer(
            Namespace(tokenizer=self.cfg.eval_bleu_detok, **detokeniser)
        )
        try:
            given = json.loads(self.cfg.eval_bleu_args)
        except json.JSONDecodeError as error:
            raise UserError(
                f"--eval-bleu-args must be JSON, as '{{\"length_beam_size\": 3}}': {error}"
            ) from None
        known = set(settings.OPTIONS) - {"ppl_mbr", "history_file"}
        if unknown := sorted(set(given) - known):
            raise UserError(
                f"--eval-bleu-args: no such option as {', '.join(unknown)}; there are "
                f"{', '.join(sorted(known))}"
            )
        # while a model is trained, or loaded as one of two, there is no teacher and no history
        options = Namespace(**given, ppl_mbr=False, history_file=None)
        self.sequence_generator = self.build_generator([model], options)

    def build_generator(self, models, args, **unused):
        """The generator, with this task's decoding options.

        `args` may override them: the JSON of --eval-bleu-args and the keyword arguments of
        `from_pretrained(...).translate` end up there. The file of --decoding-settings is read
        here and nowhere else: a checkpoint may remember one that is long gone.
        """
        path = getattr(args, "decoding_settings", self.cfg.decoding_settings)
        options = settings.merge(self.cfg, args, path)
        for name in ("print_alignment", "score_reference", "constraints"):
            if getattr(args, name, None):
                raise UserError(f"--{name.replace('_', '-')}: diffusion decoding has no such thing")
        if getattr(args, "nbest", 1) < 1:
            raise UserError(f"--nbest must be at least 1, not {args.nbest}")
        history = getattr(args, "retain_iter_history", False)
        with settings.mention_settings_file(path):
            generator = DiffusionGenerator(self.tgt_dict, options, self.cfg.seed, history)
            generator.check_models(models)
        return generator

    def reduce_metrics(self, logging_outputs, criterion):
        """fairseq's, with a BLEU of 0 where all translations were empty and it would log none."""
        super().reduce_metrics(logging_outputs, criterion)
        scored = [log for log in logging_outputs if "_bleu_sys_len" in log]
        if scored and sum(log["_bleu_totals_0"] for log in scored) == 0:
            for name in ("_bleu_counts", "_bleu_totals"):
                metrics.log_scalar(name, np.zeros(EVAL_BLEU_ORDER))
            metrics.log_scalar("_bleu_sys_len", 0)
            metrics.log_scalar("_bleu_ref_len", sum(log["_bleu_ref_len"] for log in scored))
            metrics.log_derived("bleu", _bleu)

    def get_batch_iterator(self, dataset, *args, **kwargs):
        """fairseq's, without its loss of the last batch of sizes that are no multiple of 8."""
        kwargs["required_batch_size_multiple"] = 1
        return super().get_batch_iterator(dataset, *args, **kwargs)

    def filter_indices_by_size(
        self, indices, dataset, max_positions=None, ignore_invalid_inputs=False
    ):
        """Refuse sentences longer than the position tables, or skip them if the user says so."""
        kept, ignored = dataset.filter_indices_by_size(indices, max_positions)
        if len(ignored) == 0:
            return kept
        if not ignore_invalid_inputs:
            first = ignored[0]
            sizes = ", ".join(str(size) for size in np.atleast_1d(dataset.size(first)))
            raise UserError(
                f"sentence {first} (counted from 0) has {sizes} tokens (source, "
                f"target), more than the position tables hold, {max_positions}; {len(ignored)} "
                "such sentences: shorten them, train with greater --max-source-positions and "
                "--max-target-positions, or skip them with --skip-invalid-size-inputs-valid-test"
            )
        if len(kept) == 0 and len(ignored) > 1:
            raise UserError(
                f"all {len(ignored)} sentences are longer than the position tables, "
                f"{max_positions}: nothing is left to read"
            )
        logger.warning(
            f"{len(ignored):,} sentences longer than {max_positions} are skipped; the first: "
            f"{list(ignored[:10])}"
        )
        return kept
