"""The fairseq task: translation by a diffusion model."""

import os
from dataclasses import dataclass
from typing import Any, Optional

import torch
from fairseq import utils
from fairseq.data import Dictionary, LanguagePairDataset, ListDataset, PrependTokenDataset
from fairseq.tasks import FairseqTask, register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II

from difformer_plugin import fairseq_patches
from difformer_plugin.checkpoints.fingerprint import check_table_sizes
from difformer_plugin.data.data_bin import check_folders
from difformer_plugin.decoding import settings
from difformer_plugin.decoding.checks import warn_of_unread_options
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.errors import UserError
from difformer_plugin.families import registered  # noqa: F401  (with --user-dir, this registers)
from difformer_plugin.families.contract import DiffusionTask, Family, is_diffusion_model
from difformer_plugin.options import flag, option
from difformer_plugin.tasks import best_metric, eval_bleu, loading, warm_start
from difformer_plugin.tasks.given_words import GivenWords
from difformer_plugin.tasks.pipeline_copy import keep_pipeline
from difformer_plugin.tasks.source_check import SourceCheck, log_source_gain

fairseq_patches.install()

SOURCE_CHECK = "source_check"  # in a checkpoint


@dataclass
class DiffusionTranslationConfig(DecodingOptions, TranslationConfig):
    """The options of the task: those of decoding and those of fairseq's `translation`."""

    decoding_settings: Optional[str] = option(
        None,
        "TOML file of decoding options, as written by difformer tune; it applies to options that "
        "are left at their defaults",
    )
    use_ema: bool = option(
        False,
        "use the exponential moving average of the weights that --store-ema keeps: in decoding, "
        "and in training for validation",
    )
    seed: int = II("common.seed")
    save_dir: str = II("checkpoint.save_dir")
    no_save: bool = II("checkpoint.no_save")
    restore_file: str = II("checkpoint.restore_file")
    continue_once: Optional[str] = II("checkpoint.continue_once")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")
    maximize_best_checkpoint_metric: bool = II("checkpoint.maximize_best_checkpoint_metric")
    disable_validation: bool = II("dataset.disable_validation")
    store_ema: bool = II("ema.store_ema")


