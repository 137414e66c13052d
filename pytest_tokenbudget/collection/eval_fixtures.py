"""Which tests are evals, and which of the plugin's fixtures a test can ask for.

Any project may have fixtures called ``model``, ``task`` or ``errors``. So the plugin's fixtures
exist for evals only: to every other test, each of them is a fixture that nobody defined. A test is
an eval if it has one of the plugin's markers, or asks for a distinctive fixture that nobody
else defines, directly or through fixtures of its own.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
pytest computes which fixtures a test uses before any hook runs, so this module completes what it
computed. The fixtures are registered at a node of their own, when the first eval is collected.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.common.package_files import suite

if TYPE_CHECKING:
    from _pytest.fixtures import FixtureManager, FuncFixtureInfo

    Definitions = Sequence[pytest.FixtureDef[Any]]

# Options that set the values of fixtures that are no parameters.
OPTIONS: Final = {"model": "--model", "task": "--task"}
SCOPES: Final = ("session", "package", "module", "class", "function")


@pytest.fixture
def _example() -> None: ...


# pytest has no public name for what its decorator makes.
_DEFINITION: Final = type(_example)


class FixtureNode(pytest.Collector):
    """The node that the fixtures are registered at; it has no tests."""

    def collect(self) -> Iterator[pytest.Item]:
        return iter(())


FIXTURES = pytest.StashKey[Mapping[str, pytest.FixtureDef[Any]]]()


def is_eval(node: pytest.Item) -> bool:
    """Whether a test, or the definition that tests are generated from, is an eval."""
    info = _info(node)
    if info is None:
        return False
    asked = registry.distinctive().intersection(info.names_closure)
    if asked and any(
        _means_plugin(name, info.name2fixturedefs.get(name, ()))
        for name in asked.difference(_parametrized(node))
    ):
        return True
    return any(marker.name in registry.eval_markers() for marker in node.iter_markers())


def uses(node: pytest.Item, name: str) -> bool:
    """Whether a test uses the plugin's fixture of that name, and not somebody else's."""
    info = _info(node)
    if info is None or name not in info.names_closure:
        return False
    definitions = info.name2fixturedefs.get(name)
    return definitions is not None and len(definitions) > 0 and is_own(definitions[-1])


def uses_any(node: pytest.Item) -> bool:
    info = _info(node)
    return info is not None and any(uses(node, name) for name in info.names_closure)


def used_fixtures(node: pytest.Item) -> list[str]:
    info = _info(node)
    return [] if info is None else [name for name in info.names_closure if uses(node, name)]


def is_own(definition: pytest.FixtureDef[Any]) -> bool:
    return getattr(definition.func, "__module__", "") in registry.fixture_modules()


def adopt(node: pytest.Item) -> None:
    """Give an eval the plugin's fixtures that it asks for, and those that they ask for.

    Other tests, and definitions that tests are generated from, stay as they are.
    """
    if not is_eval(node):
        return
    info = _info(node)
    assert info is not None
    parametrized = _parametrized(node)
    known: dict[str, Definitions] = {}

    def definitions(name: str) -> Definitions:
        if name not in known:
            known[name] = () if name in parametrized else _definitions(name, node)
        return known[name]

    closure: dict[str, None] = {}
    _close(info.initialnames, definitions, closure, {})
    _define({name: found for name, found in known.items() if found}, node, info)
    info.names_closure[:] = sorted(
        closure,
        key=lambda name: SCOPES.index(known[name][-1].scope if known.get(name) else "function"),
    )


def complete(item: pytest.Item) -> None:
    """Let an eval that is about to run also ask for the plugin's fixtures by getfixturevalue."""
    if not is_eval(item):
        return
    info = _info(item)
    assert info is not None
    missing = _fixtures(item.session).keys() - info.name2fixturedefs.keys()
    _define({name: _definitions(name, item) for name in missing}, item, info)


def offer(session: pytest.Session) -> None:
    """Let every test ask for what has a distinctive name by getfixturevalue, and list it.

    Fixtures of these names that others define stay what they are.
    """
    manager = _manager(session)
    names = registry.distinctive()
    _parse(session, session, {n for n in names if manager.getfixturedefs(n, session) is None})


