"""What can go wrong between the suite and a server, told apart by what helps against it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from html import unescape

from pytest_tokenbudget.engines.server.payload import parsed, whole

EXCERPT = 300
# An error is understood from its beginning: a whole body may be a hundred times as long.
_LOOKED_AT = 64 * 2**10


class FaultKind(StrEnum):
    """What went wrong."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    OVERLOADED = "overloaded"
    SERVER = "server error"
    MALFORMED = "malformed answer"
    CUT = "stream cut"
    NO_MODEL = "no such model"
    CONTEXT = "context overflow"
    LIMIT = "limit not kept"
    TOO_LONG = "took too long"
    TOO_MUCH = "sent too much"
    WITHHELD = "answer withheld"
    KEY = "key refused"
    REFUSED = "refused"


_RETRYABLE = frozenset(
    {
        *(FaultKind.TIMEOUT, FaultKind.CONNECTION, FaultKind.OVERLOADED, FaultKind.SERVER),
        *(FaultKind.MALFORMED, FaultKind.CUT, FaultKind.TOO_LONG, FaultKind.TOO_MUCH),
    }
)
_FATAL = frozenset({FaultKind.KEY, FaultKind.NO_MODEL})


class Fault(Exception):  # noqa: N818
    """One request that failed; ``str()`` of it is a sentence for people, without any key.

    Attributes:
        kind: What went wrong.
        message: The sentence: which server, what it said, what to do.
        status: HTTP status, None where there was none.
        retry_after: Seconds that the server asks to wait, as it said them; None where it did not.
        body: Beginning of what the server answered, keys hidden.
        unreachable: No connection could be made.
        dropped: The connection was lost, or refused, rather than silent.
        answer: More of what the server answered than people are shown, keys hidden.
        loading: The server is up and still loads its model.
        fatal: No other request of the run can fare better.
        tried: How often it was asked before this was given up.
    """

    def __init__(
        self,
        kind: FaultKind,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        body: str = "",
        loading: bool = False,
        fatal: bool | None = None,
        answer: str = "",
    ) -> None:
        message = whole(message)
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.unreachable = False
        self.dropped = False
        self.answer = answer
        self.status = status
        self.retry_after = retry_after
        self.body = body
        self.loading = loading
        self.fatal = kind in _FATAL if fatal is None else fatal
        self.tried = 1

    def __str__(self) -> str:
        return self.message if self.tried < 2 else f"{self.message} (asked {self.tried} times)"

    @property
    def retryable(self) -> bool:
        """Whether asking again can help."""
        return self.kind in _RETRYABLE and not self.fatal


