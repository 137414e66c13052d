"""Settings of a run: where they come from, and every option read from wherever it was set.

pytest fixes its rootdir before the options of plugins are known: in ``--reports ../artifacts`` it
takes an existing ``../artifacts`` for a test path. Its rootdir and its ini file may then be those
of another directory. So settings are looked for from the invocation directory upwards, and once it
is known which arguments are tests, the choice of pytest is made again.

A value comes from the command line, else from the file of ``--generation-config``, else from the
ini or TOML file of pytest (``tokenbudget_NAME``), else from ``tokenbudget.toml`` or
``[tool.tokenbudget]`` (``NAME``), else from the default of the option.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pytest_tokenbudget.settings.config_file import (
    ConfigError,
    UserConfig,
    budgets_of_entries,
    read_config,
)
from pytest_tokenbudget.settings.endpoints import shown_address
from pytest_tokenbudget.settings.generation_config import GenerationConfig, read_generation_config
from pytest_tokenbudget.settings.locations import has_settings, upwards
from pytest_tokenbudget.settings.option_fields import Option, options_of
from pytest_tokenbudget.settings.option_flags import GROUPS, first_name, session_options
from pytest_tokenbudget.settings.option_values import STAGES, toml_text
from pytest_tokenbudget.settings.options import DEFAULT_THINKING_BUDGETS, Settings


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
    notes = tuple(
        f"settings come from {user.where}; {other.where} is not used. Settings are looked for from "
        "the directory where pytest is started upwards"
        for other in list(files.values())[1:]
    )
    return Project(root, user, inipath, ini if moved else None, notes)


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


GENERATION_CONFIG = "generation_config"
# Budgets of which the file's limits are the largest.
LIMITED = ("budgets", "sample_budgets")


def _from_ini(config: pytest.Config, project: Project, option: Option) -> str | None:
    if project.ini is not None:
        names = (option.ini, *(f"tokenbudget_{name}" for name in option.former))
        value = next((found for name in names if (found := project.ini.get(name))), "")
    else:
        try:
            value = config.getini(option.ini)
        except (TypeError, ValueError, pytest.UsageError) as error:
            raise pytest.UsageError(_not_text(project, option, str(error))) from None
    if not isinstance(value, str):
        raise pytest.UsageError(_not_text(project, option, f"{value!r} is not text"))
    return value or None


def _not_text(project: Project, option: Option, problem: str) -> str:
    return (
        f"{option.ini} in {project.inipath}: {problem}; allowed: text in quotes, "
        f'for example {option.ini} = "{option.default or "..."}"'
    )


def _ini_base(config: pytest.Config, project: Project, option: Option) -> Path:
    """The directory that a path in pytest's ini file, or in ``-o``, starts from."""
    overridden = any(
        each.startswith(f"{option.ini}=") for each in config.getoption("override_ini") or ()
    )
    if overridden or project.inipath is None:
        return config.invocation_params.dir
    return project.inipath.parent


def _key_in_file(user: UserConfig, option: Option) -> str | None:
    """The key that sets an option in a settings file: its name or a former one."""
    keys = [name for name in (option.name, *option.former) if name in user.options]
    if len(keys) > 1:
        raise pytest.UsageError(f"{user.where}: {' and '.join(keys)} are one setting: keep one")
    return keys[0] if keys else None


