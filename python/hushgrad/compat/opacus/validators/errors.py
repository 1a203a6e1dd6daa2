"""What can be wrong with a module. All are ValueErrors, and hushgrad.errors.Unsupported."""

from hushgrad.errors import Unsupported

__all__ = [
    "IllegalModuleConfigurationError",
    "NotYetSupportedModuleError",
    "ShouldReplaceModuleError",
    "UnsupportableModuleError",
    "UnsupportedError",
    "UnsupportedModuleError",
]


class UnsupportedError(Unsupported):
    """Base of the errors below."""


class UnsupportedModuleError(UnsupportedError):
    """A module cannot be trained privately as it is."""


class UnsupportableModuleError(UnsupportedModuleError):
    """And there is nothing to put in its place."""


class NotYetSupportedModuleError(UnsupportedModuleError):
    """Kept as a name; not raised."""


class ShouldReplaceModuleError(UnsupportedModuleError):
    """``ModuleValidator.fix`` knows a replacement."""


class IllegalModuleConfigurationError(UnsupportedModuleError):
    """The module is fine, its settings are not."""
