"""The work of `difformer tune`: load, search, time once more, and write."""

import hashlib
import json

import numpy as np
import torch
from fairseq import checkpoint_utils, utils
from tqdm import tqdm

from difformer_plugin import __version__
from difformer_plugin.data.batches import batches
from difformer_plugin.data.data_bin_pairs import check_mark
from difformer_plugin.decoding.options import PRECISIONS, DecodingOptions, check_options
from difformer_plugin.decoding.settings import OPTIONS, read_settings, write_settings
from difformer_plugin.distillation import journaled as distillation
from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import atomic_text
from difformer_plugin.storage.journal import Journal
from difformer_plugin.tuning.report import explain, plot, render
from difformer_plugin.tuning.search import Search
from difformer_plugin.tuning.space import Settings, space
from difformer_plugin.tuning.trials import Trials

FORMAT = 1  # of the journal
REFERENCE = {"decoding_steps": 20, "decoding_precision": "fp32"}
BEAMS = {"length_beam_size": 7, "noise_beam_size": 3}
GROWING_BEAMS = {"length_beam_size": 1, "noise_beam_size": 21}  # where there are no lengths to try
FRONT = 6  # settings of the Pareto front that are timed once more, at most


def tune(args):
    """Do what `difformer tune` is asked for."""
    check_mark(args.post_process)
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    values, names = given_options(args), precisions(args, device)
    models, task, samples = load(args, device)
    options = reference_options(values, models[0])
    candidates = space(options, names, models[0].decoding_process)
    header = heading(args, options, samples, device)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with (
        Journal(f"{args.out}.journal") as journal,
        tqdm(desc="tune", unit=" sentences", disable=None, smoothing=0.05) as progress,
    ):
        begin(journal, header)
        fixed = {name: getattr(options, name) for name in OPTIONS} | {"decoding_settings": None}
        trials = Trials(
            task.build_generator,
            models,
            task.target_dictionary,
            samples,
            candidates[0],
            args.post_process,
            journal,
            fixed,
            progress.update,
        )
        search = look(args, candidates, trials, progress)
        several = finalists(search)
        progress.set_postfix_str("the last ones in alternation")
        speeds = trials.speeds(several, args.repeats)
        rows = [row(settings, search, trials, speeds) for settings in several]
    chosen = max(
        (each for each in rows if each["loss"] <= args.max_loss),
        key=lambda each: each["sentences_per_second"],
    )
    result = {
        "chosen": chosen,
        "reference": rows[0],
        "front": rows,
        "trials": [{**s._asdict(), **m._asdict()} for s, m in search.found.items()],
        "signature": trials.signature(),
        **header,
    }
    comments = explain(args, result)
    own = {name: chosen[name] for name in Settings._fields if chosen[name] is not False}
    for name in OPTIONS:
        if name not in Settings._fields and fixed[name] != OPTIONS[name].default:
            own[name] = fixed[name]
    write_settings(args.out, own, comments)
    if args.json:
        with atomic_text(args.json) as file:
            json.dump(result, file, indent=1)
    if args.plot:
        plot(args.plot, args, result)
    print(render(args, result))
    return 0


def given_options(args):
    """The options of the reference that the user sets, name -> value.

    Raises:
        UserError: tune has no use of one.
    """
    values = read_settings(args.decoding_settings) if args.decoding_settings else {}
    if values.get("history_file"):
        raise UserError(
            f"{args.decoding_settings}: leave out history_file, which tune has no use of"
        )
    given = {name: vars(args)[name] for name in OPTIONS if vars(args).get(name) is not None}
    return values | given


def reference_options(values, model):
    """The DecodingOptions that all others are compared with.

    Args:
        values: of `given_options`; model: a diffusion model.
    Raises:
        UserError: they cannot be.
    """
    beams = BEAMS if model.length_predictor else GROWING_BEAMS
    values = REFERENCE | beams | values
    values.setdefault("bleu_mbr", not values.get("ppl_mbr", False))
    options = DecodingOptions(**values)
    check_options(options)
    return options


