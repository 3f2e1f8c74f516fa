"""Personal data in text: e-mail, IBAN (ISO 13616, mod 97), payment cards (Luhn 1960), telephone numbers (ITU E.164) and national numbers.

Numbers count only where their check digits hold; which there are, by country, is data (numbers.toml).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from maquette.guard.hits import Hit

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", re.ASCII)
CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)", re.ASCII)
NEAR = 40  # characters before a number in which its name is looked for
INVERSE = (0, 4, 3, 2, 1, 5, 6, 7, 8, 9)
TURN = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def luhn(number: str) -> bool:
    digits = [int(c) for c in number if c.isdecimal()][::-1]
    return sum(digits[::2]) % 10 == -sum(sum(divmod(2 * d, 10)) for d in digits[1::2]) % 10


def mod97(iban: str) -> bool:
    plain = iban.replace(" ", "")
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def iso7064(number: str) -> bool:
    """
    >>> iso7064("86095742719"), iso7064("86095742718")
    (True, False)
    """
    rest = 10
    for c in number[:-1]:
        rest = (rest + int(c)) % 10 or 10
        rest = rest * 2 % 11
    return (rest + int(number[-1])) % 10 == 1


def verhoeff(number: str) -> bool:
    """
    >>> verhoeff("2363"), verhoeff("2364")
    (True, False)
    """
    total = 0
    for place, c in enumerate(reversed(number)):
        digit = int(c)
        for _ in range(place % 8):
            digit = TURN[digit]
        total = _dihedral(total, digit)
    return total == 0


def _dihedral(a: int, b: int) -> int:
    """The product in the group of symmetries of a pentagon; 5 to 9 are its reflections."""
    turn = (a - b if a > 4 else a + b) % 5
    return turn if (a > 4) == (b > 4) else turn + 5


SCHEMES: Mapping[str, Callable[[str], bool]] = {"luhn": luhn, "iso7064": iso7064, "verhoeff": verhoeff}
KINDS = {
    "email": (EMAIL, lambda _: True, "an e-mail address"),
    "iban": (IBAN, mod97, "an IBAN whose check digits hold"),
    "card": (CARD, luhn, "a card number whose check digit holds"),
}
ALL = (*KINDS, "phone", "national")


def find(text: str, kinds: Sequence[str] = ALL, countries: Mapping[str, Sequence[str]] | None = None) -> list[Hit]:
    """Personal data of these kinds, in the order of the kinds. countries: of phone and national numbers; none: of all that are known."""
    asked = countries or {}
    found = [
        Hit(f"personal.{kind}", KINDS[kind][2], m.span())
        for kind in kinds
        if kind in KINDS
        for m in KINDS[kind][0].finditer(text)
        if KINDS[kind][1](m[0])
    ]
    if "phone" in kinds:
        found += _once(_phones(text, asked.get("phone")), len(text))
    if "national" in kinds:
        found += _once(_nationals(text, asked.get("national")), len(text))
    return found


def known(kind: str) -> tuple[str, ...]:
    """The countries of `phone` or `national`."""
    return tuple(one["country"] for one in _table()[kind])


@lru_cache(1)
def _table() -> dict[str, Any]:
    table = tomllib.loads(Path(__file__).with_name("numbers.toml").read_text(encoding="utf-8"))
    for one in table["national"]:
        one["compiled"] = re.compile(rf"(?<![\w.+-])(?:{one['pattern']})(?![\w-]|\.\d)", re.ASCII)
        one["named"] = re.compile(one.get("near", ""), re.I)
    table["phone"].sort(key=lambda one: one["country"] == "any")
    for one in table["phone"]:
        low, high = one["digits"]
        abroad = rf"(?:\+|\b00){one['code']}[ .-]?(?:\(0\) ?)?\(?\d(?:[ .()/-]{{0,2}}\d){{{low - 1},{high - 1}}}"
        at_home = f"|{one['home']}" if "home" in one else ""
        one["compiled"] = re.compile(rf"(?<![\w+.-])(?:{abroad}{at_home})(?![\w-]|\.\d)", re.ASCII)
    return table


def _phones(text: str, countries: Sequence[str] | None) -> Iterator[Hit]:
    for one in _asked("phone", countries):
        words = "a telephone number" + ("" if one["country"] == "any" else f" as in {one['country'].upper()}")
        yield from (Hit("personal.phone", words, m.span()) for m in one["compiled"].finditer(text))


def _nationals(text: str, countries: Sequence[str] | None) -> Iterator[Hit]:
    for one in _asked("national", countries):
        words = one["name"] + (" whose check digits hold" if one["checks"] else " by its form")
        for m in one["compiled"].finditer(text):
            plain = "".join(m.groups() or (c for c in m[0] if c.isalnum())).upper()
            near = text[max(0, m.start() - NEAR) : m.start()]
            if one["named"].search(near) and all(_holds(check, plain) for check in one["checks"]):
                yield Hit("personal.national", words, m.span())


def _asked(kind: str, countries: Sequence[str] | None) -> list[dict[str, Any]]:
    return [one for one in _table()[kind] if countries is None or one["country"] in countries]


def _once(hits: Iterator[Hit], length: int) -> list[Hit]:
    """The first hit of those that overlap, of a text of this length."""
    taken, kept = bytearray(length), []
    for hit in hits:
        start, end = hit.span
        if not any(taken[start:end]):
            taken[start:end] = b"\1" * (end - start)
            kept.append(hit)
    return sorted(kept, key=lambda h: h.span)


def _holds(check: Mapping[str, Any], plain: str) -> bool:
    """See numbers.toml."""
    if "scheme" in check:
        return SCHEMES[check["scheme"]](plain)
    start, end = check.get("digits", (0, len(plain)))
    body = plain[start:end]
    for letter, digit in check.get("letters", {}).items():
        body = body.replace(letter, digit)
    befores = ("", check["or_with"]) if "or_with" in check else ("",)
    return body.isdecimal() and any(_controls(check, before + body, plain) for before in befores)


def _controls(check: Mapping[str, Any], body: str, plain: str) -> bool:
    weights = check.get("weights")
    value = sum(w * int(c) for w, c in zip(weights, body, strict=True)) if weights else int(body)
    rest = value % check["modulus"]
    if "less" in check:
        return plain[check["at"] :] == f"{check['less'] - rest:02}"
    if "control" in check:
        return plain[check["at"] :][:1] == check["control"][rest]
    return rest == 0
