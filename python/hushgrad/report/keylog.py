"""What a key log says about keys: inventory, rotations, certificates of destruction. No key material."""

from typing import Any, Protocol

Json = dict[str, Any]


class KeyLog(Protocol):
    """Anything that can list keys and certificates as plain JSON values."""

    def inventory(self) -> list[Json]: ...
    def certificates(self) -> list[Json]: ...


def describe(log: KeyLog | None) -> Json:
    """The section `keys`; empty without a log."""
    inventory = [] if log is None else log.inventory()
    return {
        "inventory": inventory,
        "rotations": sum(key.get("state") == "retired" for key in inventory),
        "certificates": [] if log is None else log.certificates(),
    }
