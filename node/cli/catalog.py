"""catalog publish, list, show, export: the directory of datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from fednode.node.cli.frame import Group, Session, command, option, table
from fednode.sync.errors import Refused


@click.group(cls=Group, help="help.catalog")
def catalog() -> None:
    """The catalog."""


def _summary(found: Any) -> dict[str, Any]:
    return {
        "version": found.version,
        "zh": found.zh,
        "en": found.en,
        "datasets": [
            {"name": one.name, "zh": one.zh, "en": one.en, "fields": len(one.fields), "class": one.cls}
            for one in found.datasets.values()
        ],
    }


@command("help.catalog_publish", "catalog.publish")
@click.argument("file", required=False)
@option("--shipped", is_flag=True, words="option.shipped")
@option("--dry-run", is_flag=True, words="option.dry_run")
@option("--all-upgraded", is_flag=True, words="option.all_upgraded")
def publish(session: Session, file: str | None, shipped: bool, dry_run: bool, all_upgraded: bool) -> None:
    """Put a catalog in force."""
    from fednode.node import shipped as own

    if bool(file) == shipped:
        raise Refused("FN-2709")
    app = session.app()
    read = own.catalog() if shipped else own.read_catalog(Path(file or ""), app.trust.directory.levels)
    app.check_catalog(read)
    if not all_upgraded:
        _check_readers(app, read)
    if not dry_run:
        app.publish_catalog(read)
    key = "catalog.dry_run" if dry_run else "catalog.published"
    lines = [session.words(key, version=read.version, datasets=", ".join(read.datasets))]
    session.done({"catalog": _summary(read), "dry_run": dry_run}, lines)


def _check_readers(app: Any, read: Any) -> None:
    """Where segments will be packed in a newer way from now on, every node has to know it. Raises Refused FN-3226."""
    from fednode.node.alerting.finding import names
    from fednode.node.mesh import reading
    from fednode.sync.packing import BODIES_SINCE

    now = app.trust.catalog
    if now is None or read.bodies <= now.bodies:
        return
    least = BODIES_SINCE[read.bodies]
    if older := reading.older_than(app, least):
        raise Refused("FN-3226", bodies=read.bodies, least=least, count=len(older), nodes=names(older))


def _in_force(session: Session) -> Any:
    app = session.app()
    if app.trust.catalog is None:
        raise Refused("FN-3701")
    return app.trust.catalog


@command("help.catalog_list")
def list_(session: Session) -> None:
    """The datasets of the catalog in force."""
    found = _in_force(session)
    summary = _summary(found)
    rows = [(one["name"], one["zh"], one["en"], one["fields"]) for one in summary["datasets"]]
    heads = [session.words(f"head.{key}") for key in ("dataset", "zh", "en", "fields")]
    lines = [session.words("catalog.version", version=found.version), *table(rows, heads)]
    session.done({"catalog": summary}, lines)


@command("help.catalog_show")
@click.argument("dataset", required=False)
def show(session: Session, dataset: str | None) -> None:
    """A dataset's fields; without a name every dataset's."""
    found = _in_force(session)
    if dataset is not None and dataset not in found.datasets:
        raise Refused("FN-3401", dataset=dataset)
    chosen = [found.datasets[dataset]] if dataset else list(found.datasets.values())
    lines: list[str] = []
    heads = [session.words(f"head.{key}") for key in ("field", "zh", "en", "type", "required", "class")]
    for one in chosen:
        lines.append(f"{one.name}  {one.zh}  {one.en}  ({', '.join(one.key)})")
        rows = [(f.code, f.zh, f.en, f.type, session.words("yes") if f.required else "", f.cls) for f in one.fields]
        lines += [*table(rows, heads), ""]
    session.done({"version_catalog": found.version, "datasets": [msgspec.to_builtins(one) for one in chosen]}, lines)


@command("help.catalog_export")
def export(session: Session) -> None:
    """The catalog in force as canonical JSON."""
    found = _in_force(session)
    text = found.to_json().decode()
    session.done({"catalog": msgspec.json.decode(text)}, [text])


for _name, _one in (("publish", publish), ("list", list_), ("show", show), ("export", export)):
    catalog.add_command(_one, _name)
