"""The command line: `fednode`. `main` is the console script's entry point."""

from __future__ import annotations

import click


@click.group()
@click.version_option(package_name="fednode")
def main() -> None:
    """One federated data-sharing node: province, city, county, township or village."""
