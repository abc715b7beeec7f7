"""All that `difformer evaluate` computes, as one dictionary that JSON can hold."""

from functools import partial

from difformer_plugin.evaluation import comparison, optional_metrics
from difformer_plugin.evaluation.diversity import diversity
from difformer_plugin.evaluation.metrics import metrics, score

OPTIONAL = {
    "rouge": ("ROUGE", optional_metrics.rouge, ()),
    "bertscore": ("BERTScore", optional_metrics.bert_score, ("bertscore_model",)),
    "comet": ("COMET", optional_metrics.comet, ("comet_model",)),
}


def evaluate(test_set, systems, settings, progress=iter):
    """Score systems and compare them.

    Args:
        test_set: TestSet.
        systems: one System, or the system and its baseline.
        settings: has `skip` (keys of metrics), `lowercase`, `bootstrap_samples`, `buckets`,
            `bertscore_model` and `comet_model`.
        progress: wraps the list of what is to be scored, (label, function) pairs, and yields them.
    """
    result = {
        "systems": [system.name for system in systems],
        "sentences": len(test_set.references),
        "language": test_set.language,
        "notes": list(test_set.notes),
        "metrics": [],
        "missing": [],
        "diversity": [],
    }
    references = test_set.reference_tokens

    def add_metric(metric):
        result["metrics"].append(score(metric, test_set, systems, settings.bootstrap_samples))

    def add_optional(key):
        label, compute, options = OPTIONAL[key]
        try:
            models = [getattr(settings, option) for option in options]
            result["metrics"] += compute(test_set, systems, *models)
        except optional_metrics.NotThere as reason:
            result["missing"].append({"label": label, "reason": str(reason)})

    def add_diversity(system):
        result["diversity"].append(diversity(system, references))

    found = metrics(test_set.language, settings.skip, settings.lowercase)
    tasks = [(metric.label, partial(add_metric, metric)) for metric in found]
    tasks += [
        (label, partial(add_optional, key))
        for key, (label, *_) in OPTIONAL.items()
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