def read_settings(config: pytest.Config, project: Project) -> Settings:
    """Parse every option from wherever it was set.

    Raises:
        pytest.UsageError: Naming the option, the value, what is allowed and the nearest match.
    """
    values: dict[str, Any] = {}  # by option
    explicit: set[str] = set()
    given: GenerationConfig | None = None
    # This one first: what its file says stands above settings files.
    for option in sorted(
        session_options(config), key=lambda option: option.name != GENERATION_CONFIG
    ):
        origin, base = first_name(config, option), config.invocation_params.dir
        raw = config.getoption(option.ini)
        text = ",".join(raw) if isinstance(raw, list) else raw
        if text is None and given is not None and option.name in given.options:
            text, place_in_file = given.options[option.name]
            origin = f"{given.path}: {place_in_file}"
        if text is None:
            origin = f"{option.ini} in {project.inipath}"
            base = _ini_base(config, project, option)
            text = _from_ini(config, project, option)
        user, key = project.user, _key_in_file(project.user, option)
        if text is None and user.path is not None and key is not None:
            origin, base = f"{key} in {user.where}", user.path.parent
            text = toml_text(user.options[key])
        if text is None:
            text, base = option.default, project.root
        else:
            explicit.add(option.name)
            if not text.strip():
                raise pytest.UsageError(f"{origin}: a value is missing. {option.help}")
        try:
            value = option.value(text)
        except ValueError as error:
            # What may be a key in an address is not shown.
            shown = shown_address(text)
            raise pytest.UsageError(f"{origin}: {shown!r} cannot be used; {error}") from None
        place = _named if option.file else _placed
        values[option.name] = place(base, value)
        if option.name == GENERATION_CONFIG and value is not None:
            given = values[option.name] = _generation_config(base / value.path, origin)
    if given is not None and given.largest is not None:
        for name in LIMITED:
            if config.getoption(f"tokenbudget_{name}") is None:
                values[name] = given.budgets(values[name])
                explicit.add(name)
    _settle(values, budgets_of_entries(project.user.models))
    filled = {
        group: {option.field: values[option.name] for option in options_of(group)}
        for group in config.stash[GROUPS]
    }
    own = filled.pop(Settings)
    evals = {group: group(**fields) for group, fields in filled.items()}
    return Settings(**own, explicit=frozenset(explicit), evals=evals)


def _generation_config(path: Path, origin: str) -> GenerationConfig:
    try:
        return read_generation_config(path)
    except ConfigError as error:
        raise pytest.UsageError(f"{origin}: {error}") from None


def _placed(base: Path, value: object) -> object:
    """A relative path stands where it was written: on the command line, or in a file."""
    if isinstance(value, tuple):
        return tuple(_placed(base, item) for item in value)
    return base / value if isinstance(value, Path) else value


def _named(base: Path, value: object) -> object:
    """The same for names that may be paths, such as ``gsm8k=PATH.jsonl``."""
    here = Path.cwd()
    if isinstance(value, tuple):
        return tuple(_named(base, item) for item in value)
    if not isinstance(value, str) or base == here:
        return value
    head, equals, tail = value.rpartition("=")
    if os.path.isabs(tail) or not re.search(r"[/\\]|\.\w+$", tail) or not (base / tail).exists():
        return value
    path = os.path.relpath(base / tail, here)
    return head + equals + (path if path.startswith(os.pardir) else os.path.join(os.curdir, path))


def refuse_budget(
    option: str, threshold: object, budgets: Collection[int], others: Collection[int]
) -> None:
    """Refuse a threshold of an option at a budget that no eval of this run has.

    Evals look at the budgets of ``--budgets`` and at others.

    Raises:
        pytest.UsageError: With the nearest budget.
    """
    budget = int(str(threshold).partition(":")[0]) if ":" in str(threshold) else None
    if budget is None or budget in {*budgets, *others} - {0}:
        return
    raise pytest.UsageError(
        f"{option}: {str(threshold)!r} names budget {budget}, which is not among --budgets "
        f"{','.join(map(str, budgets))}, and no selected test looks at it; the nearest is "
        f"{min(budgets, key=lambda b: abs(b - budget))}"
    )


def _settle(values: dict[str, Any], model_budgets: Collection[int]) -> None:
    """Check values that depend on each other, and fill in those that others decide."""
    for name in ("min_accuracy", "max_truncation"):
        for threshold in values[name]:
            # Which evals are selected is not known yet, and each has budgets of its own.
            thinking = values["thinking_budgets"] or DEFAULT_THINKING_BUDGETS
            others = {*values["cliff_budgets"], *thinking, *model_budgets}
            refuse_budget(f"--{name.replace('_', '-')}", threshold, values["budgets"], others)
    if len(values["cliff_budgets"]) < 2:
        raise pytest.UsageError(
            f"--cliff-budgets: {values['cliff_budgets'][0]} alone has no step; allowed: at least 2"
        )
    values["num_samples"] = values["num_samples"] or STAGES[values["stage"]]
    values["trace_store"] = values["trace_store"] or values["reports"] / "traces.sqlite"
    if values["trace_store"].is_dir():
        raise pytest.UsageError(
            f"--trace-store: {values['trace_store']} is a directory; allowed: a file, for example "
            f"{values['trace_store'] / 'traces.sqlite'}"
        )
    values["storage"] = values["storage"] or values["reports"] / "baselines"
