"""What the server of forked commands does once, so that no command does it again.

It imports what commands import, and reads one command line, after which the parser that turns
fairseq's options into a config knows its grammar. It must not import difformer_plugin.
"""

import contextlib
import gc
import importlib
import os
import sys
import warnings

MODULES = (
    "fairseq_cli.train",  # first: it decides that logs go to standard output, as in training
    *(f"fairseq_cli.{name}" for name in ("preprocess", "generate", "interactive", "validate")),
    *("fairseq_cli.hydra_train", "torch._dynamo"),  # the latter is what optimizers import
    *("sacrebleu", "sacremoses", "subword_nmt.apply_bpe", "tensorboardX", "tomllib"),
    *("matplotlib.figure", "rouge_score.rouge_scorer", "scipy.sparse.linalg", "scipy.stats"),
)


def read_a_command():
    """Turn the options of some command into fairseq's config."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    arguments = ["data", "--arch", "transformer", "--optimizer", "adam"]
    parsed = options.parse_args_and_arch(options.get_training_parser(), arguments)
    convert_namespace_to_omegaconf(parsed)


warnings.simplefilter("ignore")
for module in MODULES:
    with contextlib.suppress(ImportError):  # some are optional
        importlib.import_module(module)
read_a_command()
if sys.dont_write_bytecode:  # else every command compiles the plug-in
    sys.pycache_prefix, sys.dont_write_bytecode = os.environ["BYTECODE"], False
gc.freeze()  # else a collection in a command copies the pages of all that it visits
