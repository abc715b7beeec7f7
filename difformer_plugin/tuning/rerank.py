"""`difformer tune --fit-rerank`: the weights of rerankers, fitted to a split drawn once."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from fairseq import utils
from sacrebleu.metrics import BLEU
from tqdm import tqdm

from difformer_plugin.data.word_marks import check_mark
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.settings import OPTIONS, write_settings
from difformer_plugin.errors import UserError
from difformer_plugin.reranking.options import RERANKER_OPTIONS
from difformer_plugin.reranking.reranker import RERANKERS
from difformer_plugin.reranking.weighted import parse_weights
from difformer_plugin.storage.files import digest_files
from difformer_plugin.storage.journal import Journal
from difformer_plugin.tuning.drawn import DrawnCandidates, bleu_statistics
from difformer_plugin.tuning.expected_bleu import (
    FOLDS,
    bleu_of_choice,
    chosen,
    corpus_bleu,
    fit_weights,
    select,
)
from difformer_plugin.tuning.report import weights_comments
from difformer_plugin.tuning.space import SamplerChoice, Settings
from difformer_plugin.tuning.trials import bootstrap_losses
from difformer_plugin.tuning.tune import (
    begin_or_resume,
    journal_header,
    load,
    reference_options,
    reference_values,
    values_to_write,
)

FORMAT = "candidates 1"  # of the journal
PRECISION = 3  # significant digits of weights


def tune_rerank(args: Namespace) -> dict[str, Any]:
    """Draw candidates with the reference settings, fit weights, and write the settings file.

    Rerankers that gain nothing in cross-validation are left out.

    Args:
        args: the arguments of `difformer tune`, checked.
    Returns:
        what the JSON file holds: `rerank`, `bleu` of its choice, `alone` (BLEU of each reranker),
        `left_out`, `cross_validated`, `folds`, `gain_interval`, `oracle`, `signature`, and the
        header of the journal.
    Raises:
        UserError: the input cannot be used.
    """
    check_mark(args.post_process)
    names = parse_names(args.fit_rerank)
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    values = reference_values(args)
    models, task, batches = load(args, device)
    options = candidate_options(values, names, models[0].tries_lengths)
    given = {name: getattr(options, name) for name in OPTIONS}
    generator = task.build_generator(models, Namespace(**given | {"decoding_settings": None}))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    paths = utils.split_paths(args.path)
    with (
        Journal(f"{args.out}.candidates") as journal,
        tqdm(
            desc="draw and score",
            total=sum(len(batch["id"]) for batch in batches),
            unit=" sentences",
            disable=None,
        ) as progress,
    ):
        header = candidates_header(args, options, batches, device)
        begin_or_resume(journal, header)
        rerankers = {
            _key(name, paths): RERANKERS[name](options, task.target_dictionary) for name in names
        }
        drawn = DrawnCandidates(generator, models, batches, rerankers, journal, progress.update)
    targets = [target for batch in batches for target in batch["target"]]
    dictionary = task.target_dictionary
    statistics = bleu_statistics(dictionary, drawn.tokens(), targets, args.post_process)
    result = fitted(names, drawn.scores(), statistics) | header
    options = replace(options, rerank=result["rerank"])
    fixed = {name: getattr(options, name) for name in OPTIONS}
    settings = values_to_write(Settings.of(options, SamplerChoice()), fixed)
    write_settings(args.out, settings, weights_comments(args, result))
    return result


def parse_names(text: str) -> list[str]:
    """The names of --fit-rerank.

    Raises:
        UserError: they are not those of at least two rerankers.
    """
    names = list(parse_weights(text, "--fit-rerank"))
    if "=" in text:
        raise UserError(f"--fit-rerank {text}: give names without weights, which are to be found")
    if len(names) < 2:
        raise UserError(f"--fit-rerank {text}: give at least two, as mbr,length")
    return names


def candidate_options(
    values: Mapping[str, Any], names: Sequence[str], tries_lengths: bool
) -> DecodingOptions:
    """The options with which candidates are drawn and later chosen.

    Args:
        values: of `tune.reference_values`; the file's own reranker is replaced.
    Raises:
        UserError: they contradict each other, or leave nothing to choose from.
    """
    kept = {name: value for name, value in values.items() if name not in RERANKER_OPTIONS}
    options = reference_options({**kept, "rerank": ",".join(names)}, tries_lengths)
    if options.length_beam_size * options.noise_beam_size < 2:
        raise UserError(
            "--fit-rerank chooses among candidates: raise --length-beam-size or --noise-beam-size"
        )
    if options.race_after:
        raise UserError(
            "--fit-rerank needs all candidates to the end: leave race_after and race_keep out of "
            "the settings"
        )
    return options


def candidates_header(
    args: Namespace,
    options: DecodingOptions,
    batches: Sequence[dict[str, Any]],
    device: torch.device,
) -> dict[str, Any]:
    """All that candidates depend on. A teacher is no part of it, and neither is their choice."""
    header = journal_header(args, options, batches, device)
    drawing = {
        name: value
        for name, value in header["reference options"].items()
        if name not in RERANKER_OPTIONS
    }
    del header["machine"]
    model = digest_files(utils.split_paths(args.path)[:1])
    return header | {"format": FORMAT, "model": model, "reference options": drawing}


def _key(name: str, paths: Sequence[str]) -> str:
    """The name of a reranker's scores in the journal, which depend on the teacher if it has one."""
    return f"{name} {digest_files(paths[1:])}" if RERANKERS[name].needs_teacher else name


