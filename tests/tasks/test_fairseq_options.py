"""Every option of fairseq's real parsers has one verdict, and no verdict is about nothing.

An option that a newer fairseq or our task adds fails here until the table says what becomes of it.
"""

from collections import Counter

import pytest
from fairseq import options

from difformer_plugin.tasks.diffusion_translation import DiffusionTranslationTask
from difformer_plugin.tasks.fairseq_options import COMMANDS, OF_EVAL_BLEU, rules_of

PARSERS = {
    "preprocess": options.get_preprocessing_parser,
    "train": options.get_training_parser,
    "validate": options.get_validation_parser,
    "generate": options.get_generation_parser,
    "interactive": options.get_interactive_generation_parser,
}


def option_names(command):
    """The options of a command and of our task."""
    parser = PARSERS[command]()
    if command != "preprocess":
        DiffusionTranslationTask.add_args(parser)
    return {action.dest for action in parser._actions} - {"help"}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_has_one_verdict(command):
    verdicts = Counter(name for name, _ in rules_of(command))
    assert set(verdicts) == option_names(command)
    assert set(verdicts.values()) == {1}


@pytest.mark.parametrize("command", OF_EVAL_BLEU)
def test_what_needs_eval_bleu_is_there(command):
    assert OF_EVAL_BLEU[command] <= option_names(command)
