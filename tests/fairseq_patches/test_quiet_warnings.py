"""Only warnings about fairseq's own code are silenced."""

import warnings

import pytest

from difformer_plugin.fairseq_patches import quiet_warnings


@pytest.fixture
def shown():
    """A function that warns with the filters and no others, and returns what is shown."""

    def shown(message, category, module="some.module"):
        with warnings.catch_warnings(record=True) as found:
            warnings.resetwarnings()
            quiet_warnings.install()
            warnings.warn_explicit(message, category, "file.py", 1, module)
        return [str(warning.message) for warning in found]

    return shown


@pytest.mark.parametrize(
    "message",
    [
        "hydra.experimental.compose() is no longer experimental. Use hydra.compose()",
        "\nThe version_base parameter is not specified.\nPlease specify",
        "In 'config': Usage of deprecated keyword in package header '# @package _group_'.",
        "'pin_memory' argument is set as true but no accelerator is found, then device",
    ],
)
def test_what_fairseq_causes_in_hydra_and_torch(shown, message):
    assert shown(message, UserWarning) == []


def test_what_fairseq_calls_that_torch_has_deprecated(shown):
    message = "`torch.cuda.amp.autocast(args...)` is deprecated."
    assert shown(message, FutureWarning, "fairseq.tasks.fairseq_task") == []
    assert shown(message, FutureWarning, "fairseq_cli.train") == []
    assert shown(message, FutureWarning, "my_model") == [message]
    assert shown(message, FutureWarning, "fairseqs_fork.trainer") == [message]


def test_other_warnings_are_shown(shown):
    assert shown("something else", UserWarning, "fairseq.trainer") == ["something else"]


def test_the_users_filters_come_first():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet_warnings.install()
        with pytest.raises(UserWarning):
            warnings.warn("hydra.experimental.compose() is no longer experimental", stacklevel=1)
