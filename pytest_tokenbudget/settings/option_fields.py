"""How an option is declared: as a typed field of a dataclass, once, with all that belongs to it.

The options of a session are the fields of :class:`~pytest_tokenbudget.settings.options.Settings`
and those of the dataclasses that evals declare.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from typing import Any, TypeVar

from pytest_tokenbudget.settings.option_values import onoff

PREFIX = "--tokenbudget-"
_KEY = "tokenbudget"

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Option:
    """An option, as :func:`option` declares it.

    Attributes:
        flags: Command-line flags; the first one is used in messages, unless somebody else has it.
        parse: Makes a value from text; its ValueError says what is allowed.
        default: Text that is parsed where nobody set anything; empty for None, or for no values.
        meaning: One sentence in Markdown, for ``--help`` and the guide.
        details: Further ones for the guide.
        many: Whether it may be given several times or with commas.
        switch: Whether its flags take no value.
        former: Names that it had in settings files.
        model: Whether a model's entry may set it, for that model.
        file: Whether a name may be that of a file, which stands beside the settings file.
        name: Key in ``tokenbudget.toml``; the ini name is ``tokenbudget_`` and this.
        field: Name of the field that its value is in.
    """

    flags: tuple[str, ...]
    parse: Callable[[str], Any]
    default: str
    meaning: str
    details: str
    many: bool
    switch: bool
    former: tuple[str, ...]
    model: bool
    file: bool
    name: str
    field: str = ""

    @property
    def ini(self) -> str:
        return f"tokenbudget_{self.name}"

    @property
    def help(self) -> str:
        return self.meaning.replace("`", "")

    @property
    def long(self) -> str:
        """The flag that no other plugin has."""
        return PREFIX + self.flags[0].removeprefix(PREFIX).removeprefix("--")

    @property
    def short(self) -> tuple[str, ...]:
        """Flags that another plugin or a conftest.py may have too."""
        return tuple(flag for flag in self.flags if flag != self.long)

    def value(self, text: str) -> Any:  # noqa: ANN401
        """The value that a text means, which is empty where nobody set anything.

        Raises:
            ValueError: With what is allowed.
        """
        if text:
            return self.parse(text)
        return () if self.many else None


def option(
    flags: str,
    parse: Callable[[str], T],
    meaning: str,
    details: str = "",
    *,
    default: str = "",
    many: bool = False,
    switch: bool = False,
    former: tuple[str, ...] = (),
    model: bool = False,
    file: bool = False,
    name: str = "",
) -> T:
    """A field of a dataclass that holds the value of an option, see :class:`Option`.

    Flags are separated by spaces. A name is needed where it is not that of the field.
    """
    names = tuple(flags.split())
    found: T = field(
        metadata={
            _KEY: Option(
                names, parse, default, meaning, details, many, switch, former, model, file, name
            )
        }
    )
    return found


several = partial(option, many=True)
"""A field for an option that may be given several times or with commas."""


def switch(flags: str, meaning: str, details: str = "") -> bool:
    """A field for an option that is off unless it is given."""
    return option(flags, onoff, meaning, details, default="off", switch=True)


@cache
def options_of(group: type) -> tuple[Option, ...]:
    """The options that a dataclass declares, in their order."""
    return tuple(
        replace(declared, field=each.name, name=declared.name or each.name)
        for each in fields(group)
        if (declared := each.metadata.get(_KEY))
    )


def option_names(group: type) -> set[str]:
    """The flags of the options that a dataclass declares, and their names in pytest's files."""
    return {name for each in options_of(group) for name in (*each.flags, each.long, each.ini)}
