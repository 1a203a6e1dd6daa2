"""One of Opacus' optimizer classes, which need an engine here."""

from hushgrad.compat.opacus._missing import not_offered

raise not_offered(__name__, "an optimizer without an engine would be charged nowhere. Use PrivacyEngine.make_private with clipping=")
