"""Opacus' wrapping for FSDP."""

from hushgrad.compat.opacus._missing import not_offered

raise not_offered(__name__, "training is in one process; sharded models are not offered")
