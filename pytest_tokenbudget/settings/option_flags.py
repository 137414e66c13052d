"""Names of the options on the command line: a long one, and short ones where they are free.

Other plugins and conftest.py files have options such as ``--model`` or ``--base-url`` too, and may
register them before or after this plugin. So only the long names are registered like other options.
The short ones that are free join them when all others are registered, right before pytest parses
the command line, and leave the parser after that: a conftest.py below may still register its own.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_tokenbudget.settings.option_fields import Option, options_of

# The dataclasses whose fields are the options of this session.
GROUPS = pytest.StashKey[tuple[type, ...]]()
# Short names that belong to somebody else in this session, and the long names in their place.
TAKEN = pytest.StashKey[dict[str, str]]()
# Those of them that are on the command line.
GIVEN = pytest.StashKey[tuple[str, ...]]()


def session_options(config: pytest.Config) -> tuple[Option, ...]:
    return tuple(option for group in config.stash[GROUPS] for option in options_of(group))


def add_options(
    parser: pytest.Parser, manager: pytest.PytestPluginManager, groups: tuple[type, ...]
) -> None:
    """Register every option by its long name, and as an ini setting."""
    config = manager.get_plugin("pytestconfig")
    assert isinstance(config, pytest.Config)
    config.stash[GROUPS] = groups
    group = parser.getgroup("tokenbudget", "what token limits cost and buy")
    for option in session_options(config):
        extra: dict[str, Any] = {"dest": option.ini, "default": None, "help": option.help}
        if option.switch:
            extra.update(action="store_const", const="on")
        elif option.many:
            extra.update(action="append", metavar=option.name.upper())
        else:
            extra["metavar"] = option.name.upper()
        group.addoption(option.long, **extra)
        former = [f"tokenbudget_{name}" for name in option.former]
        parser.addini(option.ini, option.help, type="string", default="", aliases=former)
    if any(name.endswith("conftest.py") for name, _ in manager.list_name_plugin()):
        # A conftest.py loads this plugin: `load_conftests` does not run any more.
        _add_short_names(config, parser)


def load_conftests(
    config: pytest.Config, parser: pytest.Parser, args: Sequence[str]
) -> Iterator[None]:
    """Give the options their short names, as far as nobody else has registered them.

    The initial conftest.py files are loaded while it yields.
    """
    _add_short_names(config, parser)
    _parse_again(config, parser, args)
    remove_short_names(config, parser)
    yield
    taken = _add_short_names(config, parser)
    config.stash[TAKEN] = taken
    config.stash[GIVEN] = tuple(
        flag for flag in taken if any(arg.partition("=")[0] == flag for arg in args)
    )


def _parse_again(config: pytest.Config, parser: pytest.Parser, args: Sequence[str]) -> None:
    """Let pytest look for conftest.py files beside tests only, not beside values of options."""
    known = config.known_args_namespace
    try:
        again = parser.parse_known_args(args, namespace=copy.copy(config.option))
    except pytest.UsageError:
        return  # The name may be that of a conftest.py file, whose option has other values.
    again.confcutdir = known.confcutdir
    config.known_args_namespace = again


# pytest has no public way to ask which options there are, or to give an option another name.


def _actions(parser: pytest.Parser) -> dict[str, Any]:
    actions: dict[str, Any] = parser.optparser._option_string_actions
    return actions


def _add_short_names(config: pytest.Config, parser: pytest.Parser) -> dict[str, str]:
    """Add the short names that are free; the others, with the long names in their place."""
    actions = _actions(parser)
    destinations = getattr(parser, "_opt2dest", None)
    if destinations is None:  # before pytest 9.1
        destinations = config._opt2dest  # type: ignore[attr-defined]
    taken = {}
    for option in session_options(config):
        action = actions[option.long]
        for flag in option.short:
            if flag in actions and actions[flag] is not action:
                taken[flag] = option.long
                continue
            actions[flag] = action
            destinations[flag] = option.ini
        free = [flag for flag in option.short if flag not in taken]
        action.option_strings = [*free, option.long]
    return taken


def remove_short_names(config: pytest.Config, parser: pytest.Parser) -> None:
    """Leave the short names to whoever registers them from now on."""
    actions = _actions(parser)
    for option in session_options(config):
        action = actions[option.long]
        for flag in option.short:
            if actions.get(flag) is action:
                del actions[flag]
        action.option_strings = [option.long]


def parsed(config: pytest.Config) -> None:
    """Note that pytest has parsed the command line."""
    if not config.option.help:
        remove_short_names(config, config._parser)


# What people read names options by a name that works


def working_names(config: pytest.Config, text: str) -> str:
    """A message as people see it: printable, on one line, with option names that work.

    Long names stand in the place of short ones that somebody else has.
    """
    from pytest_tokenbudget.common.outside_text import LONGEST_MESSAGE, printable

    text = printable(text, LONGEST_MESSAGE)
    taken = config.stash.get(TAKEN, {})
    if not taken:
        return text
    names = "|".join(sorted(taken, key=len, reverse=True))
    return re.sub(rf"(?<![\w-])(?:{names})(?![\w-])", lambda found: taken[found[0]], text)


@contextmanager
def named_in_errors(config: pytest.Config) -> Iterator[None]:
    """Let usage errors name options by names that work in this session."""
    try:
        yield
    except pytest.UsageError as error:
        raise pytest.UsageError(
            *(working_names(config, str(part)) for part in error.args)
        ) from None


class NamingTerminal:
    """A terminal reporter that writes lines as people see them, see :func:`working_names`."""

    def __init__(self, terminal: pytest.TerminalReporter, config: pytest.Config) -> None:
        self._terminal, self._config = terminal, config

    def write_line(self, line: str, **markup: bool) -> None:
        from pytest_tokenbudget.common.outside_text import without_commands

        self._terminal.write_line(without_commands(working_names(self._config, line)), **markup)

    def write_note(self, note: str, **markup: bool) -> None:
        """Write a note as it is: it may be about a name that belongs to somebody else."""
        from pytest_tokenbudget.common.outside_text import printable

        self._terminal.write_line(f"tokenbudget: {printable(note)}", **markup)

    def write_command(self, line: str) -> None:
        """Write a workflow command, which is escaped already."""
        self._terminal.write_line(line)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._terminal, name)


def given_to_others(config: pytest.Config) -> list[str]:
    """What is to be known of short names on the command line that belong to somebody else."""
    taken = config.stash.get(TAKEN, {})
    return [
        f"{flag} is an option of another plugin or a conftest.py in this session, so tokenbudget "
        f"does not read it: use {taken[flag]}"
        for flag in config.stash.get(GIVEN, ())
    ]


def first_name(config: pytest.Config, option: Option) -> str:
    """The name of an option for messages: its first one, unless somebody else has it."""
    return config.stash.get(TAKEN, {}).get(option.flags[0], option.flags[0])
