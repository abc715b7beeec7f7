"""`difformer tune`: load, search, time the best settings once more, and write them to a file."""

import hashlib
import math
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from fairseq import checkpoint_utils, utils
from fairseq.tasks import FairseqTask
from torch import nn
from tqdm import tqdm

from difformer_plugin import __version__
from difformer_plugin.data.batches import load_batches
from difformer_plugin.data.word_marks import check_mark
from difformer_plugin.decoding.checks import check_options
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.precision import pays
from difformer_plugin.decoding.sampling import check_decoding
from difformer_plugin.decoding.settings import OPTIONS, read_settings, write_settings
from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import is_diffusion_model
from difformer_plugin.networks.precision import PRECISIONS
from difformer_plugin.reranking.options import RERANKER_OPTIONS
from difformer_plugin.storage.files import digest_files
from difformer_plugin.storage.journal import Journal
from difformer_plugin.tuning.report import plot, settings_comments
from difformer_plugin.tuning.search import Search
from difformer_plugin.tuning.settings import Settings, Variant
from difformer_plugin.tuning.space import search_space, starts_in
from difformer_plugin.tuning.trials import Trials

FORMAT = 2  # of the journal
REFERENCE = {"decoding_steps": 20, "decoding_precision": "fp32"}
BEAMS = {"length_beam_size": 7, "noise_beam_size": 3}
BEAMS_WITHOUT_LENGTHS = {"length_beam_size": 1, "noise_beam_size": 21}  # as many candidates
# Shares of --minutes: the reference is decoded on as many sentences as fit into its share.
REFERENCE_SHARE, TIMING_SHARE = 0.3, 0.15
MAX_FINALISTS = 6  # settings of the Pareto front that are timed once more


def tune(args: Namespace) -> dict[str, Any]:
    """Search, and write the settings file, and the JSON file and the plot if they are wanted.

    Args:
        args: the arguments of `difformer tune`, checked.
    Returns:
        what the JSON file holds: `chosen`, `reference`, `front`, `trials`, `signature`, and what
        `journal_header` returns.
    Raises:
        UserError: the input cannot be used, or the model refuses the reference settings.
    """
    check_mark(args.post_process)
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    check_precisions(args.precisions or ())
    values = reference_values(args)
    models, task, batches = load(args, device)
    precisions = list(dict.fromkeys(args.precisions or fast_precisions(models[0].denoiser)))
    options = reference_options(values, models[0].tries_lengths)
    space = search_space(
        options, precisions, models[0].samplers(), partial(check_decoding, models[0])
    )
    header = journal_header(args, options, batches, device)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    fixed = {name: getattr(options, name) for name in OPTIONS}
    with (
        Journal(f"{args.out}.journal") as journal,
        tqdm(desc="tune", unit=" sentences", disable=None, smoothing=0.05) as progress,
    ):
        begin_or_resume(journal, header)
        trials = Trials(
            task.build_generator,
            models,
            task.target_dictionary,
            batches,
            space[0],
            args.post_process,
            journal,
            fixed | {"decoding_settings": None, "force_precision": True},
            progress.update,
            args.minutes and REFERENCE_SHARE * 60 * args.minutes,
        )
        search = run_search(args, space, trials, progress)
        several = finalists(search)
        progress.set_postfix_str("timing the best settings in alternation")
        most = TIMING_SHARE * 60 * args.minutes if args.minutes else math.inf
        speeds = trials.speeds(several, args.repeats, most)
        rows = {settings: measured_row(settings, search, trials, speeds) for settings in several}
    best = max(
        (settings for settings, row in rows.items() if row["loss"] <= args.max_loss),
        key=lambda settings: speeds[settings],
    )
    result = {
        "chosen": rows[best],
        "reference": rows[space[0]],
        "front": list(rows.values()),
        "trials": [{**s.options(), **m._asdict()} for s, m in search.found.items()],
        "signature": trials.signature(),
        **header,
        "sentences": sum(trials.sizes[number] for number in trials.whole),
    }
    write_settings(args.out, values_to_write(best, fixed), settings_comments(args, result))
    if args.plot:
        plot(args.plot, args, result)
    return result


def reference_values(args: Namespace) -> dict[str, Any]:
    """The options of the reference that the user gave, name -> value.

    Raises:
        UserError: the settings file cannot be read, or sets an option that tune cannot use.
    """
    values = read_settings(args.decoding_settings) if args.decoding_settings else {}
    if values.get("history_file"):
        raise UserError(
            f"{args.decoding_settings}: leave history_file out, since tune writes no history"
        )
    if values.get("constraints_file"):
        raise UserError(
            f"{args.decoding_settings}: leave constraints_file out, since tune gives no words"
        )
    given = {name: vars(args)[name] for name in OPTIONS if vars(args).get(name) is not None}
    return values | given


def reference_options(values: Mapping[str, Any], tries_lengths: bool) -> DecodingOptions:
    """The options of decoding that all settings are compared with.

    Args:
        values: of `reference_values`.
        tries_lengths: of the model.
    Raises:
        UserError: the options contradict each other.
    """
    beams = BEAMS if tries_lengths else BEAMS_WITHOUT_LENGTHS
    values = {**REFERENCE, **beams, **values}
    values.setdefault("bleu_mbr", not any(values.get(name) for name in RERANKER_OPTIONS))
    options = DecodingOptions(**values)
    check_options(options)
    return options


