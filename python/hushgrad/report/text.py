"""Texts that people and programs wrote into a ledger, made safe to show. Escaping for a format is that format's own."""

import re
import unicodedata

_STATISTIC = re.compile(
    r"(batch[\s_-]*sizes?|gradient[\s_-]*norms?|grad[\s_-]*norms?|clip(ped|ping)?[\s_-]*(fraction|rate|ratio|percentage)s?"
    r"|loss(es)?|accurac(y|ies)|auc|perplexity|indices|unclipped)[^0-9]{0,24}[0-9]",
    re.IGNORECASE,
)
WITHHELD = "(withheld: reads like a statistic of the data)"


def visible(text: str) -> str:
    """`text` with every character that is not seen, or that turns the direction of others, written as its number."""
    return "".join(_written(character) for character in text)


def free_text(text: str) -> str:
    """A reason or note that somebody typed. Where it names a statistic of the data with a number, it stays in the ledger."""
    return WITHHELD if _STATISTIC.search(text) else visible(text)


def _written(character: str) -> str:
    if character == " " or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"):
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
