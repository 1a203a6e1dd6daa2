"""Other libraries' names over hushgrad's engine, so that existing scripts change one import."""
