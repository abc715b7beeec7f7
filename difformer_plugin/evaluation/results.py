"""Everything that `difformer evaluate` computes, as one dictionary that JSON can represent."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from difformer_plugin.evaluation import comparison, optional_metrics
from difformer_plugin.evaluation.diversity import diversity
from difformer_plugin.evaluation.inputs import System, TestSet
from difformer_plugin.evaluation.metrics import better, metrics, score

Task = tuple[str, Callable[[], None]]  # its label, and the function that does it


@dataclass(frozen=True)
class Settings:
    """What is computed.

    Attributes:
        buckets: see `comparison.length_buckets`.
        bootstrap_samples: resampled test sets for p-values and intervals; 0 for none.
        skip: keys of metrics to leave out.
        lowercase: ignore case in sacreBLEU's metrics.
        bertscore_model: see `optional_metrics.bert_score`.
        comet_model: see `optional_metrics.comet`.
    """

    buckets: int | Sequence[int] = 5
    bootstrap_samples: int = 1000
    skip: Sequence[str] = ()
    lowercase: bool = False
    bertscore_model: str | None = None
    comet_model: str | None = None


def evaluate(
    test_set: TestSet,
    systems: Sequence[System],
    settings: Settings,
    progress: Callable[[list[Task]], Iterable[Task]] = iter,
) -> dict[str, Any]:
    """Score one system, or a system and its baseline, and compare them.

    Args:
        progress: wraps the list of scoring tasks, for a progress bar.
    """
    result = {
        "systems": [system.name for system in systems],
        "sentences": len(test_set.references),
        "language": test_set.language,
        "models": [system.model for system in systems],
        "made": {},
        "notes": list(test_set.notes),
        "metrics": [],
        "missing": [],
        "diversity": [],
    }
    references = test_set.reference_tokens
    optional = {
        "rouge": ("ROUGE", optional_metrics.rouge),
        "bertscore": (
            "BERTScore",
            partial(optional_metrics.bert_score, model=settings.bertscore_model),
        ),
        "comet": ("COMET", partial(optional_metrics.comet, model=settings.comet_model)),
    }

    def add_metric(metric):
        result["metrics"].append(score(metric, test_set, systems, settings.bootstrap_samples))

    def add_optional(label, compute):
        try:
            rows = compute(test_set, systems)
            for row in rows if len(systems) > 1 else ():
                row["better"] = better(row["scores"])
            result["metrics"] += rows
        except optional_metrics.Unavailable as reason:
            result["missing"].append({"label": label, "reason": str(reason)})

    def add_diversity(system):
        result["diversity"].append(diversity(system, references))

    found = metrics(test_set.language, settings.skip, settings.lowercase)
    tasks: list[Task] = [(metric.label, partial(add_metric, metric)) for metric in found]
    tasks += [
        (label, partial(add_optional, label, compute))
        for key, (label, compute) in optional.items()
        if key not in settings.skip
    ]
    tasks += [(f"diversity of {system.name}", partial(add_diversity, system)) for system in systems]
    for _, task in progress(tasks):
        task()
    result["bleu_by_step"] = [comparison.bleu_by_step(system, references) for system in systems]
    result["length_errors"] = [comparison.length_errors(system, references) for system in systems]
    sentence_bleu, differences = comparison.compare_sentences(test_set, systems)
    result["sentence_bleu"] = sentence_bleu
    result["bleu_by_length"] = result["regression"] = None
    if test_set.sources is not None:
        lengths = [len(source.split()) for source in test_set.sources]
        result["bleu_by_length"] = comparison.bleu_by_length(
            lengths, systems, references, settings.buckets
        )
        if differences is not None:
            result["regression"] = comparison.regression(lengths, differences)
    return result
