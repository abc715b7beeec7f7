"""Options of the commands that use a trained model: where it is, and how its text is processed."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from difformer_plugin.errors import UserError
from difformer_plugin.options import flag

# Of decoding; further ones come from the file of --decoding-settings.
DECODING = (
    *("decoding_steps", "decoding_early_stopping", "length_beam_size", "noise_beam_size"),
    *("bleu_mbr", "rerank", "decoding_precision", "constraints_file"),
)


def add_model(parser: ArgumentParser) -> None:
    """Add MODEL, --data and --use-ema."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a checkpoint, or a folder with one")
    add(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="folder of the dictionaries and pipeline.json; default: that of MODEL or, if none are "
        "there, the data-bin that it was trained on",
    )
    add(
        "--use-ema",
        action="store_true",
        help="use the moving average of the weights that --store-ema keeps",
    )


def add_text(parser: ArgumentParser) -> None:
    """Add the options that stand for a missing pipeline.json, or replace parts of it."""
    group = parser.add_argument_group(
        "text", "By default as pipeline.json says, which `difformer prepare` writes."
    )
    add = group.add_argument
    add("--source-lang", metavar="LANG", help="language of the source")
    add("--target-lang", metavar="LANG", help="language of the target")
    add("--tokenizer", choices=("moses", "none"), help="how text is tokenised")
    add("--bpe-codes", metavar="FILE", help="merges of subword-nmt, or none for whole words")
    add("--sentencepiece-model", metavar="FILE", help="model of SentencePiece, instead of merges")


def add_decoding(parser: ArgumentParser) -> None:
    """Add options of decoding; each has the default None."""
    group = parser.add_argument_group(
        "decoding", "As in fairseq-generate, with the same defaults (docs/options.md)."
    )
    add = group.add_argument
    add("--decoding-steps", type=int, metavar="K", help="number of steps; default: 20")
    add("--decoding-early-stopping", type=int, metavar="E", help="leave out the last E steps")
    add("--length-beam-size", type=int, metavar="B1", help="lengths tried; default: 1")
    add("--noise-beam-size", type=int, metavar="B2", help="candidates per length; default: 1")
    add(
        "--bleu-mbr",
        action="store_true",
        default=None,
        help="choose the candidate with the highest mean BLEU against the others",
    )
    add("--rerank", metavar="WEIGHTS", help="choose by a weighted sum of scores, as mbr=1,length=1")
    add("--teacher", type=Path, metavar="FILE", help="a teacher's checkpoint, if --rerank needs it")
    add(
        "--decoding-precision",
        metavar="NAME",
        help="fp32, bf16, fp16 or int8; default: the model's",
    )
    add(
        "--decoding-settings",
        type=Path,
        metavar="FILE",
        help="read these and other options from a file, as `difformer tune` writes; default: the "
        "decoding.toml of an exported MODEL",
    )
    add("--seed", type=int, default=1, help="seed of the noise; default: 1")


def hint(unknown: Sequence[str]) -> str:
    """What to use in place of options of decoding that a command does not have.

    Args:
        unknown: words of the command line.
    """
    from difformer_plugin.decoding.settings import OPTIONS

    names = {word.split("=")[0] for word in unknown if word.startswith("--")}
    if "--beam" in names:
        return (
            "; there is no beam search: give --length-beam-size and --noise-beam-size, with "
            "--bleu-mbr to choose among the candidates"
        )
    known = [name for name in OPTIONS if flag(name) in names]
    return f"; write a line `{known[0]} = ...` to the file of --decoding-settings" if known else ""


def check_seed(args: Namespace) -> None:
    """Raise a UserError for a seed that is out of range."""
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed must be from 0 to 2**32 - 1, not {args.seed}")


def text_options(args: Namespace) -> dict[str, str | None]:
    """The options of `add_text`, by name."""
    names = ("source_lang", "target_lang", "tokenizer", "bpe_codes", "sentencepiece_model")
    return {name: vars(args)[name] for name in names}


def decoding_options(args: Namespace) -> dict[str, object]:
    """The options of decoding that the user gave, by name."""
    return {name: vars(args)[name] for name in DECODING if vars(args)[name] is not None}
