"""Opacus' engine for adaptive ghost clipping."""

from hushgrad.compat.opacus._missing import not_offered

raise not_offered(__name__, 'use PrivacyEngine.make_private(clipping="adaptive", ...): it works in every grad_sample_mode')