# What servers call a request that does not fit: vLLM, SGLang, llama.cpp, TGI and hosted ones.
_CONTEXT = re.compile(
    r"context[ _](length|window|size|limit|exceeded)|exceed_context|maximum context"
    r"|max(imum)?[ _]model[ _]len|too many (input )?tokens|(prompt|input)( text)? is too long"
    r"|(prompt|input)s?\b.{0,80}\b(longer|larger) than"
    r"|inputs?` tokens \+ `max_new_tokens`",
    re.IGNORECASE | re.DOTALL,
)
# Not the path /v1/models, which may be missing too.
_NO_MODEL = re.compile(
    r"model_not_found|(?<!/)\bmodels?\b.{0,160}\b(not found|not exist|is not served)"
    r"|not a valid model|(unknown|invalid|no such) model",
    re.IGNORECASE | re.DOTALL,
)
_EMPTY_ACCOUNT = re.compile(
    r"insufficient[ _](quota|balance|credit|funds)|exceeded your current quota", re.IGNORECASE
)
_LOADING = re.compile(r"loading( the)? model|model is( still)? loading|loading weights", re.I)
# A parameter that a server does not know by this name, whatever its value.
UNKNOWN = re.compile(
    r"un(supported|known|recognized|recognised|expected)|not[ _](supported?|permitted|allowed)"
    r"|extra|deprecated",
    re.IGNORECASE,
)
_UNSUPPORTED = re.compile(
    rf"{UNKNOWN.pattern}|instead|invalid|(only|must be|should be)\b", re.IGNORECASE
)
# What holds the question, and what is no setting: words that any message may have.
_CONTENT = frozenset({"model", "messages", "prompt", "input_ids", "stream"})
_MODERATED = re.compile(r"moderat|flagged|content[ _-]?(filter|policy|management)", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_NO_TEXT = re.compile(r"<(script|style)\b", re.IGNORECASE)
# A user before an address, also one with odd characters, and what follows the path: a query,
# parameters, a fragment. Slashes may be escaped as in JSON, and all of it as in an address.
_USER = re.compile(r"(?:(?<=//)|(?<=/\\/))[^\s?#\"'<>]*:[^\s?#\"'<>]*@|(?<=//)[^\s/@\"'<>]+@")
_AFTER_PATH = re.compile(r"((?://|/\\/)[^\s?#;\"'<>]*)[?#;][^\s\"'<>]*")
_QUERY = re.compile(r"(?<=[\w/])(?:\?|%3F)[\w.\[\]-]+(?:=|%3D)[^\s\"'<>]*", re.IGNORECASE)


def error_text(body: str) -> str:
    """What an error body says, in one line: the message of a JSON error, the text of a page."""
    value = parsed(body)
    if value is not None:
        text = _message(value)
    else:
        text = unescape(_page_text(body)) if "<" in body and ">" in body else body
    text = " ".join(without_queries(whole(text[: 4 * EXCERPT])).split())
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"


def without_queries(text: str) -> str:
    """The text with its addresses cut short before what may be a key: user, query, fragment."""
    return _QUERY.sub("", _AFTER_PATH.sub(r"\1", _USER.sub("", text)))


def _page_text(page: str) -> str:
    """The text of a page, without tags, scripts and styles, in linear time."""
    texts, place, lower = [], 0, page.lower()
    for tag in _TAG.finditer(page):
        if tag.start() < place:
            continue
        texts.append(page[place : tag.start()])
        place = tag.end()
        if code := _NO_TEXT.match(tag[0]):
            place = lower.find(f"</{code[1].lower()}", place)
            if place < 0:
                return " ".join(texts)
    return " ".join([*texts, page[place:]])


def _message(value: object) -> str:
    """The sentence in a parsed error: every server wraps it in its own way."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        if (name := _parameter(value)) and isinstance(value.get("msg"), str):
            return f"{name}: {value['msg']}"
        for name in ("error", "message", "detail", "msg"):
            if value.get(name):
                return _message(value[name])
    if isinstance(value, list) and value:
        return "; ".join(_message(item) for item in value)
    return json.dumps(value)


def _parameter(error: Mapping[str, object]) -> str:
    """The parameter that an error is about, by the names that servers have for it."""
    place = error.get("loc")
    name = place[-1] if isinstance(place, list) and place else error.get("param")
    return name if isinstance(name, str) else ""


def refused_parameter(text: str, sent: Mapping[str, object]) -> str:
    """The parameter that a refusal names, among those that were sent; empty where it names none."""
    unread, names = [parsed(text)], []
    while unread:
        value = unread.pop()
        if isinstance(value, Mapping):
            names.append(_parameter(value))
            unread += [value.get(name) for name in ("error", "detail")]
        elif isinstance(value, list):
            unread += value
    if _UNSUPPORTED.search(text):
        names += [word for word in re.findall(r"\w+", error_text(text)) if word != "stop"]
    return next((name for name in names if name in sent and name not in _CONTENT), "")


def kind_of(status: int | None, text: str) -> FaultKind:
    """Which kind of fault a status, or the code in an error object, and its body are."""
    text = text[:_LOOKED_AT]
    if status == 403 and _MODERATED.search(text):
        return FaultKind.WITHHELD
    if status in (401, 402, 403, 407):
        return FaultKind.KEY
    if status == 429:
        return FaultKind.KEY if _EMPTY_ACCOUNT.search(text) else FaultKind.OVERLOADED
    if status in (503, 529) or _LOADING.search(text):
        return FaultKind.OVERLOADED
    if status in (408, 504):
        return FaultKind.TIMEOUT
    # Some servers call an overflow a 500: a repetition would overflow again.
    if status in (None, 400, 413, 422, 500) and _CONTEXT.search(text):
        return FaultKind.CONTEXT
    if status in (None, 400, 404, 422) and _NO_MODEL.search(text):
        return FaultKind.NO_MODEL
    if status is None or status >= 500:
        return FaultKind.SERVER
    return FaultKind.REFUSED


def is_loading(text: str) -> bool:
    """Whether a 503 says that the model is still being loaded."""
    return bool(_LOADING.search(text))


def error_in(value: object) -> tuple[int | None, str] | None:
    """The error that an answer with status 200 holds: its code and its text; None without one."""
    if not isinstance(value, Mapping):
        return None
    error = value.get("error")
    if not error and value.get("object") != "error":
        return None
    inner = error if isinstance(error, Mapping) else value
    for name in ("code", "status", "http_code"):
        code = inner.get(name)
        if isinstance(code, str) and re.fullmatch(r"[0-9]{3}", code):
            code = int(code)
        if isinstance(code, int) and 400 <= code < 600:
            return code, json.dumps(value)
    return None, json.dumps(value)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait by ``Retry-After``, given as seconds or as a date; None without one.

    A date counts from the server's own ``Date`` where it gives one, since clocks differ.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", text):
            return float(text) * unit
    then = _date(headers.get("retry-after", ""))
    if then is None:
        return None
    start = _date(headers.get("date", "")) or now or datetime.now(UTC)
    return max(0.0, (then - start).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
