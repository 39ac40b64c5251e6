"""Commands of earlier versions answer with one line that says what replaced them."""

import pytest

from deixis.cli.commands import COMMANDS, REMOVED
from deixis.cli.main import run
from deixis.errors import OptionError


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["detect", "new", "--output", "x"], "scripts/build_builtin"),
        (["refer", "new"], "scripts/build_builtin"),
        (["refer", "memory", "--steps", "3"], "--sam-model"),
    ],
)
def test_a_removed_command_names_what_replaced_it(words, instead):
    with pytest.raises(OptionError, match=f"'deixis {words[0]} {words[1]}' was removed: .*{instead}"):
        run(words)


def test_no_command_is_both_there_and_removed():
    assert not set(REMOVED) & set(COMMANDS)