def check_precisions(names: Iterable[str]) -> None:
    """Check the values of --precisions.

    Raises:
        UserError: there is no precision of a given name.
    """
    if unknown := [name for name in names if name not in PRECISIONS]:
        raise UserError(
            f"--precisions: no such precision as {unknown[0]}; there are {', '.join(PRECISIONS)}"
        )


def fast_precisions(denoiser: nn.Module) -> list[str]:
    """The precisions that are searched by default: those that are not slower than float32."""
    on_gpu = denoiser.output_projection.weight.device.type != "cpu"
    names = [name for name in PRECISIONS if not (on_gpu and name == "int8")]
    return [name for name in names if pays(denoiser, name)]


def load(
    args: Namespace, device: torch.device
) -> tuple[list[Any], FairseqTask, list[dict[str, Any]]]:
    """The models on the device, their task, and the batches of the split.

    Raises:
        UserError: the first model is not a diffusion model, or the split cannot be used.
    """
    models, _, task = checkpoint_utils.load_model_ensemble_and_task(
        utils.split_paths(args.path), arg_overrides={"data": args.data, "seed": args.seed}
    )
    if not is_diffusion_model(models[0]):
        raise UserError(
            f"{args.path}: the first model is a {type(models[0]).__name__}, not a diffusion model"
        )
    longest = utils.resolve_max_positions(*(model.max_positions() for model in models))
    batches = load_batches(
        task, args.data, args.gen_subset, args.batch_size, longest, device, args.sentences
    )
    return [model.to(device).eval() for model in models], task, batches


def journal_header(
    args: Namespace,
    options: DecodingOptions,
    batches: Sequence[dict[str, Any]],
    device: torch.device,
) -> dict[str, Any]:
    """All that measurements depend on, except the settings that are searched over."""
    digest = hashlib.blake2b(digest_size=16)
    for batch in batches:
        for tensor in (batch["net_input"]["src_tokens"], batch["target"]):
            digest.update(repr(tensor.tolist()).encode())
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    else:
        machine = f"{torch.get_num_threads()} CPU threads"
    return {
        "format": FORMAT,
        "model": digest_files(utils.split_paths(args.path)),
        "data": digest.hexdigest(),
        "sentences": sum(len(batch["id"]) for batch in batches),
        "reference options": {name: getattr(options, name) for name in OPTIONS},
        "--batch-size": args.batch_size,
        "--seed": args.seed,
        "--post-process": args.post_process,
        "machine": f"torch {torch.__version__}, {machine}",
        "version": __version__,
    }


def begin_or_resume(journal: Journal, header: dict[str, Any]) -> None:
    """Write the header of an empty journal, or check that a journal has the same header.

    Raises:
        UserError: it has another.
    """
    if journal.header is None or not journal.count:
        journal.begin(header)
        return
    remedy = "give another --out, or remove the journal"
    if journal.header.get("format") != header["format"]:
        raise UserError(
            f"{journal.path} is of another version of difformer tune (format "
            f"{journal.header.get('format')}, not {header['format']}): {remedy}"
        )
    if differing := [name for name in header if journal.header.get(name) != header[name]]:
        raise UserError(
            f"{journal.path} holds measurements with another {', another '.join(differing)}: "
            f"{remedy}"
        )


def run_search(
    args: Namespace, space: Sequence[Settings], trials: Trials, progress: tqdm
) -> Search:
    """Search within the budget, and confirm the Pareto front on all sentences."""

    def used():
        seconds = (1 - TIMING_SHARE) * 60 * args.minutes if args.minutes else math.inf
        minutes = trials.seconds / seconds
        return max(trials.count / args.max_trials, minutes)

    def observe():
        best = search.best()
        gain = search.found[space[0]].seconds / search.found[best].seconds
        progress.set_postfix_str(
            f"trial {trials.count}, {gain:.1f}x with a loss of {search.found[best].loss:.2f}"
        )

    progress.set_postfix_str("reference")
    search = Search(space, args.max_loss, trials.measure)
    search.run(used, observe, starts_in(space))
    for settings in evenly_spread(search.front(), MAX_FINALISTS):
        if used() < 1:
            search.confirm(settings)
    return search


def evenly_spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, the first and the last among them."""
    rows = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[row] for row in rows]


def finalists(search: Search) -> list[Settings]:
    """The settings that are timed once more: the reference, some of the front, and the best."""
    front = evenly_spread(search.front(whole=True), MAX_FINALISTS)
    return list(dict.fromkeys([search.space[0], *front, search.best()]))


def measured_row(
    settings: Settings, search: Search, trials: Trials, speeds: Mapping[Settings, float]
) -> dict[str, Any]:
    """The final measurements of settings: a row of the table and of the JSON file."""
    bleu, interval = trials.score(settings)
    return {
        **settings.options(),
        "name": str(settings),
        "bleu": bleu,
        "loss": search.found[settings].loss,
        "loss_interval": interval,
        "sentences_per_second": speeds[settings],
        "ratio": speeds[settings] / speeds[search.space[0]],
    }


def values_to_write(settings: Settings, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of the settings file.

    The searched steps, candidates, precision and sampler are always written; the other options only
    where they are not the default.
    """
    values = settings.options()
    always = [
        name
        for name in (*Settings._fields, "decoding_sampler")
        if name in values and name not in Variant._fields
    ]
    others = {name: value for name, value in {**fixed, **values}.items() if name not in always}
    changed = {name: v for name, v in others.items() if v != OPTIONS[name].default}
    return {name: values[name] for name in always} | changed