def refuse_replaced(item: pytest.Item) -> None:
    """Fail an eval in which a fixture of the plugin is built on one that somebody replaced."""
    if reason := replaced(item):
        raise pytest.fail.Exception(reason, pytrace=False)


def replaced(item: pytest.Item) -> str:
    """Why an eval cannot run as somebody replaced a fixture of the plugin; empty if it can.

    What the plugin reports, judges and draws comes from its own fixtures, also in the process
    that runs no test. A fixture that replaced one of them would change only a part of it.
    """
    info = _info(item)
    if info is None or not is_eval(item):
        return ""
    defined, own = info.name2fixturedefs, _fixtures(item.session)
    for name in info.names_closure:
        found = defined.get(name)
        if found and is_own(found[-1]):
            gated = [other for one in registry.declarations() for other in one.gated]
            also = gated if name in registry.gates_fixtures() else []
            judged = [other for other in also if other in info.names_closure]
            for other in (*found[-1].argnames, *judged):
                if other in own and not _is_last(own[other], defined.get(other)):
                    return _refusal(other, f"Its fixture {name!r}", defined.get(other), item)
    if item.path.parent == suite():
        for name in info.argnames:
            if name in own and defined.get(name) and not _is_last(own[name], defined[name]):
                return _refusal(name, "This eval", defined[name], item)
    return ""


def explain_missing(call: pytest.CallInfo[Any], report: pytest.TestReport) -> None:
    """Add to pytest's message on a missing fixture how a test gets the plugin's of that name."""
    error = call.excinfo.value if call.excinfo is not None else None
    if not isinstance(error, pytest.FixtureLookupError):
        return
    shown: Any = report.longrepr
    if not hasattr(shown, "errorstring") or error.argname not in fixture_names():
        return
    if error.request is not None and is_eval(error.request.node):
        return
    shown.errorstring += (
        f"\n pytest-tokenbudget has a fixture '{error.argname}', for evals only. If this test is "
        "an eval, mark it with @pytest.mark.tokenbudget."
    )


def fixture_names() -> frozenset[str]:
    return frozenset(name for module in _modules() for name in _names_in(module))


def _info(node: pytest.Item) -> FuncFixtureInfo | None:
    # pytest has no public way to ask which fixtures a test uses, or whose they are.
    return getattr(node, "_fixtureinfo", None)


def _manager(session: pytest.Session) -> FixtureManager:
    return session._fixturemanager


def _define(found: Mapping[str, Definitions], node: pytest.Item, info: FuncFixtureInfo) -> None:
    info.name2fixturedefs.update(found)
    # A test of pytest 9.0 has a copy.
    if (request := getattr(node, "_request", None)) is not None:
        request._arg2fixturedefs.update(found)


def _means_plugin(name: str, definitions: Definitions) -> bool:
    """Whether asking for a name leads to the plugin's fixture, which may not be there yet."""
    for definition in reversed(definitions):
        if is_own(definition):
            return True
        if name not in definition.argnames:
            return False
    return True


def _is_last(own: pytest.FixtureDef[Any], definitions: Definitions | None) -> bool:
    return definitions is not None and len(definitions) > 0 and definitions[-1] is own


def _parametrized(node: pytest.Item) -> set[str]:
    """Arguments that marks give values to, so that no fixture is asked."""
    found: set[str] = set()
    for mark in node.iter_markers("parametrize"):
        given = dict(zip(("argnames", "argvalues", "indirect"), mark.args, strict=False))
        given.update(mark.kwargs)
        names, indirect = given.get("argnames", ()), given.get("indirect", False)
        if isinstance(names, str):
            names = [name.strip() for name in names.split(",")]
        if indirect is not True:
            found.update(set(names) - set(indirect or ()))
    return found


def _definitions(name: str, node: pytest.Item) -> Definitions:
    """All fixtures of a name that an eval can see, the one that it gets last.

    The plugin's stands above those of other installed plugins, and below those of the project.
    """
    visible = list(_manager(node.session).getfixturedefs(name, node) or ())
    own = _fixtures(node.session).get(name)
    if own is not None and own not in visible:
        packages = _plugin_packages(node.config)
        others = [d for d in visible if d.func.__module__.split(".")[0] in packages]
        visible = [*others, own, *(d for d in visible if d not in others)]
    return tuple(visible)


