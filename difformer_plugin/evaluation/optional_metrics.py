"""ROUGE, BERTScore and COMET, if their packages and models are installed.

Nothing is downloaded: models are looked up in the local cache only.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from difformer_plugin.evaluation.inputs import System, TestSet

COMET_MODEL = "Unbabel/wmt22-comet-da"


class Unavailable(Exception):
    """A metric cannot be computed here; the message says why and what to do."""


def _require(module, package):
    """The version of a package, or Unavailable if it is not installed."""
    if importlib.util.find_spec(module) is None:
        raise Unavailable(f"not computed: pip install {package}")
    return importlib.metadata.version(package)


def rouge(test_set: TestSet, systems: Sequence[System]) -> list[dict]:
    """ROUGE-1, ROUGE-2 and ROUGE-L (Lin, 2004): mean F1 over sentences, 0 to 100.

    The package's own tokeniser keeps only a-z and 0-9, so it would split words at letters such as
    ä. It is used for English alone; other languages are scored on lower-cased Moses tokens.

    Raises:
        Unavailable: the package is not installed.
    """
    version = _require("rouge_score", "rouge-score")
    from rouge_score.rouge_scorer import RougeScorer

    english = test_set.language == "en"
    kinds = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
    scorer = RougeScorer(list(kinds), tokenizer=None if english else _LowerCasedTokens())
    found = {kind: [] for kind in kinds}
    for system in systems:
        pairs = zip(
            test_set.references if english else test_set.reference_tokens,
            system.texts if english else system.tokens,
        )
        scores = [scorer.score(reference, hypothesis) for reference, hypothesis in pairs]
        for kind in kinds:
            found[kind].append(100 * sum(score[kind].fmeasure for score in scores) / len(scores))
    signature = f"rouge-score {version}|F1|tok:{'own' if english else 'moses, lower-cased'}|stem:no"
    return [
        {"key": kind.lower(), "label": label, "scores": found[kind], "signature": signature}
        for kind, label in kinds.items()
    ]


class _LowerCasedTokens:
    """A tokeniser in rouge_score's interface, for text that is tokenised already."""

    def tokenize(self, text):
        return text.lower().split()


def bert_score(
    test_set: TestSet, systems: Sequence[System], model: str | None = None
) -> list[dict]:
    """BERTScore (Zhang et al., 2020): mean F1 over sentences, 0 to 100.

    Args:
        model: name or folder of a model in the local cache; None for the package's default for
            the language.
    Raises:
        Unavailable: the package or the model is not installed.
    """
    version = _require("bert_score", "bert-score")
    _stay_offline()
    try:
        import bert_score as package

        model = model or package.utils.lang2model[test_set.language or "en"]
        layers = package.utils.model2layers.get(model)
        if layers is None:  # the package knows no best layer for this model: use the last one
            from transformers import AutoConfig

            layers = AutoConfig.from_pretrained(model).num_hidden_layers
        scorer = package.BERTScorer(model_type=model, num_layers=layers)
    except Exception as error:
        raise Unavailable(_not_loaded(model, "--bertscore-model", error)) from error
    scores = [scorer.score(system.texts, test_set.references)[2] for system in systems]
    signature = f"bert-score {version}|F1|model:{model}|layer:{layers}|idf:no|rescaled:no"
    scores = [100 * float(f1.mean()) for f1 in scores]
    return [{"key": "bertscore", "label": "BERTScore", "scores": scores, "signature": signature}]


def comet(test_set: TestSet, systems: Sequence[System], model: str | None = None) -> list[dict]:
    """COMET (Rei et al., 2020): the mean over sentences, times 100.

    Args:
        model: name of a model in the local cache, or path of its checkpoint; None for COMET_MODEL.
    Raises:
        Unavailable: the package or the model is not installed, or there are no raw sources.
    """
    version = _require("comet", "unbabel-comet")
    if test_set.sources is None or not test_set.raw_sources:
        raise Unavailable("not computed: it needs the raw sources: give them with --src")
    _stay_offline()
    model = model or COMET_MODEL
    path = Path(model)
    try:
        import comet as package
        import torch
        from huggingface_hub import snapshot_download

        if not path.is_file():
            # the package's own download_model may fall back to another server
            path = Path(snapshot_download(model, local_files_only=True), "checkpoints/model.ckpt")
        scorer = package.load_from_checkpoint(str(path))
    except Exception as error:
        raise Unavailable(_not_loaded(model, "--comet-model", error)) from error
    scores = []
    for system in systems:
        triples = zip(test_set.sources, system.texts, test_set.references)
        data = [{"src": src, "mt": mt, "ref": ref} for src, mt, ref in triples]
        result = scorer.predict(data, gpus=int(torch.cuda.is_available()), progress_bar=False)
        scores.append(100 * float(result.system_score))
    signature = f"unbabel-comet {version}|model:{model}"
    return [{"key": "comet", "label": "COMET", "scores": scores, "signature": signature}]


def _stay_offline():
    """Keep the packages from downloading, and from unpickling anything but weights."""
    os.environ.update(
        HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"
    )


def _not_loaded(model, option, error):
    """The message for a model that is missing or that its package cannot load."""
    reason = str(error).partition("\n")[0][:120] or type(error).__name__
    return (
        f"not computed: {model or 'the package'} could not be loaded ({reason}); nothing is "
        f"downloaded here: fetch a model with `hf download NAME`, or name another with {option}"
    )
