"""The project that a session belongs to: where its settings come from, and where its files go.

pytest fixes its rootdir before the options of plugins are known: in ``--reports ../artifacts`` it
takes an existing ``../artifacts`` for a test path. Its rootdir and its ini file may then be those
of another directory. So settings are looked for from the invocation directory upwards, and once it
is known which arguments are tests, pytest's choice is made again.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from pytest_tokenbudget.settings.config_file import UserConfig, read_config
from pytest_tokenbudget.settings.locations import has_settings, upwards
from pytest_tokenbudget.settings.option_flags import session_options


@dataclass(frozen=True)
class Project:
    """Where the settings of a session come from.

    Attributes:
        root: The directory that default paths start from.
        user: The settings file.
        inipath: pytest's own ini file, None without one.
        ini: Its values, where pytest itself reads another file; else None.
        notes: Which settings files are not used, in sentences.
    """

    root: Path
    user: UserConfig
    inipath: Path | None
    ini: Mapping[str, object] | None = None
    notes: tuple[str, ...] = ()


def find_project(config: pytest.Config) -> Project:
    """Find the settings of a session.

    Raises:
        ConfigError: If a settings file cannot be used.
        pytest.UsageError: If pytest reads another ini file than that of the tests, and options in
            one of the two would be lost or come from another project.
    """
    here = config.invocation_params.dir
    root, inipath, ini = _setup_of_tests(config)
    moved = (root, inipath) != (config.rootpath, config.inipath)
    if moved:
        _refuse_options_in_ini(config, inipath, ini)
    keys = {key for option in session_options(config) for key in (option.name, *option.former)}
    near = _nearest(here, root, keys)
    tests = [Path(os.path.abspath(here / name.split("::")[0])) for name in _tests(config)]
    found = [near, *(_nearest(path, root, keys) for path in tests if path.exists())]
    found += [_read(directory, keys) for directory in (root, config.rootpath)]
    files = {user.path: user for user in found if user is not None}
    user = next(iter(files.values()), UserConfig())
    # Where pytest has no file that fixes its rootdir, the settings file fixes the project's.
    fixed = inipath is not None or bool(config.option.rootdir)
    if near is not None and near.path and not (fixed and root in (here, *here.parents)):
        root = near.path.parent
    return Project(
        root, user, inipath, ini if moved else None, tuple(_notes(user, list(files.values())[1:]))
    )


def _notes(used: UserConfig, others: list[UserConfig]) -> Iterator[str]:
    for other in others:
        yield (
            f"settings come from {used.where}; {other.where} is not used. Settings are looked for "
            "from the directory where pytest is started upwards"
        )


def _nearest(start: Path, root: Path, keys: Collection[str]) -> UserConfig | None:
    """The settings file in a directory or nearest above it, None where there is none."""
    found = (_read(directory, keys) for directory in upwards(start, root))
    return next((user for user in found if user is not None), None)


def _read(directory: Path, keys: Collection[str]) -> UserConfig | None:
    if not has_settings(directory):
        return None
    user = read_config(directory, keys)
    return None if user.path is None else user


def _tests(config: pytest.Config) -> list[str]:
    """The tests that were named on the command line."""
    return config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []


def _setup_of_tests(config: pytest.Config) -> tuple[Path, Path | None, dict[str, object]]:
    """The rootdir, ini file and ini values that pytest chooses for the tests that were named."""
    # pytest has no public way to ask; where its own name changes, its first choice stands.
    try:
        from _pytest.config.findpaths import determine_setup

        root, inipath, values, *_ = determine_setup(
            inifile=config.option.inifilename,
            override_ini=config.option.override_ini,
            args=_tests(config),
            rootdir_cmd_arg=config.option.rootdir or None,
            invocation_dir=config.invocation_params.dir,
        )
        return root, inipath, {name: value.value for name, value in values.items()}
    except (ImportError, TypeError, AttributeError):
        return config.rootpath, config.inipath, {}


def _refuse_options_in_ini(
    config: pytest.Config, inipath: Path | None, ini: Mapping[str, object]
) -> None:
    """Refuse options in ``addopts``, which pytest reads itself, if it reads the wrong file."""
    flags = {flag for option in session_options(config) for flag in (*option.flags, option.long)}
    ours = _options_in(ini.get("addopts"), flags)
    theirs = _options_in(config.getini("addopts"), flags)
    if not ours and not theirs:
        return
    given = config.invocation_params.args
    values = [
        (flag, value)
        for flag, value in pairwise(given)
        if flag in flags and (config.invocation_params.dir / value).exists()
    ]
    cause = f"the value of {values[0][0]}" if values else "the value of an option"
    remedy = "=".join(values[0]) if values else "OPTION=VALUE, with an equals sign"
    lost = (
        f"the addopts in {inipath} would be lost: {' '.join(ours)}"
        if ours
        else f"the addopts in {config.inipath} would apply: {' '.join(theirs)}"
    )
    raise pytest.UsageError(
        f"pytest takes {cause} for a test path and reads its settings from there, so that {lost}; "
        f"write {remedy}"
    )


def _options_in(addopts: object, flags: Collection[str]) -> list[str]:
    words = shlex.split(addopts) if isinstance(addopts, str) else addopts
    if not isinstance(words, list):
        return []
    return [str(word) for word in words if str(word).partition("=")[0] in flags]
