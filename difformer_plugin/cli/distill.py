"""`difformer distill`: a data-bin whose targets a teacher has translated anew."""

import json
import math
import os
import time
from pathlib import Path

from difformer_plugin.cli import add_post_process, register_quietly
from difformer_plugin.errors import UserError

LOW_BLEU = 1.0  # what a teacher has left whose dictionary has the right size in another order


def add_parser(subparsers):
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "distill",
        help="replace the targets of a data-bin by a teacher's translations",
        description="Translate the training sources of a data-bin with a teacher, any translation "
        "model of fairseq, and write a data-bin with these targets. What is interrupted goes on "
        "when the same command is given again.",
    )
    add = parser.add_argument
    add(
        "data",
        nargs="+",
        metavar="DATA-BIN",
        help="from fairseq-preprocess; with --merge the --out of each shard, in any order",
    )
    add("--teacher", metavar="FILES", help="checkpoint, or an ensemble's joined with ':'")
    add("--out", required=True, type=Path, metavar="DATA-BIN", help="a folder that is new")
    add(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="only the I-th of N shares, I from 0, for several machines or GPUs",
    )
    add("--merge", action="store_true", help="put the finished shards together")
    add("--split", default="train", help="default: train; the others are copied")
    add("--beam", type=int, default=5, help="of beam search; default: 5")
    add("--lenpen", type=float, default=1.0, help="length penalty, as in fairseq; default: 1")
    add(
        "--max-len-a",
        type=float,
        default=1.0,
        metavar="A",
        help="outputs have at most A x source + B tokens; default: 1",
    )
    add("--max-len-b", type=int, default=50, metavar="B", help="default: 50")
    add("--max-tokens", type=int, default=8000, help="source tokens in a batch; default: 8000")
    add("--batch-size", type=int, default=256, help="most sentences in a batch; default: 256")
    add(
        "--on-failure",
        choices=("keep", "drop", "replace"),
        default="keep",
        help="where the teacher failed: keep the raw target, drop the pair, or take the next "
        "hypothesis that is no failure, if there is one; default: keep",
    )
    add(
        "--add-raw",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="add this share (0 to 1) of the raw pairs, but of those dropped, after the distilled "
        "ones; default: 0",
    )
    add("--seed", type=int, default=1, help="of the draw of raw pairs; default: 1")
    add_post_process(add)
    precision = parser.add_mutually_exclusive_group()
    half = {"dest": "precision", "action": "store_const"}
    precision.add_argument("--fp16", const="fp16", help="decode in float16, on a GPU", **half)
    precision.add_argument("--bf16", const="bf16", help="decode in bfloat16", **half)
    add("--cpu", action="store_true", help="even if there is a GPU")
    add("--json", action="store_true", help="print what was done as one JSON object")
    parser.set_defaults(run=run, unless_merging=_defaults(parser))


def _defaults(parser):
    """The options that --merge does not take, with their defaults."""
    taken = {"help", "data", "out", "merge", "json"}
    return {
        action.dest: (action.option_strings[0], action.default)
        for action in parser._actions
        if action.dest not in taken
    }


def run(args):
    """Distill a data-bin or a shard of it, or merge shards; print what was done."""
    started = time.monotonic()
    check(args)
    register_quietly()
    from difformer_plugin.distillation import run as distill_run

    job = distill_run.merge if args.merge else distill_run.distill
    manifest, finished = job(args)
    if args.json:
        print(json.dumps(manifest | summary(manifest)))
    else:
        print(render(args.out, manifest, finished, time.monotonic() - started))
    return 0


def summary(manifest):
    """What the sums of a manifest come to."""
    from sacrebleu.metrics import BLEU

    from difformer_plugin.distillation.journaled import Tally

    tally = Tally()
    tally.add(manifest["tally"])
    metric = BLEU(tokenize="none", force=True)
    metric.corpus_score(["a"], [["a"]])  # it has no signature before it has scored anything
    return {
        "bleu": tally.score().score,
        "signature": str(metric.get_signature()),
        "length_ratio": tally.bleu[8] / max(tally.bleu[9], 1),
        "tokens_per_second": tally.tokens / max(tally.seconds, 1e-9),
    }


def check(args):
    """Raise a UserError for options that cannot be, and for those that do not go together."""
    args.out = args.out.resolve() if args.out.is_symlink() else args.out
    if os.path.ismount(args.out):
        raise UserError(f"--out {args.out} is where a disk is mounted: name a folder on it")
    if args.merge:
        for name, (option, default) in args.unless_merging.items():
            if vars(args)[name] != default:
                raise UserError(f"{option} does not go with --merge: the shards have it settled")
        return
    if len(args.data) > 1:
        raise UserError("name one DATA-BIN, or give --merge to put shards together")
    if args.teacher is None:
        raise UserError("--teacher is missing: name a checkpoint to translate with")
    for name in ("beam", "max_tokens", "batch_size"):
        if vars(args)[name] < 1:
            option = name.replace("_", "-")
            raise UserError(f"--{option} must be at least 1, not {vars(args)[name]}")
    if not 0 <= args.max_len_a < math.inf or args.max_len_b < 1:
        raise UserError("--max-len-a must be at least 0, and --max-len-b at least 1")
    if not math.isfinite(args.lenpen):
        raise UserError(f"--lenpen must be a number, not {args.lenpen}")
    if not 0 <= args.add_raw <= 1:
        raise UserError(f"--add-raw is a share from 0 to 1, not {args.add_raw}")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed must be from 0 to 2**32 - 1, not {args.seed}")
    parse_shard(args.shard)


def parse_shard(text):
    """The numbers I and N of --shard I/N."""
    shard, _, count = text.partition("/")
    if shard.isdecimal() and count.isdecimal() and int(shard) < int(count):
        return int(shard), int(count)
    raise UserError(
        f"--shard {text}: give I/N with I from 0 to N - 1, as 0/3, 1/3 and 2/3 on three machines"
    )


def render(out, manifest, finished, seconds):
    """What was done, for a reader."""
    tally, total = manifest["tally"], summary(manifest)
    failures = sorted(tally["failures"].items())
    failed = sum(count for _, count in failures)
    causes = ", ".join(f"{count:,} {cause}" for cause, count in failures)
    kept = failed - tally["replaced"] - tally["dropped"]
    lines = [
        f"{out}: finished before, nothing to do" if finished else f"{out}: {seconds:,.0f} s",
        f"lines     {tally['sentences']:,} translated; {tally['pairs']:,} pairs written, "
        f"{tally['raw']:,} of them raw ones added",
        f"failures  {failed:,}",
        f"speed     {total['tokens_per_second']:,.0f} target tokens/s ({tally['tokens']:,} in "
        f"{tally['seconds']:,.0f} s of decoding)",
        f"BLEU      {total['bleu']:.2f} of the teacher against the raw targets, tokenised "
        f"({total['signature']}); length ratio {total['length_ratio']:.3f}",
    ]
    if failed:
        lines[2] += (
            f" ({causes}), each in {out / 'distilled.failures.tsv'}\n"
            f"          {kept:,} with the raw target, {tally['replaced']:,} with the next "
            f"hypothesis, {tally['dropped']:,} dropped"
        )
    if total["bleu"] < LOW_BLEU and tally["sentences"]:
        lines.append(
            "warning: hardly a word is right; was the teacher trained with these dict.*.txt?"
        )
    return "\n".join(lines)