def precisions(args, device):
    """The names of --precisions, or those that pay on this device."""
    names = args.precisions or (["fp32", "bf16"] + ["fp16"] * (device.type == "cuda"))
    if unknown := [name for name in names if name not in PRECISIONS]:
        raise UserError(
            f"--precisions: no such precision as {unknown[0]}; there are {', '.join(PRECISIONS)}"
        )
    return list(dict.fromkeys(names))


def load(args, device):
    """The models on the device, their task, and the batches of the split."""
    models, _, task = checkpoint_utils.load_model_ensemble_and_task(
        utils.split_paths(args.path), arg_overrides={"data": args.data, "seed": args.seed}
    )
    if not hasattr(task, "tgt_dict") or not hasattr(models[0], "decoding_process"):
        raise UserError(
            f"{args.path}: the first is no diffusion model, but {type(models[0]).__name__}"
        )
    task.load_dataset(args.gen_subset)
    dataset = task.dataset(args.gen_subset)
    longest = utils.resolve_max_positions(*(model.max_positions() for model in models))
    # fairseq shuffles sentences of one length in another way each time
    order = np.lexsort((dataset.tgt_sizes, dataset.src_sizes))
    order = task.filter_indices_by_size(order, dataset, longest)
    if len(order) == 0:
        raise UserError(f"{args.data}: {args.gen_subset} has no sentence to measure with")
    if args.sentences and args.sentences < len(order):
        order = order[np.linspace(0, len(order) - 1, args.sentences).round().astype(int)]
    found = batches(args, dataset, order, device)
    return [model.to(device).eval() for model in models], task, found


def heading(args, options, samples, device):
    """All that measurements depend on: data, model, machine and what the settings leave alone."""
    digest = hashlib.blake2b(digest_size=16)
    for batch in samples:
        for tensor in (batch["net_input"]["src_tokens"], batch["target"]):
            digest.update(repr(tensor.tolist()).encode())
    gpu = device.type == "cuda"
    where = torch.cuda.get_device_name(device) if gpu else f"{torch.get_num_threads()} CPU threads"
    return {
        "format": FORMAT,
        "model": distillation.digest(utils.split_paths(args.path)),
        "data": digest.hexdigest(),
        "sentences": sum(len(batch["id"]) for batch in samples),
        "reference options": {name: getattr(options, name) for name in OPTIONS},
        "--batch-size": args.batch_size,
        "--seed": args.seed,
        "--post-process": args.post_process,
        "machine": f"torch {torch.__version__}, {where}",
        "version": __version__,
    }


def begin(journal, header):
    """Go on with a journal of the same work."""
    if not journal.count:
        journal.begin(header)
    elif differs := [name for name in header if journal.header.get(name) != header[name]]:
        raise UserError(
            f"{journal.path} holds measurements with another {', another '.join(differs)}: give "
            "another --out, or remove it"
        )


def look(args, candidates, trials, progress):
    """Search within the budget; returns the Search, whose front stands on all sentences."""

    def used():
        minutes = (trials.seconds - start) / 60 / args.minutes if args.minutes else 0
        return max(trials.count / args.max_trials, minutes)

    def observe():
        best = search.best()
        gain = search.found[candidates[0]].seconds / search.found[best].seconds
        progress.set_postfix_str(
            f"trial {trials.count}, {gain:.1f}x with a loss of {search.found[best].loss:.2f}"
        )

    progress.set_postfix_str("reference")
    search = Search(candidates, args.max_loss, trials.measure)
    start = trials.seconds
    search.run(used, observe)
    for settings in spread(search.front(), FRONT):
        if used() < 1:
            search.confirm(settings)
    return search


def spread(items, most):
    """At most so many of a list, the first and the last among them."""
    rows = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[row] for row in rows]


def finalists(search):
    """The reference, the best, and more of the front: what is timed once more."""
    front = spread(search.front(whole=True), FRONT)
    return list(dict.fromkeys([search.candidates[0], *front, search.best()]))


def row(settings, search, trials, speeds):
    """What is known of settings in the end."""
    bleu, interval = trials.score(settings)
    speed = speeds[settings]
    return {
        **settings._asdict(),
        "name": str(settings),
        "bleu": bleu,
        "loss": search.found[settings].loss,
        "loss_interval": interval,
        "sentences_per_second": speed,
        "ratio": speed / speeds[search.candidates[0]],
    }
