"""--best-checkpoint-metric, which fairseq looks up only after the first epoch."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from difformer_plugin.errors import UserError
from difformer_plugin.families.criterion import DiffusionCriterion

logger = logging.getLogger(__name__)
BLEU = "bleu"
OF_FAIRSEQ = ("loss", "wps", "wpb", "bsz", "num_updates")  # what fairseq adds to every validation


def check(cfg: Any, objective: type[DiffusionCriterion]) -> None:
    """Check the metric by which checkpoints are chosen, before training begins.

    Args:
        cfg: the task's configuration.
        objective: the criterion.
    Raises:
        UserError: validation does not measure it.
    """
    name = cfg.best_checkpoint_metric
    if cfg.disable_validation:
        return
    if name == BLEU:
        if not cfg.eval_bleu:
            raise UserError(
                "--best-checkpoint-metric bleu needs --eval-bleu, which measures it: give both, or "
                "omit the metric to choose by the loss"
            )
        if not cfg.maximize_best_checkpoint_metric:
            logger.warning(
                "--best-checkpoint-metric bleu without --maximize-best-checkpoint-metric keeps the "
                "checkpoint with the lowest BLEU: give both"
            )
        return
    terms = (*objective.token_terms, *objective.sentence_terms, *objective.measures)
    known = [term for term in (*OF_FAIRSEQ, *terms) if not term.startswith("_")]
    if name not in known:
        raise _not_measured(name, [*known, "bleu (with --eval-bleu)"])


def check_measured(cfg: Any, measured: Mapping[str, Any]) -> None:
    """Check that a validation has measured the metric.

    Args:
        cfg: the task's configuration; measured: what fairseq prints of a validation.
    Raises:
        UserError: it has not.
    """
    if measured and cfg.best_checkpoint_metric not in measured:
        raise _not_measured(cfg.best_checkpoint_metric, measured)


def _not_measured(name: str, known: Iterable[str]) -> UserError:
    return UserError(
        f"--best-checkpoint-metric {name}: validation does not measure it; choose one of "
        f"{', '.join(known)}"
    )
