"""Settings of a model's own: ``[models.NAME.generation]`` in its entry.

They stand below the command line and every settings file, and above the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_tokenbudget.common.messages import kind_of, nearest
from pytest_tokenbudget.models.files import ModelError
from pytest_tokenbudget.settings.config_file import GENERATION
from pytest_tokenbudget.settings.option_fields import Option, options_of
from pytest_tokenbudget.settings.option_values import toml_text
from pytest_tokenbudget.settings.options import Settings

if TYPE_CHECKING:
    from pytest_tokenbudget.models.spec import ModelSpec, OwnSettings

# Keys of the table, and the options that they set.
KEYS = {
    key: each for each in options_of(Settings) if each.model for key in (each.name, *each.former)
}


def read_own_settings(table: object, inherited: OwnSettings, where: str) -> OwnSettings:
    """The settings in a table of a model's entry.

    Args:
        table: The table.
        inherited: Those of the entry's base, which hold where the table has no other value.
        where: What messages call the entry.

    Returns:
        Names of settings with their parsed values.

    Raises:
        ModelError: If it is no table, or a key or value cannot be used.
    """
    if not isinstance(table, Mapping):
        raise ModelError(
            f"{where}: {GENERATION} must be a table, such as [models.NAME.{GENERATION}] with "
            f"budgets = [64, 128], not {kind_of(table)}"
        )
    found = dict(inherited)
    for key, value in table.items():
        if key not in KEYS:
            close = nearest(key, KEYS, count=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise ModelError(
                f"{where}: {GENERATION} has the unknown key {key!r}{hint}; "
                f"allowed are {', '.join(KEYS)}"
            )
        if same := [other for other in table if other != key and KEYS.get(other) == KEYS[key]]:
            raise ModelError(
                f"{where}: {GENERATION}: {key} and {same[0]} are one setting: keep one"
            )
        option = KEYS[key]
        try:
            if isinstance(value, list) and not option.many:
                option.parse("")  # No option can be empty: the error says what is allowed.
            parsed = option.parse(toml_text(value))
        except ValueError as error:
            raise ModelError(
                f"{where}: {GENERATION}.{key} {_wrong(value, option, error)}"
            ) from None
        if key == "cliff_budgets" and len(parsed) < 2:
            raise ModelError(f"{where}: {GENERATION}.{key}: {parsed[0]} alone has no step")
        found[option.name] = parsed
    return tuple(found.items())


def _wrong(value: object, option: Option, error: ValueError) -> str:
    """What of a value cannot be used, and what is allowed: of a list, the items that cannot."""
    if not option.many or not isinstance(value, list | str):
        return f"cannot be {kind_of(value)}; {error}"
    wrong = {}
    for item in value if isinstance(value, list) else value.split(","):
        try:
            option.parse(str(item))
        except ValueError as own:
            wrong[kind_of(item.strip() if isinstance(item, str) else item)] = own
    if not value or not wrong:
        return f"cannot be {'an empty array' if value == [] else kind_of(value)}; {error}"
    named, first = " and ".join(list(wrong)[:3]), next(iter(wrong.values()))
    return f"cannot {'hold' if isinstance(value, list) else 'be'} {named}; {first}"


def settings_of(settings: Settings, spec: ModelSpec) -> Settings:
    """The settings as they apply to one model: its own where the user chose nothing else."""
    own: dict[str, Any] = dict(spec.generation)
    own = {name: value for name, value in own.items() if name not in settings.explicit}
    if not own:
        return settings
    explicit = settings.explicit | own.keys()
    return replace(settings, **own, explicit=explicit, from_model_entry=tuple(own))
