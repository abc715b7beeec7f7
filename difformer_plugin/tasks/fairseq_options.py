"""Which options of fairseq's commands work with our task, are refused, and have no effect.

This table is the only place that says so: commands refuse and warn by it (all but
fairseq-preprocess, which knows no task), docs/fairseq-options.md is written from it, and a test
compares it with fairseq's parsers, to which the task has added its own options.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from difformer_plugin.decoding.settings import OPTIONS as DECODING_OPTIONS

ALL = ("train", "validate", "generate", "interactive")  # with `preprocess`, fairseq's commands
COMMANDS = ("preprocess", *ALL)
DECODERS = ("generate", "interactive")


class Verdict(Enum):
    """What becomes of an option."""

    WORKS = "works as in fairseq"
    NO_EFFECT = "without effect"
    REFUSED = "refused"


@dataclass(frozen=True)
class Rule:
    """A verdict on some options.

    Attributes:
        options: names as in fairseq's configuration, such as max_tokens.
        commands: of COMMANDS.
        reason: what to use instead or why; for WORKS empty.
    """

    verdict: Verdict
    options: tuple[str, ...]
    commands: tuple[str, ...]
    reason: str = ""


def works(commands: str | Iterable[str], options: str) -> Rule:
    """Options that work as in fairseq."""
    return Rule(Verdict.WORKS, tuple(options.split()), _split(commands))


def no_effect(commands: str | Iterable[str], options: str, reason: str) -> Rule:
    """Options that may be given, with a warning, and change nothing."""
    return Rule(Verdict.NO_EFFECT, tuple(options.split()), _split(commands), reason)


def refused(commands: str | Iterable[str], options: str, reason: str) -> Rule:
    """Options that end the command before it reads data, unless they are at their defaults."""
    return Rule(Verdict.REFUSED, tuple(options.split()), _split(commands), reason)


def _split(commands: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(commands.split()) if isinstance(commands, str) else tuple(commands)


# Options that several commands have, and that only some of them read.
TRAINING_ONLY = """
    log_file aim_repo aim_run_hash tensorboard_logdir wandb_project azureml_logging
    fp16_no_flatten_grads fp16_init_scale fp16_scale_window fp16_scale_tolerance min_loss_scale
    threshold_loss_scale on_cpu_convert_precision amp amp_batch_retries amp_init_scale
    amp_scale_window empty_cache_freq profile criterion optimizer lr_scheduler
"""
DATA_OF_TRAINING = """
    train_subset combine_valid_subsets ignore_unused_valid_subsets validate_interval
    validate_interval_updates validate_after_updates disable_validation max_tokens_valid
    batch_size_valid max_valid_steps curriculum grouped_shuffling update_epoch_batch_itr
    update_ordered_indices_seed
"""
PROCESSES = """
    distributed_num_procs distributed_backend distributed_port device_id distributed_no_spawn
"""
GRADIENTS_OF_PROCESSES = """
    ddp_backend ddp_comm_hook bucket_cap_mb fix_batches_to_gpus find_unused_parameters
    gradient_as_bucket_view heartbeat_timeout broadcast_buffers
"""
SAVING = """
    save_dir restore_file continue_once finetune_from_model reset_dataloader reset_lr_scheduler
    reset_meters reset_optimizer optimizer_overrides save_interval save_interval_updates
    keep_interval_updates keep_interval_updates_pattern keep_last_epochs keep_best_checkpoints
    no_save no_epoch_checkpoints no_last_checkpoints no_save_optimizer_state
    best_checkpoint_metric maximize_best_checkpoint_metric patience
    load_checkpoint_on_all_dp_ranks write_checkpoints_asynchronously
"""
VALIDATION_BLEU = """
    eval_bleu eval_bleu_args eval_bleu_detok eval_bleu_detok_args eval_tokenized_bleu
    eval_bleu_remove_bpe eval_bleu_print_samples
