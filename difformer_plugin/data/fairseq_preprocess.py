"""Text to a data-bin with a joint dictionary, by fairseq-preprocess."""

import logging

from difformer_plugin.data.recipe import SPLITS


def binarise(text, data_bin, langs, workers):
    """A joint dictionary and the binarised splits, by fairseq-preprocess."""
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
    (data_bin / "preprocess.log").unlink()  # it tells times and folders, not the corpus
