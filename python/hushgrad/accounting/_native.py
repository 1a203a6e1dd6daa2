"""The extension module, typed as what it is to a type checker: anything. Only this package's own functions are typed."""

from importlib import import_module
from typing import Any

core: Any = import_module("hushgrad._core")