"""
OF_TRAINING = "an option of training"
# Options of the task that need the sentences of one split, and so not those of validation.
OF_ONE_SPLIT = "constraints_file history_file"
OF_ANY_SPLIT = f"""
    {" ".join(DECODING_OPTIONS.keys() - set(OF_ONE_SPLIT.split()))} decoding_settings use_ema
"""
# Options of validation that nobody reads without --eval-bleu. Those of decoding that a training
# is given become the defaults of `from_pretrained`.
OF_EVAL_BLEU = {
    "train": {*VALIDATION_BLEU.split()} - {"eval_bleu"},
    "validate": {*VALIDATION_BLEU.split(), *OF_ANY_SPLIT.split()} - {"eval_bleu", "use_ema"},
}

RULES = (
    # Common
    works(COMMANDS, "user_dir task"),
    works(ALL, "seed cpu"),
    works("train validate generate", "no_progress_bar log_interval log_format"),
    no_effect("interactive", "no_progress_bar log_interval log_format", "no progress is logged"),
    works(ALL, "fp16 memory_efficient_fp16"),
    works("train", "bf16 memory_efficient_bf16"),
    no_effect(
        "validate generate interactive",
        "bf16 memory_efficient_bf16",
        "fairseq trains in bfloat16, but does not decode in it: use `--decoding-precision bf16`",
    ),
    works("train", TRAINING_ONLY),
    no_effect("validate generate interactive", TRAINING_ONLY, OF_TRAINING),
    works("train validate", "all_gather_list_size"),
    no_effect(DECODERS, "all_gather_list_size", OF_TRAINING),
    no_effect(ALL, "reset_logging suppress_crashes", "options of `fairseq-hydra-train`"),
    refused(ALL, "tpu", "it was not tried on TPUs: use a GPU, or `--cpu`"),
    refused(
        ALL, "model_parallel_size", "models are not split over GPUs: each GPU holds a whole one"
    ),
    refused(
        "train",
        "quantization_config_path",
        "fairseq quantises its own Transformers only: decode with `--decoding-precision bf16`",
    ),
    no_effect("validate generate interactive", "quantization_config_path", OF_TRAINING),
    refused("train", "use_plasma_view", "fairseq's language models read it only: leave it out"),
    no_effect("validate generate interactive", "use_plasma_view", OF_TRAINING),
    no_effect(ALL, "plasma_path", "an option of `--use-plasma-view`"),
    works("train generate interactive", "tokenizer bpe"),
    no_effect(
        "validate", "tokenizer bpe", "`--eval-bleu-detok` and `--eval-bleu-remove-bpe` do it"
    ),
    works("generate", "scoring"),
    no_effect("train validate interactive", "scoring", "`--eval-bleu` scores in validation"),
    no_effect(
        "preprocess",
        f"""
        {TRAINING_ONLY} no_progress_bar log_interval log_format seed cpu tpu bf16
        memory_efficient_bf16 fp16 memory_efficient_fp16 all_gather_list_size reset_logging
        suppress_crashes model_parallel_size quantization_config_path use_plasma_view plasma_path
        tokenizer bpe scoring
        """,
        "fairseq gives its common options to each command; this one binarises tokenised text",
    ),
    # Preprocessing
    works(
        "preprocess",
        """
        source_lang target_lang trainpref validpref testpref destdir thresholdtgt thresholdsrc
        tgtdict srcdict nwordstgt nwordssrc dataset_impl joined_dictionary only_source
        padding_factor workers dict_only
        """,
    ),
    no_effect("preprocess", "align_suffix alignfile", "alignments are written, but not read"),
    # Data
    works(ALL, "data source_lang target_lang max_source_positions max_target_positions"),
    works(ALL, "max_tokens batch_size skip_invalid_size_inputs_valid_test"),
    works("train validate generate", "num_workers data_buffer_size dataset_impl"),
    works("train validate generate", "required_seq_len_multiple left_pad_source truncate_source"),
    no_effect(
        "interactive",
        """
        num_workers data_buffer_size dataset_impl required_seq_len_multiple left_pad_source
        truncate_source
        """,
        "sentences are typed or read from `--input`",
    ),
    refused(
        "train validate",
        "left_pad_target",
        "noise belongs to positions counted from the left, and would depend on the batch",
    ),
    no_effect(DECODERS, "left_pad_target", "targets are generated"),
    no_effect(ALL, "required_batch_size_multiple", "batches are not rounded; no sentence is lost"),
    works("train", DATA_OF_TRAINING),
    no_effect("validate generate interactive", DATA_OF_TRAINING, OF_TRAINING),
    works("train validate", "valid_subset"),
    no_effect(DECODERS, "valid_subset", "`--gen-subset` names the split"),
    no_effect(
        ALL, "fixed_validation_seed", "the noise of validation is the same in each epoch anyway"
    ),
    works("generate", "gen_subset"),
    no_effect("train validate interactive", "gen_subset", "an option of `fairseq-generate`"),
    works("generate", "num_shards shard_id"),
    refused(
        "train validate",
        "num_shards shard_id",
        "training is divided by torchrun, and validation is not: leave it out",
    ),
    refused(
        "interactive",
        "num_shards shard_id",
        "it divides a split of a data-bin: use `fairseq-generate`, or split the input file",
    ),
    refused(ALL, "load_alignments", "no loss reads alignments: leave it out"),
    works("train", "upsample_primary num_batch_buckets"),
    no_effect("validate generate interactive", "upsample_primary num_batch_buckets", OF_TRAINING),
    works("train validate", VALIDATION_BLEU),
    no_effect(DECODERS, VALIDATION_BLEU, "an option of validation"),
    # Several processes
    works("train validate", "distributed_world_size distributed_rank distributed_init_method"),
    refused(
        DECODERS,
        "distributed_world_size distributed_rank distributed_init_method",
        "decoding is divided by `--num-shards` and `--shard-id` of `fairseq-generate`",
    ),
    works("train validate", PROCESSES),
    no_effect(DECODERS, PROCESSES, "an option of training"),
    works("train", GRADIENTS_OF_PROCESSES),
    no_effect("validate generate interactive", GRADIENTS_OF_PROCESSES, OF_TRAINING),
    no_effect(ALL, "fast_stat_sync", "fairseq does not read it any more"),
    no_effect(
        ALL,
        "slowmo_momentum slowmo_base_algorithm localsgd_frequency nprocs_per_node",
        "options of `--ddp-backend slowmo`, which is refused",
    ),
    no_effect(
        ALL,
        """
        no_reshard_after_forward fp32_reduce_scatter use_sharded_state not_fsdp_flatten_parameters
        """,
        "options of `--ddp-backend fully_sharded`, which is refused",
    ),
    refused(
        ALL,
        "zero_sharding cpu_offload",
        "it needs fairscale, with which the models were not tried: leave it out",
    ),
    refused(ALL, "pipeline_model_parallel", "models are not split over GPUs: leave it out"),
    no_effect(
        ALL,
        """
        pipeline_balance pipeline_devices pipeline_chunks pipeline_encoder_balance
        pipeline_encoder_devices pipeline_decoder_balance pipeline_decoder_devices
        pipeline_checkpoint
        """,
        "options of `--pipeline-model-parallel`, which is refused",
    ),
    # Training
    works(
        "train",
        """
        arch max_epoch max_update stop_time_hours clip_norm update_freq lr stop_min_lr
        skip_remainder_batch debug_param_names
        store_ema ema_decay ema_start_update ema_update_freq ema_fp32
        """,
    ),
    refused("train", "ema_seed_model", "the average begins with the weights of the training"),
    no_effect("train", "sentence_avg", "losses are means over tokens, and lengths over sentences"),
    refused("train", "use_bmuf", "train with torchrun and the default `--ddp-backend`"),
    # Checkpoints
    works("train", SAVING),
    no_effect(DECODERS, SAVING, OF_TRAINING),
    refused("train", "checkpoint_suffix", "keep runs apart by `--save-dir`"),
    refused(DECODERS, "checkpoint_suffix", "name the file by `--path`"),
    no_effect("train", "checkpoint_shard_count", "checkpoints are written in one piece"),
    refused(DECODERS, "checkpoint_shard_count", "checkpoints are written in one piece"),
    # Decoding
    works("validate generate interactive", "path model_overrides"),
    works(DECODERS, "post_process nbest"),
    works("generate", "quiet results_path print_step retain_iter_history"),
    no_effect(
        "interactive", "quiet results_path print_step retain_iter_history", "use `fairseq-generate`"
    ),
    no_effect("validate", "post_process", "`--eval-bleu-remove-bpe` joins subwords"),
    no_effect("validate", "quiet results_path", "nothing is translated"),
    works("interactive", "buffer_size input"),
    no_effect(
        DECODERS,
        "beam",
        "there is no beam search: use `--length-beam-size` and `--noise-beam-size`",
    ),
    no_effect(
        DECODERS,
        """
        beam_mt max_len_a max_len_b max_len_a_mt max_len_b_mt min_len unnormalized no_early_stop
        no_beamable_mm lenpen lenpen_mt unkpen temperature lm_weight sampling_topk sampling_topp
        diverse_beam_strength retain_dropout_modules
        """,
        "an option of beam search; lengths are predicted, and `--decoding-temperature` is ours",
    ),
    no_effect(
        DECODERS,
        """
        iter_decode_eos_penalty iter_decode_max_iter iter_decode_force_max_iter
        iter_decode_with_beam
        """,
        "use `--decoding-steps` and `--length-beam-size`",
    ),
    no_effect(DECODERS, "sacrebleu", "fairseq reads `--scoring sacrebleu` instead"),
    no_effect(DECODERS, "no_seed_provided", "the noise depends on `--seed` alone"),
    refused(
        DECODERS,
        "replace_unk print_alignment",
        "diffusion decoding has no word alignments: leave it out, and use subwords",
    ),
    refused(
        DECODERS,
        "lm_path",
        "no language model takes part in decoding: choose among candidates with `--rerank`",
    ),
    refused(DECODERS, "score_reference", "use `difformer tune` or `--rerank` for scores"),
    works("generate", "prefix_size"),
    refused("interactive", "prefix_size", "there are no references: use `--constraints-file`"),
    works("interactive", "constraints"),
    refused(
        "generate",
        "constraints",
        "it reads phrases from lines that are typed: use `--constraints-file`",
    ),
    refused(
        DECODERS,
        "sampling diverse_beam_groups diversity_rate",
        "the candidates of a sentence differ by their noise: use `--noise-beam-size`",
    ),
    refused(DECODERS, "match_source_len", "use `--force-length-ratio 1`"),
    refused(DECODERS, "no_repeat_ngram_size", "all tokens are predicted at once: leave it out"),
    refused(
        DECODERS,
        "iter_decode_with_external_reranker",
        "use `--rerank teacher=1` and `--path difformer.pt:teacher.pt`",
    ),
    refused(DECODERS, "retain_dropout", "noise makes candidates differ: use `--noise-beam-size`"),
    refused(DECODERS, "decoding_format eos_token", "an option of other models: leave it out"),
    # The task's own
    works(ALL, OF_ANY_SPLIT),
    works(DECODERS, OF_ONE_SPLIT),
    refused(
        "train validate",
        OF_ONE_SPLIT,
        "it belongs to the sentences of one split: give it to `fairseq-generate`",
    ),
)


def rules_of(command: str) -> Iterator[tuple[str, Rule]]:
    """Each option that the table has for a command, with its rule."""
    return ((name, rule) for rule in RULES if command in rule.commands for name in rule.options)
