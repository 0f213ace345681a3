"""The command line: `fednode`. `main` is the console script's entry point.

Rules
1. One file for each subject; a command is loaded when it is named, so that starting costs little.
2. Commands are thin: they call a service and put its answer into words. What all share is `frame`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

import rich_click as click

import fednode
from fednode.node.cli.frame import Group, run

LOADERS = {
    "init": "identity:init",
    "invite": "identity:invite",
    "invites": "identity:invites",
    "join": "identity:join",
    "revoke": "identity:revoke",
    "nodes": "identity:nodes",
    "catalog": "catalog:catalog",
    "import": "records:import_",
    "put": "records:put",
    "get": "records:get",
    "find": "records:find",
    "delete": "records:delete",
    "erase": "erasing:erase",
    "compact": "erasing:compact",
    "digest": "records:digest",
    "conflicts": "records:conflicts",
    "run": "running:run_",
    "sync": "running:sync",
    "status": "running:status",
    "doctor": "doctor:doctor",
    "self-test": "doctor:self_test",
    "support-bundle": "support:support_bundle",
    "mesh": "mesh:mesh",
    "coverage": "coverage:coverage",
    "bundle": "bundle:bundle",
    "jobs": "jobs:jobs",
    "refused": "running:refused",
    "rebuild": "running:rebuild",
    "store": "upgrade:store",
    "recover": "recovery:recover",
    "backup": "backup:backup",
    "restore": "backup:restore",
    "drill": "drill:drill",
    "standby": "standby:standby",
    "promote": "standby:promote",
    "audit": "audit:audit",
    "alerts": "alerts:alerts",
    "verify": "audit:verify",
    "config": "settings:config",
    "user": "user:user",
    "version": "settings:version",
    "completion": "settings:completion",
    "docs": "manual:docs",
}


@click.group(cls=Group, help="help.main", loaders=LOADERS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(fednode.__version__, prog_name="fednode")
def cli() -> None:
    """One federated data-sharing node: province, city, county, township or village."""


cli.help = "help.main"


def invoke(arguments: Sequence[str] | None, environ: Mapping[str, str]) -> int:
    """Run the command line with these arguments; returns the exit code."""
    return run(cli, arguments, environ)


def main() -> None:
    """The console script."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what matters of it is said in our own words
    sys.exit(invoke(None, os.environ))
