"""``python -m hushgrad`` is the command line."""

from hushgrad.cli import main

main()
