"""Run fairseq-preprocess within this process: text to a data-bin with a joint dictionary."""

import logging
from collections.abc import Mapping
from pathlib import Path

from difformer_plugin.data.data_bin_files import check_file
from difformer_plugin.data.recipe import SPLITS
from difformer_plugin.errors import UserError


def binarise(text: Path, data_bin: Path, langs: tuple[str, str], workers: int) -> None:
    """Learn a joint dictionary on the training text, and binarise all splits.

    Args:
        text: folder of {train,valid,test}.LANG.
        data_bin: the folder to write.
        langs: source and target language.
        workers: number of processes.
    """
    from fairseq import options
    from fairseq_cli import preprocess

    log = logging.getLogger("fairseq_cli.preprocess")
    log.setLevel(logging.WARNING)
    handlers, source, target = list(log.handlers), *langs
    arguments = ["--source-lang", source, "--target-lang", target, "--joined-dictionary"]
    for split in SPLITS:
        arguments += [f"--{split}pref", str(text / split)]
    arguments += ["--destdir", str(data_bin), "--workers", str(workers)]
    try:
        preprocess.main(options.get_preprocessing_parser().parse_args(arguments))
    finally:
        for handler in set(log.handlers) - set(handlers):
            log.removeHandler(handler)
            handler.close()
    # The log names times and folders; without it the same text gives the same files.
    (data_bin / "preprocess.log").unlink()


def check_data_bin(
    data_bin: Path, langs: tuple[str, str], counts: Mapping[str, Mapping[str, int]]
) -> None:
    """Check that a data-bin of `binarise` is still as it was made.

    Args:
        counts: for each split its number of `pairs`.
    Raises:
        UserError: a file is missing or damaged, or holds another number of sentences.
    """
    remedy = f"remove {data_bin} and run the same command again, which makes it anew"
    for lang in langs:
        if not (data_bin / f"dict.{lang}.txt").is_file():
            raise UserError(f"{data_bin}/dict.{lang}.txt is gone: {remedy}")
        for split, count in counts.items():
            stem = data_bin / f"{split}.{'-'.join(langs)}.{lang}"
            if not Path(f"{stem}.idx").is_file():
                raise UserError(f"{stem}.idx is gone: {remedy}")
            found = check_file(stem, remedy=remedy)
            if found != count["pairs"]:
                raise UserError(f"{stem} has {found} sentences, not {count['pairs']}: {remedy}")
