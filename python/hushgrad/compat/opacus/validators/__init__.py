"""Whether a model can be trained privately, and how to repair it."""

from hushgrad.compat.opacus.validators.module_validator import ModuleValidator
from hushgrad.compat.opacus.validators.utils import register_module_fixer, register_module_validator

__all__ = ["ModuleValidator", "register_module_fixer", "register_module_validator"]
