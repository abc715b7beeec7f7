"""Validation BLEU (--eval-bleu): its options, and what fairseq's own translation task lacks."""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fairseq.data import encoders
from fairseq.logging import metrics
from fairseq.tasks.translation import EVAL_BLEU_ORDER
from sacrebleu.metrics import BLEU

from difformer_plugin.decoding import settings
from difformer_plugin.errors import UserError
from difformer_plugin.reranking.reranker import RERANKERS
from difformer_plugin.reranking.weighted import parse_weights

# Validation during training has no teacher, writes no history, and may read several subsets.
UNAVAILABLE = {"ppl_mbr": False, "history_file": None, "constraints_file": None}


def generator_options(cfg: Any) -> Namespace:
    """The decoding options that --eval-bleu-args sets.

    Args:
        cfg: the task's configuration.
    Raises:
        UserError: the text is not a JSON object, or has an unknown option.
    """
    given = _parse("--eval-bleu-args", cfg.eval_bleu_args, '{"length_beam_size": 3}')
    known = set(settings.OPTIONS) - set(UNAVAILABLE)
    if unknown := sorted(set(given) - known):
        raise UserError(
            f"--eval-bleu-args: no such option as {', '.join(unknown)}; there are "
            f"{', '.join(sorted(known))}"
        )
    for name, value in given.items():
        if value is not None or settings.OPTIONS[name].default is not None:
            settings.check_type(name, value, "--eval-bleu-args: ")
    unavailable = dict(UNAVAILABLE)
    rerank = given.get("rerank", cfg.rerank)
    if rerank and any(RERANKERS[name].needs_teacher for name in parse_weights(rerank)):
        if "rerank" in given:
            raise UserError(
                f"--eval-bleu-args: rerank {rerank} needs a teacher, which validation during "
                "training does not have: leave the teacher out"
            )
        unavailable["rerank"] = None
    return Namespace(**given, **unavailable)


def build_detokenizer(cfg: Any) -> Any:
    """The detokeniser of --eval-bleu-detok, or None.

    Args:
        cfg: the task's configuration.
    Raises:
        UserError: --eval-bleu-detok-args is not a JSON object.
    """
    arguments = _parse("--eval-bleu-detok-args", cfg.eval_bleu_detok_args, '{"target_lang": "de"}')
    return encoders.build_tokenizer(Namespace(tokenizer=cfg.eval_bleu_detok, **arguments))


def log_empty_translations(logging_outputs: Sequence[Mapping[str, Any]]) -> None:
    """Log a BLEU of 0 if all translations of some validation batches were empty.

    fairseq logs nothing for such batches.

    Args:
        logging_outputs: what the processes logged for the batches.
    """
    scored = [log for log in logging_outputs if "_bleu_sys_len" in log]
    if scored and sum(log["_bleu_totals_0"] for log in scored) == 0:
        for name in ("_bleu_counts", "_bleu_totals"):
            metrics.log_scalar(name, np.zeros(EVAL_BLEU_ORDER))
        metrics.log_scalar("_bleu_sys_len", 0)
        metrics.log_scalar("_bleu_ref_len", sum(log["_bleu_ref_len"] for log in scored))
        metrics.log_derived("bleu", _bleu)


def _bleu(meters: Mapping[str, Any]) -> float:
    """BLEU from the n-gram counts that validation has summed, 0 to 100."""
    return BLEU.compute_bleu(
        correct=meters["_bleu_counts"].sum,
        total=meters["_bleu_totals"].sum,
        sys_len=int(meters["_bleu_sys_len"].sum),
        ref_len=int(meters["_bleu_ref_len"].sum),
        smooth_method="exp",
    ).score


def _parse(option: str, text: str, example: str) -> dict[str, Any]:
    """Parse the JSON object that an option takes."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, or too large a number
        raise UserError(f"{option} must be a JSON object such as '{example}': {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{option} must be a JSON object such as '{example}', not {text!r:.80}")
    return value
