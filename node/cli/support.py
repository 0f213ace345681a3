"""support-bundle: what a helper far away needs, in one file."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from fednode.node.cli.frame import Session, command, option, table
from fednode.node.units import human_bytes
from fednode.sync.errors import Refused


@command("help.support_bundle")
@click.argument("file", default="")
@option("--dry-run", is_flag=True, words="option.bundle_dry_run")
@option("--log", "log_file", default="", metavar="FILE", words="option.bundle_log")
def support_bundle(session: Session, file: str, dry_run: bool, log_file: str) -> None:
    """Says what will be in it, then writes it."""
    from fednode.crypto import certs
    from fednode.crypto.suite import SUITE_1
    from fednode.node import files
    from fednode.node.doctor import bundle, logtail
    from fednode.node.doctor.scene import Scene

    scene = Scene(session.home, session.config)
    try:
        parts = bundle.collect(scene, logtail.file_lines(Path(log_file)) if log_file else logtail.journal())
    finally:
        scene.close()
    made_s = scene.clock() // 1000
    stamp = certs.iso(made_s).replace("-", "").replace(":", "")
    target = Path(file or f"fednode-support-{stamp}.tar.gz")
    contents = [{"name": one.name, "bytes": len(one.data), "what": session.words(one.what)} for one in parts]
    heads = [session.words(f"head.{key}") for key in ("file", "size", "holds")]
    rows = [(one["name"], human_bytes(len(part.data)), one["what"]) for one, part in zip(contents, parts, strict=True)]
    lines = [*table(rows, heads), "", session.words("bundle_part.none")]
    found = {"file": str(target), "dry_run": dry_run, "contents": contents, "bytes": 0, "sha256": ""}
    if not dry_run:
        if not session.as_json:
            for line in lines:
                click.echo(line)
            lines = []
        data = bundle.packed(parts, "fednode-support", made_s)
        try:
            files.write(target, data, 0o600, exclusive=True)
        except FileExistsError as error:
            raise Refused("FN-3760", path=str(target)) from error
        found |= {"bytes": len(data), "sha256": SUITE_1.hash(data).hex()}
        lines.append(session.words("bundle_part.written", file=target, size=human_bytes(len(data))))
    session.done({"support_bundle": found}, lines)
