"""A village's record with its proof file, out of the world of `world`; and what a tool that is not ours says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import proofbundle.tlogproof as theirs

from fednode.crypto import checkpoint, note, proof
from fednode.crypto.checkpoint import Checkpoint, Cosigner
from fednode.sync import proof_file
from fednode.sync import segment as seg
from fednode.sync.proof_file import Checked, FieldTitle, Head, Leaf, Titles
from world import NOW_S, Place, World, shop

VILLAGE = "130102001001"
TITLES = Titles("店铺", "Shops", (FieldTitle("name", "名称", "Name"), FieldTitle("area", "区划", "Area")))
PATH = (VILLAGE, "130102001", "130102", "1301", "13")


def made(
    world: World,
    *,
    witnesses: Sequence[tuple[str, int]] = (("130102001", NOW_S + 60), ("130102", NOW_S + 120)),
    certificates: Sequence[bytes] | None = None,
    maker: str = "130102",
    made_s: int = NOW_S + 180,
    hlc: int = (NOW_S * 1000) << 16,
    audience: str = "",
    index: int = 3,
    writer: str = VILLAGE,
) -> bytes:
    """The proof of one of seven shops that the writer recorded. `witnesses`: (node, time)."""
    own = world.segment(writer, [shop(f"shop {n}", writer) for n in range(7)], hlc=hlc, audience=audience)
    columns, leaves = own.columns, seg.leaf_hashes(own.columns)
    leaf = Leaf.of(
        *(columns.keys[index], columns.hlcs[index], columns.ops[index], columns.schema_version),
        *(seg.salt_of(columns, index), columns.payloads[index]),
    )
    head = Checkpoint(str(own.after.name), 7, own.after.root)
    cosigners = [
        Cosigner(f"{world.domain}/{node}", key.public, time_s, checkpoint.cosign(head, key, time_s))
        for node, time_s in witnesses
        for key in (world.places[node].keys.sign,)
    ]
    signed = Head(head, checkpoint.signature(head, world.places[writer].keys.sign), tuple(cosigners))
    place: Place = world.places[maker]
    return proof_file.compose(
        leaf,
        index,
        proof.inclusion(proof.over(leaves), index, 7),
        signed,
        TITLES,
        certificates if certificates is not None else world.places[writer].chain[:-1],
        world.root_sha256,
        place.identity,
        place.keys.sign.sign,
        made_s * 1000,
    )


def third_party(data: bytes, checked: Checked) -> dict[str, Any]:
    """What proofbundle says of a proof file, given the keys of the certificates and the bytes under the leaf hash."""
    log_key = note.verifier_key(checked.log.signer, note.ED25519, checked.writer.sign_key)
    witnesses = [
        note.verifier_key(f"{one.identity.domain}/{one.identity.node}", note.COSIGNATURE, one.identity.sign_key)
        for one in checked.witnesses
    ]
    return theirs.verify_tlog_proof(
        data.decode(),
        checked.leaf.data(),
        log_key,
        witnesses,
        threshold=len(witnesses),
        expected_origin=str(checked.log),
    )
