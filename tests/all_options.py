"""All options of this package, for tests."""

from pytest_tokenbudget.settings.option_fields import options_of
from pytest_tokenbudget.settings.options import Settings

OPTIONS = options_of(Settings)
NAMES = tuple(option.name for option in OPTIONS)