def fitted(names: Sequence[str], scores: np.ndarray, statistics: np.ndarray) -> dict[str, Any]:
    """Fit the weights of those rerankers that gain something in cross-validation.

    Args:
        names: of M rerankers.
        scores: (S, n, M).
        statistics: of BLEU, (S, n, 10).
    Returns:
        see `tune_rerank`; `gain_interval` is the 95 % interval of the paired bootstrap of what the
        cross-validated choice gains over the best reranker alone.
    """
    alone = {
        name: bleu_of_choice(scores, statistics, own)
        for name, own in zip(names, np.eye(len(names)))
    }
    best = int(np.argmax(list(alone.values())))
    selection = select(scores, statistics)
    numbers = sorted(selection.numbers)
    weights = np.zeros(len(names))
    weights[numbers] = 1.0  # of a single one, which needs no fit
    if len(numbers) > 1:
        weights[numbers] = rounded(fit_weights(scores[..., numbers], statistics))
    validated = chosen(statistics, selection.choice)
    base = chosen(statistics, scores[..., best].argmax(1))
    low, high = np.percentile(-bootstrap_losses(base, validated), [2.5, 97.5])
    metric = BLEU(tokenize="none", force=True)
    metric.corpus_score(["a"], [["a"]])  # there is no signature before the first score
    return {
        "rerank": as_option(names, weights),
        "bleu": bleu_of_choice(scores, statistics, weights),
        "alone": alone,
        "left_out": [name for name, weight in zip(names, weights) if not weight],
        "cross_validated": float(corpus_bleu(validated.sum(0))),
        "folds": FOLDS,
        "gain_interval": (float(low), float(high)),
        "oracle": float(corpus_bleu(chosen(statistics, _oracle(statistics)).sum(0))),
        "signature": str(metric.get_signature()),
    }


def _oracle(statistics: np.ndarray) -> np.ndarray:
    """The candidate of each sentence with the highest smoothed sentence BLEU, int (S,)."""
    smoothed = {"smooth_method": "exp", "effective_order": True}
    scores = [
        [BLEU.compute_bleu(own[:4], own[4:8], *own[8:], **smoothed).score for own in candidates]
        for candidates in statistics.tolist()
    ]
    return np.array(scores).argmax(1)


def rounded(weights: np.ndarray) -> np.ndarray:
    """Weights with the digits that the settings file has."""
    return np.array([float(f"{weight:.{PRECISION}g}") for weight in weights])


def as_option(names: Sequence[str], weights: np.ndarray) -> str:
    """Weights as a value of --rerank; those of 0 are left out."""
    return ",".join(f"{name}={weight:g}" for name, weight in zip(names, weights) if weight)
