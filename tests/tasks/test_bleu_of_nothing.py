"""Validation logs a BLEU also where translations are empty, and the right one after them."""

import pytest
import sacrebleu
from fairseq.logging import metrics

from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig


def batch(hypotheses, references):
    """What one validated batch logs."""
    bleu = sacrebleu.corpus_bleu(hypotheses, [references])
    log = {"sample_size": 4, "nsentences": len(references), "length": 0.5}
    log |= {"mse": 1.0, "anchor": 2.0, "anchor_nll": 1.5}
    log |= {"_bleu_sys_len": bleu.sys_len, "_bleu_ref_len": bleu.ref_len}
    log |= {f"_bleu_counts_{i}": bleu.counts[i] for i in range(4)}
    return log | {f"_bleu_totals_{i}": bleu.totals[i] for i in range(4)}


@pytest.mark.parametrize("order", [(0,), (0, 1), (1, 0)], ids=str)
def test_bleu_is_logged_and_counts_every_batch(task, order):
    from difformer_plugin.tasks.diffusion_translation import (
        DiffusionTranslationConfig,
        DiffusionTranslationTask,
    )

    cfg = DiffusionTranslationConfig(eval_bleu=True)
    of_task = DiffusionTranslationTask(cfg, task.source_dictionary, task.target_dictionary)
    criterion = DifformerLoss(DifformerLossConfig(), of_task)
    texts = [([""], ["one two three four five"]), (["a b c d e f"], ["a b c d e g"])]
    with metrics.aggregate() as meters:
        for i in order:
            of_task.reduce_metrics([batch(*texts[i])], criterion)
    hypotheses, references = (sum(side, []) for side in zip(*(texts[i] for i in order)))
    expected = sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert meters.get_smoothed_values()["bleu"] == pytest.approx(expected, abs=0.006)
