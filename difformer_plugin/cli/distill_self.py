"""The options of `difformer distill --self`, where a model's own candidates compete."""

import math
from argparse import ArgumentParser, Namespace
from pathlib import Path

from difformer_plugin.distillation.settings import OwnSettings
from difformer_plugin.errors import UserError
from difformer_plugin.options import flag

# Of decoding; further ones come from the file of --decoding-settings.
DECODING = ("decoding_steps", "length_beam_size", "noise_beam_size", "decoding_precision")
OPTIONS = {  # attribute -> option
    "own_model": "--self",
    **{name: flag(name) for name in ("raw", "bleu_weight", "mix", *DECODING, "decoding_settings")},
}
# What beam search reads, and what becomes of its failures: with --self the present target stays.
ONLY_WITH_BEAM_SEARCH = (
    *("choose", "beam", "lenpen", "max_len_a", "max_len_b"),
    *("on_failure", "add_raw", "precision"),
)
DEFAULT_BLEU_WEIGHT = 1.0


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options; each has the default None."""
    group = parser.add_argument_group(
        "self-distillation",
        "A diffusion model translates, and the teacher chooses. DATA-BIN has the present targets; "
        "one is replaced only where a candidate's score is higher: the teacher's mean "
        "log-probability per token plus --bleu-weight times sentence BLEU (0 to 1) against the raw "
        "target.",
    )
    add = group.add_argument
    add("--self", dest="own_model", metavar="FILE", help="checkpoint of the diffusion model")
    add("--raw", type=Path, metavar="DATA-BIN", help="has the raw targets of the same sources")
    add(
        "--bleu-weight",
        type=float,
        metavar="W",
        help="weight of sentence BLEU in the score; 0: the teacher alone; "
        f"default: {DEFAULT_BLEU_WEIGHT:g}",
    )
    add(
        "--mix",
        type=float,
        metavar="SHARE",
        help="append this share (0 to 1) of all pairs with their present targets; with 1, present "
        "and new targets are mixed 1:1; default: 0",
    )
    add("--decoding-steps", type=int, metavar="K", help="default: 20")
    add("--length-beam-size", type=int, metavar="B1", help="default: 5, or 1 without lengths")
    add("--noise-beam-size", type=int, metavar="B2", help="default: 2, or 10 without lengths")
    add(
        "--decoding-precision",
        metavar="NAME",
        help="fp32, bf16, fp16 or int8; default: the model's",
    )
    add("--decoding-settings", metavar="FILE", help="read these and other options from a file")


def given(args: Namespace) -> list[str]:
    """The options of this group that the user gave."""
    return [option for name, option in OPTIONS.items() if vars(args)[name] is not None]


def check(args: Namespace) -> OwnSettings | None:
    """The settings of self-distillation, or None without --self.

    Raises:
        UserError: values are impossible, or options have no effect.
    """
    if args.own_model is None:
        if unused := given(args):
            raise UserError(f"{unused[0]} needs --self: give a diffusion model's checkpoint")
        return None
    for name in ONLY_WITH_BEAM_SEARCH:
        if vars(args)[name] != args.defaults[name]:
            option = "--fp16 or --bf16" if name == "precision" else flag(name)
            raise UserError(f"{option} does not go with --self: leave it out")
    if args.raw is None:
        raise UserError("--self needs --raw: give the data-bin with the raw targets")
    weight = DEFAULT_BLEU_WEIGHT if args.bleu_weight is None else args.bleu_weight
    if not 0 <= weight < math.inf:
        raise UserError(f"--bleu-weight must be at least 0, not {weight:g}")
    mix = 0.0 if args.mix is None else args.mix
    if not 0 <= mix <= 1:
        raise UserError(f"--mix must be between 0 and 1, not {mix:g}")
    decoding = {name: vars(args)[name] for name in DECODING if vars(args)[name] is not None}
    return OwnSettings(args.own_model, args.raw, weight, mix, decoding, args.decoding_settings)
