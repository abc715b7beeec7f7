"""Parameters of diffusion in the words of options."""

import pytest

from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.errors import UserError, translated


def refuse():
    raise ParameterError("max_dgs", "must lie in (0, 1]", 3)


def test_an_error_without_options_names_the_parameter():
    with pytest.raises(ValueError, match=r"^max_dgs must lie in \(0, 1\], not 3$"):
        refuse()


def test_a_parameter_is_called_as_the_option_of_its_name():
    message = r"^--max-dgs must lie in \(0, 1\], not 3$"
    with pytest.raises(UserError, match=message), translated():
        refuse()


def test_a_parameter_can_have_another_name():
    message = r"^the threshold must lie in \(0, 1\], not 3$"
    with (
        pytest.raises(UserError, match=message),
        translated(max_dgs="the threshold", sigma="--deviation"),
    ):
        refuse()


def test_it_decorates_functions():
    decorated = translated()(refuse)
    for _ in range(2):
        with pytest.raises(UserError, match="^--max-dgs"):
            decorated()
    assert translated()(lambda x: x + 1)(1) == 2


def test_other_errors_pass():
    with pytest.raises(KeyError), translated():
        raise KeyError


def test_the_text_is_one_line_whatever_a_user_gave():
    assert str(UserError("no such option as a\nb\u2028c: omit it")) == (
        "no such option as a b c: omit it"
    )
