"""All options of this package, for tests."""

from pytest_tokenbudget.registry import option_groups
from pytest_tokenbudget.settings.option_fields import options_of

OPTIONS = tuple(option for group in option_groups() for option in options_of(group))
NAMES = tuple(option.name for option in OPTIONS)
