"""Problems from JSON Lines: one object a line, read strictly.

A line has ``question`` and ``answer``, and may have ``id``, ``category``, ``messages`` and
``scorer``; other fields are left aside. An answer is a string or a number. Of a string with
``####`` what stands after the last one is the expected answer, and the whole is kept as the
reference solution.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from pytest_tokenbudget.common.extensions import SCORERS, ExtensionError
from pytest_tokenbudget.common.outside_files import (
    FileError,
    JsonError,
    decode,
    parse_json,
    read_bytes,
)
from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.tasks.base import TaskError
from pytest_tokenbudget.tasks.numbers import parse_number
from pytest_tokenbudget.tasks.problem import (
    NO_CATEGORY,
    SOLVE_INSTRUCTION,
    Message,
    Problem,
    content_id,
)
from pytest_tokenbudget.tasks.ruled import ANSWER, GivenTask, JudgingRule

ANSWER_INSTRUCTION = "Answer the question. End with #### and the answer."
ROLES = ("system", "developer", "user", "assistant", "tool")
_KINDS = {
    str: "a string",
    bool: "true or false",
    int: "a number",
    Decimal: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


@dataclass(frozen=True)
class JsonlLine:
    """One valid line of a file, whose number counts from 1.

    The solution is the answer as it stands in the file. What the line does not give is None; its
    scorer is a name in `SCORERS`.
    """

    line: int
    question: str
    answer: str
    solution: str
    id: str | None = None
    category: str | None = None
    messages: tuple[Message, ...] | None = None
    scorer: str | None = None


def read_rows(path: Path) -> list[JsonlLine]:
    """Read a JSON Lines file.

    Blank lines, a byte-order mark and Windows line ends are allowed.

    Raises:
        TaskError: If the file cannot be read or is empty, or a line is bad; it names the file,
            the line and what is missing.
    """
    try:
        content = read_bytes(path)
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            decode(path, content)
    except FileError as error:
        raise TaskError(str(error)) from None
    rows = []
    # Only "\n" ends a line: U+2028 and its like may stand inside a JSON string.
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if raw.strip():
            try:
                rows.append(_row(raw, number))
            except TaskError as error:
                raise TaskError(f"{path}, line {number}: {error}") from None
    if not rows:
        raise TaskError(
            f"{path}: there is no problem in it; each line is a JSON object with "
            '"question" and "answer"'
        )
    return rows


def _row(raw: bytes, number: int) -> JsonlLine:
    found = _parse(raw)
    for field in ("question", "answer"):
        if field not in found:
            raise TaskError(f'"{field}" is missing; there is {_listed(found)}')
    question = _text(found, "question")
    solution = _answer(found["answer"])
    answer = solution
    if "####" in solution:
        answer = solution.rpartition("####")[2].strip()
        if not answer:
            raise TaskError('"answer" has nothing after its last ####')
    given_id = found.get("id")
    if isinstance(given_id, int) and not isinstance(given_id, bool):
        found["id"] = str(given_id)
    return JsonlLine(
        number,
        question,
        answer,
        solution,
        _text(found, "id") if given_id is not None else None,
        _text(found, "category") if found.get("category") is not None else None,
        _messages(found["messages"]) if found.get("messages") is not None else None,
        _scorer(found["scorer"], answer) if found.get("scorer") is not None else None,
    )


def _scorer(value: object, answer: str) -> str:
    if not isinstance(value, str) or value not in SCORERS.names:
        shown = f"{value!r}" if isinstance(value, str) else json_kind(value)
        raise TaskError(f'"scorer" is {shown}, allowed are {", ".join(SCORERS.names)}')
    if value == "number" and parse_number(answer) is None:
        raise TaskError(f'"scorer" is number, but the answer {answer!r} is not a number')
    return value


def _parse(raw: bytes) -> dict[str, object]:
    try:
        found = parse_json(raw.decode("utf-8"), parse_float=Decimal, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise TaskError(
            f"not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8"
        ) from None
    except JsonError as error:
        raise TaskError(str(error)) from None
    if not isinstance(found, dict):
        raise TaskError(f"a JSON object is needed, this is {json_kind(found)}")
    try:
        json.dumps(found, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise TaskError("half of a surrogate pair in a string; write the whole character") from None
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


def json_kind(value: object) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _listed(found: Mapping[str, object]) -> str:
    if not found:
        return "nothing in the object"
    shown = [f'"{printable(key, 60)}"' for key in list(found)[:12]]
    return f"only {', '.join(shown)}{', ...' if len(found) > len(shown) else ''}"


def _text(found: Mapping[str, object], field: str) -> str:
    value = found[field]
    if not isinstance(value, str):
        raise TaskError(f'"{field}" must be a string, this is {json_kind(value)}')
    if not value.strip():
        raise TaskError(f'"{field}" is empty')
    return value


def _answer(value: object) -> str:
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        # Written out, but not 1e999999 as a million digits.
        plain = isinstance(value, Decimal) and abs(value.adjusted()) < 50
        return format(value, "f") if plain else str(value)
    if not isinstance(value, str):
        raise TaskError(f'"answer" must be a string or a number, this is {json_kind(value)}')
    if not value.strip():
        raise TaskError('"answer" is empty')
    return value.strip()


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise TaskError(
            '"messages" must be a list of objects with "role" and "content", '
            f"this is {'empty' if value == [] else json_kind(value)}"
        )
    messages: list[Message] = []
    for number, message in enumerate(value, 1):
        where = f'"messages", message {number}'
        if not isinstance(message, dict):
            raise TaskError(f"{where}: an object is needed, this is {json_kind(message)}")
        for field in ("role", "content"):
            if field not in message:
                raise TaskError(f'{where}: "{field}" is missing')
            if not isinstance(message[field], str):
                raise TaskError(
                    f'{where}: "{field}" must be a string, this is {json_kind(message[field])}'
                )
        if message["role"] not in ROLES:
            raise TaskError(
                f'{where}: "role" is {message["role"]!r}, allowed are {", ".join(ROLES)}'
            )
        messages.append({"role": message["role"], "content": message["content"]})
    if messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise TaskError('"messages" must end with a message of the user that is not empty')
    return tuple(messages)


def to_problems(source: str, prefix: str, rows: list[JsonlLine]) -> tuple[Problem, ...]:
    """Make problems of rows; ids that are derived from content begin with ``prefix``.

    Raises:
        TaskError: If two rows have the same id or the same content.
    """
    problems = []
    ids: dict[str, int] = {}
    contents: dict[str, int] = {}
    for row in rows:
        messages = row.messages or default_messages(row)
        content = content_id(prefix, messages, row.answer)
        if content in contents:
            raise TaskError(
                f"{source}: lines {contents[content]} and {row.line} are the same problem; "
                "remove one"
            )
        identifier = row.id or content
        if identifier in ids:
            raise TaskError(
                f"{source}: lines {ids[identifier]} and {row.line} have the same id "
                f"{identifier!r}; ids must differ"
            )
        contents[content] = ids[identifier] = row.line
        problems.append(
            Problem(
                identifier,
                row.question,
                row.answer,
                row.category or NO_CATEGORY,
                messages,
                {"scorer": row.scorer} if row.scorer else {},
            )
        )
    return tuple(problems)


def default_messages(row: JsonlLine) -> tuple[Message, ...]:
    numeric = row.scorer in (None, "number") and parse_number(row.answer) is not None
    return (
        {"role": "system", "content": SOLVE_INSTRUCTION if numeric else ANSWER_INSTRUCTION},
        {"role": "user", "content": row.question},
    )


class JsonlTask(GivenTask):
    """The problems of one JSON Lines file, named after it.

    Raises:
        TaskError: If the file is missing, bad or empty, or has duplicates.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path.stem, ANSWER, to_problems(str(path), "jsonl", read_rows(path)))
        self.path = path
        named = dict.fromkeys(str(p.metadata["scorer"]) for p in self._problems if p.metadata)
        try:
            self._rules: dict[str, JudgingRule] = {name: SCORERS.load(name) for name in named}
        except ExtensionError as error:
            raise TaskError(f"{path}: {error}") from None

    @property
    def extractor(self) -> str:
        """Name and version of the way answers are found, others' scorers among them."""
        others = {rule.extractor for n, rule in self._rules.items() if n not in SCORERS.own}
        return "+".join([self.rule.extractor, *sorted(others)])

    def rule_of(self, problem: Problem) -> JudgingRule:
        """The rule that the problem's line names, else the one that its answer asks for."""
        return self._rules.get(str(problem.metadata.get("scorer")), self.rule)