def _plugin_packages(config: pytest.Config) -> set[str]:
    plugins = [plugin for plugin, _ in config.pluginmanager.list_plugin_distinfo()]
    return {getattr(plugin, "__name__", "").split(".")[0] for plugin in plugins} - {""}


def _close(
    names: Sequence[str],
    definitions: Callable[[str], Definitions],
    closure: dict[str, None],
    levels: Mapping[str, int],
) -> None:
    """Collect what names ask for. A fixture that asks for its own name means the one below it."""
    for name in names:
        level = levels.get(name, 0)
        if name in closure and not level:
            continue
        closure.setdefault(name)
        found = definitions(name)
        if level < len(found):
            asked = found[-1 - level].argnames
            _close(asked, definitions, closure, {**levels, name: level + 1})


def _modules() -> list[types.ModuleType]:
    return [importlib.import_module(name) for name in registry.fixture_modules()]


def _names_in(module: types.ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, _DEFINITION)]


def _fixtures(session: pytest.Session) -> Mapping[str, pytest.FixtureDef[Any]]:
    """The plugin's fixtures by name, registered on first use."""
    if FIXTURES not in session.config.stash:
        names, manager = fixture_names(), _manager(session)
        node: FixtureNode = FixtureNode.from_parent(
            session, name="tokenbudget", nodeid="::tokenbudget::"
        )
        _parse(session, node, names)
        session.config.stash[FIXTURES] = {
            name: next(d for d in manager.getfixturedefs(name, node) or () if is_own(d))
            for name in names
        }
    return session.config.stash[FIXTURES]


def _parse(session: pytest.Session, node: pytest.Collector, names: Set[str]) -> None:
    """Register fixtures of the plugin for the tests below a node."""
    parse: Any = _manager(session).parsefactories
    for module in _modules():
        holder = types.ModuleType(module.__name__)
        vars(holder).update({n: vars(module)[n] for n in _names_in(module) if n in names})
        if "holder" in inspect.signature(parse).parameters:
            parse(holder=holder, node=node)
        else:
            parse(holder, node.nodeid)  # pytest 9.0


def _refusal(name: str, user: str, definitions: Definitions | None, item: pytest.Item) -> str:
    definition = definitions[-1] if definitions else None
    where = "a parametrisation"
    if definition is not None and definition.func.__module__ != "_pytest.python":
        code = inspect.unwrap(definition.func).__code__
        path, root = Path(code.co_filename), item.config.rootpath
        path = path.relative_to(root) if path.is_relative_to(root) else path
        where = f"the fixture in {path}:{code.co_firstlineno}"
    parameter = registry.parameters().get(name)
    option = parameter.option if parameter is not None else OPTIONS.get(name)
    if not option:
        way = f"To measure something else, write a fixture of another name that asks for {name!r}."
    else:
        key = option.removeprefix("--").replace("-", "_")
        way = f"Set it with {option}, or as the setting {key} in tokenbudget.toml."
    return (
        f"{where} replaces {name!r} of pytest-tokenbudget. {user} needs the plugin's own, or the "
        f"results would belong to another {name}. {way} If {where} is not for evals, rename it or "
        "move it to where they do not see it; the shipped evals also run with --noconftest."
    )


def evals_named(config: pytest.Config) -> bool:
    """Whether the command selects evals: by a marker, or by a page's module or path."""
    expression = str(config.getoption("markexpr", default="") or "")
    if any(re.search(rf"\b{name}\b", expression) for name in registry.eval_markers()):
        return True
    homes = {"pytest_tokenbudget.evals": suite(), **registry.registered().homes}
    for argument in config.args:
        name = argument.split("::")[0]
        path = config.invocation_params.dir / name
        for module, folder in homes.items():
            if f"{name}.".startswith(f"{module}."):
                return True
            if path.exists() and path.resolve().is_relative_to(folder.resolve()):
                return True
    return False
