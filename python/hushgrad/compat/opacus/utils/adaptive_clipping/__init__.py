"""Opacus' adaptive ghost clipping."""
