"""Words of a question against names and values of the data: plain functions on text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = [
    "NUMBERS",
    "TIME_WORDS",
    "match_name",
    "names_value",
    "number_of",
    "plain",
    "same",
    "words_of",
]

_SYNONYMS = {
    "max": {"maximum", "highest", "high", "hottest", "warmest"},
    "min": {"minimum", "lowest", "low", "coldest"},
    "temp": {"hottest", "warmest", "coldest"},
    "temperature": {"hottest", "warmest", "coldest"},
}
_EXTREMES = {"max", "min"}  # these alone do not name a column: anything has a maximum
NUMBERS = [
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
]
TIME_WORDS = {
    *("year", "years", "month", "months", "day", "days", "date", "dates"),
    *("yearly", "annual", "monthly", "daily"),
}
_SHORTEST_PREFIX = 4
_LONGEST_ENDING = 3


def words_of(text: str) -> list[str]:
    """Return the words of a text, in lower case; ``temp_max`` and ``4.5`` are one word each."""
    return re.findall(r"[a-z0-9_]+(?:\.\d+)?", text.lower())


def plain(text: str) -> str:
    """Return a lower-case text with some turns of phrase in simpler words."""
    text = re.sub(r"\b(\w{3,})iest\b", r"highest \1", text)  # windiest: highest wind
    return re.sub(r"\b(most|least) (?:common|frequent|often)\b", r"with the \1 count", text)


def number_of(word: str) -> int | None:
    """Return the whole number that a word is, in digits or in letters up to twelve."""
    if word.isdigit():
        return int(word)
    return NUMBERS.index(word) if word in NUMBERS else None


def same(word: str, token: str) -> bool:
    """Tell whether a word means a part of a name: same stem, or the long form of it."""
    a, b = _stem(word), _stem(token)
    if a == b or word in _SYNONYMS.get(token, ()):
        return True
    short, long = sorted((a, b), key=len)
    return len(short) >= _SHORTEST_PREFIX and long.startswith(short)


def match_name(name: str, words: Sequence[str]) -> float:
    """Return how far the words name a column or table: 3 literally, up to 2 by parts, 0 not."""
    lowered = name.lower()
    if lowered in words:
        return 3.0
    tokens = _tokens(name)
    hits = {t for t in tokens if any(same(w, t) for w in words)}
    return 2.0 * len(hits) / len(tokens) if hits - _EXTREMES else 0.0


def names_value(value: str, words: Sequence[str]) -> bool:
    """Tell whether the words name a value of the data, such as ``rainy`` the value ``rain``."""
    parts = words_of(value)
    if not parts:
        return False
    if value.isupper() and len(value) >= _SHORTEST_PREFIX:  # a code, such as GOOG of Google
        return any(word.startswith(parts[0]) for word in words)
    return any(
        all(_ends_well(w, p) for w, p in zip(words[at:], parts, strict=False))
        for at in range(len(words) - len(parts) + 1)
    )


def _ends_well(word: str, part: str) -> bool:
    if word == part or _stem(word) == _stem(part):
        return True
    return (
        len(part) >= 3
        and part.isalpha()
        and word.startswith(part)
        and len(word) - len(part) <= _LONGEST_ENDING
        and word[len(part) :] in _endings(part)
    )


def _endings(part: str) -> Iterable[str]:
    last = part[-1]
    return ("y", last + "y", "ing", last + "ing", "ed", "s", "es")


def _tokens(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [t for t in re.split(r"[\W_]+", spaced.lower()) if t]


def _stem(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ses", "xes", "ches", "shes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word
