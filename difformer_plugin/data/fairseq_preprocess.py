"""Run fairseq-preprocess within this process: text to a data-bin with a joint dictionary."""

import logging
from pathlib import Path

from difformer_plugin.data.recipe import SPLITS


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
