"""``python -m codedtool``: the same as the ``codedtool`` command."""

from codedtool.cli import main

main()
