"""The options of reranking, and the reranker that they choose."""

from dataclasses import dataclass
from typing import Any, Optional

from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass

from difformer_plugin.data.word_marks import check_mark
from difformer_plugin.errors import UserError
from difformer_plugin.options import option
from difformer_plugin.reranking.mbr import MinimumBayesRisk
from difformer_plugin.reranking.own import OwnProbability
from difformer_plugin.reranking.reranker import RERANKERS, Reranker
from difformer_plugin.reranking.teacher import TeacherProbability
from difformer_plugin.reranking.weighted import WeightedRerankers, parse_weights

RERANKER_OPTIONS = ("bleu_mbr", "ppl_mbr", "rerank")  # each chooses a reranker


@dataclass
class RerankingOptions(FairseqDataclass):
    bleu_mbr: bool = option(
        False, "choose the candidate with the highest mean sentence BLEU against the others"
    )
    ppl_mbr: bool = option(
        False,
        "choose the candidate that a teacher finds likeliest (--path difformer.pt:teacher.pt)",
    )
    rerank: Optional[str] = option(
        None,
        "choose the candidate with the highest weighted sum of scores, as "
        f"mbr=1,teacher=0.5,length=0.1; there are {', '.join(sorted(RERANKERS))}",
    )
    mbr_remove_bpe: Optional[str] = option(
        None,
        "how --bleu-mbr joins subwords to words, as fairseq's --post-process; default: as the "
        "dictionary's marks tell",
    )


def check_reranking(options: Any) -> None:
    """Raise a UserError for options that contradict each other."""
    if options.mbr_remove_bpe is not None:
        check_mark(options.mbr_remove_bpe, "--mbr-remove-bpe")
    if options.bleu_mbr and options.ppl_mbr:
        raise UserError("--bleu-mbr and --ppl-mbr exclude each other: choose one")
    if options.rerank is not None:
        if options.bleu_mbr or options.ppl_mbr:
            raise UserError("--rerank chooses instead of --bleu-mbr and --ppl-mbr: give it alone")
        parse_weights(options.rerank)


def uses_mbr(options: Any) -> bool:
    """Whether candidates are compared with each other by BLEU; options that were checked."""
    return options.bleu_mbr or bool(options.rerank and "mbr" in parse_weights(options.rerank))


def build_reranker(options: Any, dictionary: Dictionary) -> Reranker:
    """The reranker that options choose; without any, the model's own probability.

    Args:
        dictionary: of the target.
    """
    if options.rerank is not None:
        return WeightedRerankers(options, dictionary)
    if options.bleu_mbr:
        return MinimumBayesRisk(options, dictionary)
    if options.ppl_mbr:
        return TeacherProbability(options, dictionary)
    return OwnProbability(options, dictionary)
