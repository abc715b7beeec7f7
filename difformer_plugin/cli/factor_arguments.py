"""The arguments of `difformer factor`: which exclude each other, and what embeddings they name."""

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from difformer_plugin.errors import UserError
from difformer_plugin.options import flag

if TYPE_CHECKING:
    from difformer_plugin.tuning.factor_embeddings import NormalEmbeddings

SOURCES = ("vocab_size", "from_data", "from_checkpoint")
SAMPLING = {"samples", "seed"}
NOT_WITH_CHECKPOINT = {
    *("vocab_size", "latent_dim", "sigma", "method", "from_data", "target_lang"),
}
NOT_WITH_TABLE = SAMPLING | {
    *("vocab_size", "from_data", "target_lang", "from_checkpoint", "noise_schedule"),
    "target_length",
    *("max_dgs", "rescaling_factor", "method", "plot"),
}


def given(args: Namespace, *names: str) -> dict[str, Any]:
    """Those of the named arguments that the user gave: name -> value."""
    values = vars(args)
    return {name: values[name] for name in names if values[name] is not None}


def check(args: Namespace) -> None:
    """Raise a UserError for values out of range and for arguments that exclude each other."""
    used = {name for name, value in vars(args).items() if value is not None and value is not False}
    if args.vocab_size is not None and args.vocab_size < 1:
        raise UserError(f"--vocab-size must be at least 1, not {args.vocab_size}")
    if args.samples is not None and args.samples < 1:
        raise UserError(f"--samples must be at least 1, not {args.samples}")
    if args.seed is not None and not 0 <= args.seed < 2**63:
        raise UserError(f"--seed must lie between 0 and 2^63 - 1, not {args.seed}")
    if {"rescaling_factor", "max_dgs"} <= used:
        raise UserError("with --rescaling-factor nothing is searched for: leave --max-dgs out")
    if args.table:
        _refuse(used & NOT_WITH_TABLE, "--table has its own rows")
        return
    sources = [name for name in SOURCES if name in used]
    if len(sources) != 1:
        raise UserError(
            "give one of --vocab-size, --from-data and --from-checkpoint"
            + (f", not {_flags(sources)}" if sources else "")
        )
    if args.from_checkpoint:
        _refuse(used & NOT_WITH_CHECKPOINT, "--from-checkpoint brings its own")
    elif args.method != "monte-carlo":
        _refuse(used & SAMPLING, "nothing is sampled without --method monte-carlo")
    if not args.from_data:
        _refuse(used & {"target_lang"}, "without --from-data no dictionary is read")
    if args.plot:
        from difformer_plugin.evaluation.plots import check_plot_path

        check_plot_path(args.plot)


def scored_embeddings(args: Namespace) -> "NormalEmbeddings":
    """The embeddings that the arguments ask about."""
    from difformer_plugin.tuning import factor_embeddings as kinds

    sampling = given(args, "samples", "seed")
    if args.from_checkpoint:
        return kinds.TrainedEmbeddings(args.from_checkpoint, args.classifier, **sampling)
    vocab_size = args.vocab_size
    if args.from_data:
        from difformer_plugin.data.data_bin import target_vocab_size

        vocab_size = target_vocab_size(args.from_data, args.target_lang)
    normal = kinds.NormalEmbeddings(
        vocab_size, **given(args, "latent_dim", "sigma"), classifier=args.classifier
    )
    if args.method == "monte-carlo":
        return kinds.SampledNormalEmbeddings(normal, **sampling)
    return normal


def _refuse(unused, reason):
    """Raise a UserError if any arguments are in vain."""
    if unused:
        raise UserError(f"{reason}: leave {_flags(sorted(unused))} out")


def _flags(names):
    return " and ".join(map(flag, names))
