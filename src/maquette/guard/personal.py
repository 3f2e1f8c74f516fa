"""Personal data in text: e-mail, IBAN (ISO 13616, mod 97) and payment cards (Luhn 1960); numbers count only where their checksum holds."""

from __future__ import annotations

import re

from maquette.guard.terms import Hit

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", re.ASCII)
CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)", re.ASCII)


def luhn(number: str) -> bool:
    digits = [int(c) for c in number if c.isdecimal()][::-1]
    return sum(digits[::2]) % 10 == -sum(sum(divmod(2 * d, 10)) for d in digits[1::2]) % 10


def mod97(iban: str) -> bool:
    plain = iban.replace(" ", "")
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


KINDS = {
    "email": (EMAIL, lambda _: True, "an e-mail address"),
    "iban": (IBAN, mod97, "an IBAN whose check digits hold"),
    "card": (CARD, luhn, "a card number whose check digit holds"),
}


def find(text: str, kinds: tuple[str, ...] = tuple(KINDS)) -> list[Hit]:
    """Personal data of these kinds, in the order of the kinds."""
    return [
        Hit(f"personal.{kind}", KINDS[kind][2], m.span())
        for kind in kinds
        for m in KINDS[kind][0].finditer(text)
        if KINDS[kind][1](m[0])
    ]
