"""ROUGE, BERTScore and COMET, where their packages and models are there; nothing is downloaded."""

import importlib.metadata
import importlib.util
import os
from pathlib import Path

COMET_MODEL = "Unbabel/wmt22-comet-da"


class NotThere(Exception):
    """A metric that cannot be computed here; the text says why and what to do."""


def _require(module, package):
    if importlib.util.find_spec(module) is None:
        raise NotThere(f"not computed: pip install {package}")
    return importlib.metadata.version(package)


def rouge(test_set, systems):
    """ROUGE-1, ROUGE-2 and ROUGE-L (Lin, 2004): mean F1 over sentences, 0 to 100.

    The package's own tokens are made of a-z and 0-9. For other languages than English they
    would break words at letters such as ä, and lower-cased Moses tokens are taken instead.
    """
    version = _require("rouge_score", "rouge-score")
    from rouge_score.rouge_scorer import RougeScorer

    english = test_set.language == "en"
    kinds = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
    scorer = RougeScorer(list(kinds), tokenizer=None if english else _LowerCasedWords())
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


class _LowerCasedWords:
    """What rouge_score wants of a tokeniser, for text that is in tokens."""

    def tokenize(self, text):
        return text.lower().split()


def bert_score(test_set, systems, model=None):
    """BERTScore (Zhang et al., 2020): mean F1 over sentences, 0 to 100.

    Args:
        model: name or folder of a model in the local cache; None: the package's for the language.
    """
    version = _require("bert_score", "bert-score")
    _stay_offline()
    try:
        import bert_score as package

        model = model or package.utils.lang2model[test_set.language or "en"]
        layers = package.utils.model2layers.get(model)
        if layers is None:  # a model that the package has no best layer for: take its last
            from transformers import AutoConfig

            layers = AutoConfig.from_pretrained(model).num_hidden_layers
        scorer = package.BERTScorer(model_type=model, num_layers=layers)
    except Exception as error:
        raise NotThere(_unusable(model, "--bertscore-model", error)) from error
    scores = [scorer.score(system.texts, test_set.references)[2] for system in systems]
    signature = f"bert-score {version}|F1|model:{model}|layer:{layers}|idf:no|rescaled:no"
    scores = [100 * float(f1.mean()) for f1 in scores]
    return [{"key": "bertscore", "label": "BERTScore", "scores": scores, "signature": signature}]


def comet(test_set, systems, model=None):
    """COMET (Rei et al., 2020): the mean over sentences, times 100.

    Args:
        model: name of a model in the local cache, or its checkpoint; None: COMET_MODEL.
    """
    version = _require("comet", "unbabel-comet")
    if test_set.sources is None or not test_set.raw_sources:
        raise NotThere("not computed: it reads the raw sources: give them with --src")
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
        raise NotThere(_unusable(model, "--comet-model", error)) from error
    scores = []
    for system in systems:
        triples = zip(test_set.sources, system.texts, test_set.references)
        data = [{"src": src, "mt": mt, "ref": ref} for src, mt, ref in triples]
        result = scorer.predict(data, gpus=int(torch.cuda.is_available()), progress_bar=False)
        scores.append(100 * float(result.system_score))
    signature = f"unbabel-comet {version}|model:{model}"
    return [{"key": "comet", "label": "COMET", "scores": scores, "signature": signature}]


def _stay_offline():
    """Keep these packages from downloading, and from unpickling more than weights."""
    os.environ.update(
        HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"
    )


def _unusable(model, option, error):
    """What to tell of a model that is not there, or that its package cannot load."""
    reason = str(error).partition("\n")[0][:120] or type(error).__name__
    return (
        f"not computed: {model or 'the package'} could not be loaded ({reason}); nothing is "
        f"downloaded here: fetch a model with `hf download NAME`, or name another with {option}"
    )
