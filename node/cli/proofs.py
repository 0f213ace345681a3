"""audit prove, audit check, audit root: one record's proof in a file, and its check by whoever holds the root."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click

from fednode.crypto import note
from fednode.crypto.certs import Identity, iso
from fednode.node import files
from fednode.node.cli.frame import Session, command, option
from fednode.node.proof_words import fields_of, grouped, record_of
from fednode.node.units import human_bytes
from fednode.sync.errors import Refused, StoreError

if TYPE_CHECKING:
    from fednode.sync.proof_file import Checked


@command("help.prove", "audit.prove")
@click.argument("dataset")
@click.argument("key")
@option("--output", "-o", words="option.proof_output", required=True, metavar="FILE")
@option("--area", words="option.proof_area", metavar="AREA")
@option("--version", "number", words="option.proof_version", type=click.IntRange(min=1))
@option("--receipt", words="option.receipt", metavar="FILE")
def prove(
    session: Session, dataset: str, key: str, output: str, area: str | None, number: int | None, receipt: str | None
) -> None:
    """Write the proof of one record."""
    from fednode.node.proving import Prover

    if receipt is not None:
        _check_receipt(receipt)
    app = session.app()
    proved = Prover(app.records(), app.keys.sign, app.now_ms).prove(dataset, key, area, number)
    checked = proved.checked
    app.journal().event("audit.prove", log=str(checked.log), number=checked.index)  # before anything is shown
    app.poke()
    _write(Path(output), proved.data)
    lines = [session.words("prove.done", path=output, bytes=human_bytes(len(proved.data)), **_place(checked))]
    if receipt is not None:
        _receipt(Path(receipt), proved.data, checked, app.trust.root_sha256)
        lines.append(session.words("prove.receipt", path=receipt))
    told = {"file": output, "bytes": len(proved.data), "segments_read": proved.segments_read, "receipt": receipt}
    session.done({**told, **shown(checked)}, [*lines, *_seen(session, checked)])


def _check_receipt(path: str) -> None:
    """Before any work: a receipt that could not be made."""
    from fednode.node import receipt

    if Path(path).suffix.lower() not in (".html", ".pdf"):
        raise Refused("FN-2717", path=path)
    if Path(path).suffix.lower() == ".pdf" and receipt.browser() is None:
        raise Refused("FN-2718")


def _receipt(path: Path, data: bytes, checked: Checked, root_sha256: bytes) -> None:
    from fednode.node import receipt

    page = receipt.render(data, checked, root_sha256)
    if path.suffix.lower() == ".pdf":
        receipt.print_pdf(page, path)
    else:
        _write(path, page.encode())


@command("help.check")
@click.argument("file")
@option("--root", "root_file", words="option.root", required=True, metavar="FILE")
def check(session: Session, file: str, root_file: str) -> None:
    """Check a proof file."""
    from fednode.crypto.tlogproof import FILE_BYTES_MAX
    from fednode.node.home import root_of_pem
    from fednode.sync import proof_code, proof_file

    root = root_of_pem(Path(root_file))
    with Path(file).open("rb") as source:
        data = source.read(FILE_BYTES_MAX + 1)
    if proof_code.is_code(data):  # the text of a receipt's QR code
        data = proof_code.from_code(data.decode(errors="replace").rstrip("\r\n"))
    checked = proof_file.check(data, root.der)
    session.done({"file": file, **shown(checked)}, _lines(session, checked))


@command("help.root")
@option("--output", "-o", words="option.root_output", metavar="FILE")
def root(session: Session, output: str | None) -> None:
    """Export the root certificate."""
    from fednode.node.home import pem_of

    app = session.app()
    der = app.trust.directory.root.der
    if output is not None:
        _write(Path(output), pem_of((der,)))
    sha256 = app.trust.root_sha256.hex()
    lines = [session.words("root.fingerprint", domain=app.trust.domain, sha256=grouped(sha256))]
    session.done(
        {"domain": app.trust.domain, "sha256": sha256, "file": output, "pem": pem_of((der,)).decode()},
        [*lines, session.words("root.compare")],
    )


def _write(path: Path, data: bytes) -> None:
    try:
        files.write(path, data)
    except OSError as error:
        raise StoreError("FN-7701", reason=error.strerror or str(error), path=str(path)) from error


# ---------------------------------------------------------------- what a proof says


def _place(checked: Checked) -> dict[str, Any]:
    return {"log": str(checked.log), "index": checked.index, "size": checked.head.size}


def _who(one: Identity) -> dict[str, Any]:
    return {"node": one.node, "name": one.name, "level": one.level}


def _witness_key(checked: Checked, witness: Identity) -> str:
    """For tools that are not ours (C2SP tlog-cosignature)."""
    return note.verifier_key(f"{checked.log.domain}/{witness.node}", note.COSIGNATURE, witness.sign_key)


def shown(checked: Checked) -> dict[str, Any]:
    """A proof as JSON."""
    return {
        **_place(checked),
        "dataset": checked.log.dataset,
        "area": checked.area,
        "key": checked.leaf.key,
        "op": checked.leaf.op,
        "record": record_of(checked),
        "titles": msgspec.to_builtins(checked.titles),
        "catalog_version": checked.leaf.schema,
        "leaf_data": base64.b64encode(checked.leaf.data()).decode(),
        "writer": {
            **_who(checked.writer),
            "incarnation": checked.writer.incarnation,
            "key": note.verifier_key(checked.log.signer, note.ED25519, checked.writer.sign_key),
        },
        "written_ms": checked.written_ms,
        "witnesses": [
            {**_who(one.identity), "time_s": one.time_s, "key": _witness_key(checked, one.identity)}
            for one in checked.witnesses
        ],
        "unseen_by": [_who(one) for one in checked.unseen_by],
        "maker": _who(checked.maker),
        "made_ms": checked.made_ms,
        "domain": checked.log.domain,
    }


def _lines(session: Session, checked: Checked) -> list[str]:
    lang = session.lang
    title = checked.titles.zh if lang == "zh" else checked.titles.en
    writer = {**_who(checked.writer), "level": session.level(checked.writer.level)}
    maker = {"name": checked.maker.name, "node": checked.maker.node, "time": iso(checked.made_ms // 1000)}
    fields = [session.words("proof.field", name=name, value=value) for name, value in fields_of(checked, lang)]
    return [
        session.words("proof.holds"),
        session.words("proof.dataset", dataset=checked.log.dataset, title=title),
        session.words("proof.record", key=checked.leaf.key, area=checked.area),
        *(fields or [session.words("proof.deleted")]),
        session.words("proof.writer", **writer, time=iso(checked.written_ms // 1000)),
        *_seen(session, checked),
        session.words("proof.place", **_place(checked)),
        session.words("proof.maker", **maker),
        session.words("proof.revoked"),
    ]


def _seen(session: Session, checked: Checked) -> list[str]:
    lines = []
    for one in checked.witnesses:
        who = {**_who(one.identity), "level": session.level(one.identity.level)}
        lines.append(session.words("proof.witness", **who, time=iso(one.time_s)))
    if not checked.witnesses and checked.unseen_by:
        lines.append(session.words("proof.unseen"))
    elif checked.unseen_by:
        lines.append(session.words("proof.missing", nodes=", ".join(one.node for one in checked.unseen_by)))
    return lines
