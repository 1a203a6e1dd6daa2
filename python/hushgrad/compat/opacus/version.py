"""The version of Opacus whose names and arguments are followed."""

__version__ = "1.6.0"
