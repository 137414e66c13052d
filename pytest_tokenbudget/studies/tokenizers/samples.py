"""The texts that tokenizers are measured on, and what a character and a word are.

The same six passages in many languages, so that languages can be compared, and other content in
six passages each. They lie in ``fixtures/data/texts`` and were written for this.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import regex

from pytest_tokenbudget.common.package_files import package_folder

REFERENCE = "en"
PROSE, CODE = "prose", "code"
_BETWEEN = "\n%%%%\n"
_BOUNDARY = regex.compile(r"\b", regex.WORD | regex.V1)
_LETTERED = regex.compile(r"[\p{L}\p{N}]")


@dataclass(frozen=True)
class Sample:
    """One kind of text.

    Attributes:
        name: Short name; of a language its ISO 639-1 code.
        label: The same for people.
        content: What it is: ``prose``, ``code``, ``numbers``, ``json``, ``markup``, ``maths``.
        script: Name of the script of prose; empty elsewhere.
        spaced: Whether words stand apart, so that they can be counted without a dictionary.
    """

    name: str
    label: str
    content: str = PROSE
    script: str = ""
    spaced: bool = True

    @property
    def parallel(self) -> bool:
        """Whether its passages say what those of the other languages say."""
        return self.content == PROSE

    @cached_property
    def passages(self) -> tuple[str, ...]:
        """The passages, in the same order in every language."""
        folder = package_folder("embedded") / "data" / "texts"
        text = (folder / f"{self.name}.txt").read_text(encoding="utf-8")
        return tuple(text.removesuffix("\n").split(_BETWEEN))


SAMPLES = {
    sample.name: sample
    for sample in (
        Sample("en", "English", script="Latin"),
        Sample("de", "German", script="Latin"),
        Sample("fr", "French", script="Latin"),
        Sample("es", "Spanish", script="Latin"),
        Sample("tr", "Turkish", script="Latin"),
        Sample("vi", "Vietnamese", script="Latin"),
        Sample("ru", "Russian", script="Cyrillic"),
        Sample("el", "Greek", script="Greek"),
        Sample("ar", "Arabic", script="Arabic"),
        Sample("hi", "Hindi", script="Devanagari"),
        Sample("th", "Thai", script="Thai", spaced=False),
        Sample("zh", "Chinese", script="Han", spaced=False),
        Sample("ja", "Japanese", script="Han and kana", spaced=False),
        Sample("ko", "Korean", script="Hangul"),
        Sample("python", "Python", CODE),
        Sample("javascript", "JavaScript", CODE),
        Sample("sql", "SQL", CODE),
        Sample("numbers", "numbers", "numbers"),
        Sample("json", "JSON", "json"),
        Sample("maths", "maths", "maths"),
        Sample("markdown", "Markdown", "markup"),
        Sample("chat", "chat markup", "markup"),
    )
}


def count_words(text: str) -> int:
    """Words of a text by the word boundaries of Unicode (UAX 29), those with a letter or digit.

    For scripts without spaces they would be single characters: ``Sample.spaced`` says where
    words mean nothing.
    """
    return sum(bool(_LETTERED.search(part)) for part in _BOUNDARY.split(text))