@register_task("diffusion_translation", dataclass=DiffusionTranslationConfig)
class DiffusionTranslationTask(DiffusionTask, TranslationTask):
    """Translation by a diffusion model.

    It differs from fairseq's `translation` as follows: sources and targets begin with BOS, decoding
    has a generator of its own, and sentences are never skipped silently.

    Attributes:
        criterion: the name of the criterion that trains the model.
        model_cfg: the configuration of the model.
        model_objective: the class of its criterion.
        sequence_generator: decodes for --eval-bleu; None until it is needed.
        uses_ema: whether to validate and decode with averaged weights.
        from_checkpoint: whether its configuration is a checkpoint's.
        max_tokens: of the batches that are being made; None: any number.
        source_check: warns of a model that does not read its source.
        encoder_freeze: keeps the encoder of a new model as it is for the first updates; None
            unless --freeze-encoder-updates says so.
        given_words: the words that translations of the last generator have to contain.
    """

    cfg: DiffusionTranslationConfig

    def __init__(self, cfg: DiffusionTranslationConfig, src_dict: Dictionary, tgt_dict: Dictionary):
        super().__init__(cfg, src_dict, tgt_dict)
        self.criterion: str | None = None
        self.model_cfg: Any = None
        self.model_objective: type | None = None
        self.sequence_generator: DiffusionGenerator | None = None
        self.uses_ema: bool = cfg.use_ema  # the trainer then passes `ema_model` to the steps
        self.max_tokens: int | None = None
        self.from_checkpoint = False
        self.source_check = SourceCheck()
        self.encoder_freeze: warm_start.EncoderFreeze | None = None
        self.given_words = GivenWords(tgt_dict)

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> "DiffusionTranslationTask":
        """Load the dictionaries of the first data folder, after checks of all folders.

        Raises:
            UserError: a folder is not a usable data-bin or has other dictionaries, or torchrun
                started several processes that are not connected.
        """
        unconnected = not torch.distributed.is_initialized() and not kwargs.get("from_checkpoint")
        if unconnected and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                "torchrun started several processes, but they are not connected and would all do "
                "the same work: on a CPU, start only fairseq-train with torchrun"
            )
        folders = utils.split_paths(cfg.data) if cfg.data else []
        pair = check_folders(folders, cfg.source_lang, cfg.target_lang)
        cfg.source_lang, cfg.target_lang = pair
        task = super().setup_task(cfg, **kwargs)
        task.from_checkpoint = kwargs.get("from_checkpoint", False)
        return task

    # Data

    def load_dataset(
        self, split: str, epoch: int = 1, combine: bool = False, **unused: Any
    ) -> None:
        """Load a split into `datasets`; see `loading.load_split`."""
        dictionaries = self.src_dict, self.tgt_dict
        self.datasets[split] = loading.load_split(self.cfg, split, epoch, dictionaries, combine)

    def build_dataset_for_inference(
        self, src_tokens: Any, src_lengths: Any, constraints: Any = None
    ) -> LanguagePairDataset:
        """Make a data set of sources with BOS, for fairseq-interactive and `translate`."""
        if constraints is None:
            constraints = self.given_words.next_numbers(len(src_tokens))
        source = PrependTokenDataset(ListDataset(src_tokens, src_lengths), self.src_dict.bos())
        return LanguagePairDataset(
            source,
            source.sizes,
            self.src_dict,
            tgt_dict=self.tgt_dict,
            constraints=constraints,
        )

    def target_counts(self) -> torch.Tensor:
        """How often each type occurs in the training targets, float64 (V,)."""
        return loading.count_types(self.cfg, self.tgt_dict)

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """fairseq's iterator, without rounding batch sizes to multiples of 8.

        The rounding can drop the last sentences.

        Raises:
            UserError: --num-batch-buckets is given without --max-tokens, or a shard of
                fairseq-generate is empty.
        """
        kwargs["required_batch_size_multiple"] = 1
        self.max_tokens = kwargs.get("max_tokens")
        if dataset.get_batch_shapes() is not None and self.max_tokens is None:
            raise UserError("--num-batch-buckets needs --max-tokens: give it, or omit both")
        iterator = super().get_batch_iterator(dataset, *args, **kwargs)
        loading.check_shard(iterator, kwargs.get("num_shards", 1), kwargs.get("shard_id", 0))
        return iterator

    def filter_indices_by_size(
        self,
        indices: Any,
        dataset: Any,
        max_positions: Any = None,
        ignore_invalid_inputs: bool = False,
    ) -> Any:
        """Refuse or skip sentences that are too long; see `loading.filter_by_size`."""
        return loading.filter_by_size(
            indices, dataset, max_positions, ignore_invalid_inputs, self.max_tokens
        )

    # Model and criterion

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build a diffusion model or, from a checkpoint, a teacher with the same dictionaries.

        Raises:
            UserError: the model is not one of these, or its options are wrong.
        """
        model = FairseqTask.build_model(self, cfg, from_checkpoint)
        model.register_load_state_dict_pre_hook(
            lambda module, state, *unused: check_table_sizes(
                state, len(self.src_dict), len(self.tgt_dict)
            )
        )
        if is_diffusion_model(model):
            self._set_model(model, from_checkpoint)
        return model

    def _set_model(self, model: Family, from_checkpoint: bool) -> None:
        """Remember the model's criterion, and prepare a new model for training."""
        self.criterion, self.model_cfg = model.criterion, model.cfg
        self.model_objective = model.objective
        if not from_checkpoint:
            best_metric.check(self.cfg, model.objective)
            if self.uses_ema and not self.cfg.store_ema:
                raise UserError(
                    "--use-ema has no effect in training without --store-ema: give both"
                )
            model.initialised = warm_start.begin(model, self)
            if updates := model.frozen_updates:
                self.encoder_freeze = warm_start.EncoderFreeze(model, updates)
            model.prepare_training(self)
            if self.cfg.eval_bleu:
                self._prepare_eval_bleu(model)

    def build_criterion(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build the criterion.

        Raises:
            UserError: it is not the criterion of the model.
        """
        if cfg._name != self.criterion:
            raise UserError(
                f"--criterion {cfg._name} does not fit this model: use --criterion {self.criterion}"
            )
        return super().build_criterion(cfg, from_checkpoint)

    # Training

    def get_checkpoint_dict(self) -> dict[str, Any]:
        """What checkpoints hold of this task, under the name that fairseq looks up."""
        return {type(self).__name__: {SOURCE_CHECK: self.source_check.state()}}

    def set_checkpoint_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; with --reset-dataloader fairseq does not call it."""
        self.source_check.resume(state[SOURCE_CHECK])

    def begin_epoch(self, epoch: int, model: Any) -> None:
        """Called before each epoch."""
        super().begin_epoch(epoch, model)
        model.begin_training()
        keep_pipeline(self.cfg)

    def train_step(
        self,
        sample: Any,
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        *rest: Any,
        ema_model: Any = None,
        **more: Any,
    ) -> Any:
        """fairseq's forward and backward pass; a frozen encoder gets no gradients."""
        self.source_check.update(update_num, optimizer.get_lr())
        result = super().train_step(sample, model, criterion, optimizer, update_num, *rest, **more)
        if self.encoder_freeze is not None:
            self.encoder_freeze.drop_gradients(update_num)
        return result

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """fairseq's optimizer step; a frozen encoder stays as it is."""
        if self.encoder_freeze is None:
            return super().optimizer_step(optimizer, model, update_num)
        with self.encoder_freeze.held(optimizer, update_num):
            return super().optimizer_step(optimizer, model, update_num)

    # Validation

    def begin_valid_epoch(self, epoch: int, model: Any) -> None:
        """Called before each validation."""
        super().begin_valid_epoch(epoch, model)
        self.source_check.begin_validation()

    def valid_step(
        self, sample: Any, model: Any, criterion: Any, ema_model: Any = None
    ) -> tuple[Any, Any, Any]:
        """fairseq's validation step, of the averaged model if there is one.

        For a model from a checkpoint, --eval-bleu is prepared here and not in `build_model`, since
        most commands that load a checkpoint do not validate.
        """
        validated = model if ema_model is None else ema_model
        if self.cfg.eval_bleu and self.sequence_generator is None:
            self._prepare_eval_bleu(validated)
        loss, size, logged = super().valid_step(sample, validated, criterion)
        logged |= self.source_check.measure(sample, model, criterion)
        return loss, size, logged

    def post_validate(self, model: Any, stats: Any, meters: Any) -> None:
        """Called after each validation of a training.

        Raises:
            UserError: --best-checkpoint-metric was not measured.
        """
        best_metric.check_measured(self.cfg, stats)
        self.source_check.end_validation(meters)

    def _prepare_eval_bleu(self, model: Any) -> None:
        """Build the detokeniser and the generator of --eval-bleu, which fairseq's task reads."""
        self.tokenizer = eval_bleu.build_detokenizer(self.cfg)
        options = eval_bleu.generator_options(self.cfg)
        self.sequence_generator = self.build_generator([model], options)

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Log what fairseq logs, what the source gives, and a BLEU of 0 if all are empty."""
        super().reduce_metrics(logging_outputs, criterion)
        log_source_gain(logging_outputs)
        eval_bleu.log_empty_translations(logging_outputs)

    # Decoding

    def build_generator(self, models: Any, args: Any, **unused: Any) -> DiffusionGenerator:
        """Build the generator from this task's decoding options.

        The file of --decoding-settings is read here and nowhere else, since a checkpoint may
        remember a file that does not exist any more.

        Args:
            models: the models of --path.
            args: fairseq's options of generation. It may also have decoding options and a seed,
                which override the task's: those of --eval-bleu-args, and the keyword arguments of
                `from_pretrained(...).translate`.
        Raises:
            UserError: an option is out of range, contradicts another or does not fit the models.
        """
        path = getattr(args, "decoding_settings", self.cfg.decoding_settings)
        options = settings.merge(self.cfg, args, path)
        for name in ("print_alignment", "score_reference"):
            if getattr(args, name, None):
                raise UserError(f"{flag(name)} is not available for diffusion models: omit it")
        history = getattr(args, "retain_iter_history", False)
        if not any(map(is_diffusion_model, models)):
            raise UserError(
                f"--task diffusion_translation decodes diffusion models, and --path names a "
                f"{type(models[0]).__name__}: give the --task that it was trained with"
            )
        with settings.mention_settings_file(path):
            seed = getattr(args, "seed", self.cfg.seed)
            generator = DiffusionGenerator(self.tgt_dict, options, seed, history)
            generator.check_models(models)
            generator.check_nbest(getattr(args, "nbest", 1))
            self.given_words = GivenWords(self.tgt_dict, args, generator)
            self.given_words.check_infill(models[0])
            self.given_words.check_splits(models[0], self.datasets)
        if not self.from_checkpoint:  # a checkpoint's options are those of an earlier command
            warn_of_unread_options(options, history)
        return generator

    def inference_step(
        self,
        generator: DiffusionGenerator,
        models: Any,
        sample: dict[str, Any],
        prefix_tokens: torch.Tensor | None = None,
        constraints: Any = None,
    ) -> list[list[dict[str, Any]]]:
        """Translate a batch, with the words that are given.

        Args:
            prefix_tokens: int64 (B, N), the first N tokens of the sample's targets; of a sample
                without targets, how translations begin after BOS.
            constraints: what the collater made of those of `build_dataset_for_inference`.
        """
        if prefix_tokens is not None and sample.get("target") is not None:
            # fairseq-generate counts from the first token, which here is BOS
            prefix_tokens = sample["target"][:, 1 : prefix_tokens.shape[1] + 1]
        sample, own = self.given_words.of_sample(sample, constraints)
        with torch.no_grad():
            return generator.generate(models, sample, prefix_tokens, own)
