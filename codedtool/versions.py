"""Versions of this package and of the packages that a result depends on, for the records of schemes and runs."""

from __future__ import annotations

from importlib.metadata import version

from codedtool import __version__


def versions_of(*packages: str) -> dict[str, str]:
    """The version of codedtool, and those of installed packages, by name.

    Example:
        >>> sorted(versions_of("numpy"))
        ['codedtool', 'numpy']
    """
    return {"codedtool": __version__, **{package: version(package) for package in packages}}
