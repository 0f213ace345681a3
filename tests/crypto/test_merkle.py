"""The tree against the published RFC 6962 vectors, its definition, and as properties: any split, any flipped bit.

The vectors are those that the certificate-transparency projects share (eight leaves, their roots, their proofs)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.crypto import merkle
from fednode.crypto import proof as proof_of
from fednode.crypto.errors import IntegrityError
from fednode.crypto.merkle import Frontier

INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# (index, size) -> audit path
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
# (old size, new size) -> proof
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def hashed(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


PUBLISHED = [hashed(b"\0" + bytes.fromhex(text)) for text in INPUTS]


def some(count: int) -> list[bytes]:
    """`count` leaf hashes."""
    return [hashed(n.to_bytes(4, "big")) for n in range(count)]


def by_definition(leaves: Sequence[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, as it is written."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashed(b"")
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashed(b"\1" + by_definition(leaves[:half]) + by_definition(leaves[half:]))


def refused(check: object, *arguments: object) -> None:
    assert callable(check)
    with pytest.raises(IntegrityError) as caught:
        check(*arguments)
    assert caught.value.code == "FN-6203"


# ---------------------------------------------------------------- published


@pytest.mark.parametrize("size", range(9))
def test_published_roots(size: int) -> None:
    assert merkle.root(PUBLISHED[:size]).hex() == ROOTS[size]
    one_by_one = Frontier.EMPTY
    for leaf in PUBLISHED[:size]:
        one_by_one = one_by_one.extend([leaf])
    assert (one_by_one.size, one_by_one.root().hex()) == (size, ROOTS[size])


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_published_inclusion_proofs(index: int, size: int) -> None:
    proof = [bytes.fromhex(text) for text in INCLUSION[index, size]]
    assert proof_of.inclusion(proof_of.over(PUBLISHED[:size]), index, size) == proof
    merkle.verify_inclusion(PUBLISHED[index], index, size, proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_published_consistency_proofs(old: int, new: int) -> None:
    proof = [bytes.fromhex(text) for text in CONSISTENCY[old, new]]
    assert proof_of.consistency(proof_of.over(PUBLISHED[:new]), old, new) == proof
    merkle.verify_consistency(old, new, bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[new]), proof)


# ---------------------------------------------------------------- the edge


@given(st.lists(st.integers(0, 40), max_size=12))
def test_any_split_makes_the_same_edge(runs: list[int]) -> None:
    leaves = some(sum(runs))
    edge, at = Frontier.EMPTY, 0
    for run in runs:
        edge, at = edge.extend(leaves[at : at + run]), at + run
    assert edge == Frontier.EMPTY.extend(leaves)
    assert edge.root() == by_definition(leaves)
    assert len(edge.peaks) == len(leaves).bit_count()
    assert Frontier.from_bytes(edge.to_bytes()) == edge


@given(st.lists(st.one_of(st.integers(0, 3), st.integers(0, 700)), max_size=8))
def test_the_nodes_to_keep_are_those_of_the_tree_and_each_is_handed_back_once(runs: list[int]) -> None:
    """Each is complete, and the root of its leaves. Of a run of n leaves those from level log2(n) up, at most 8."""
    leaves = some(sum(runs))
    edge, at, kept = Frontier.EMPTY, 0, []
    for run in runs:
        edge, nodes = edge.grow(leaves[at : at + run])
        lowest = min(merkle.KEPT_LEVEL, max(run, 1).bit_length() - 1)
        ends = [(one.index + 1) << one.level for one in nodes]
        assert all(at < end <= at + run for end in ends)
        assert sorted((one.level, one.index) for one in nodes) == [
            (level, index) for level in range(lowest, 12) for index in range(at >> level, (at + run) >> level)
        ]
        assert len(nodes) <= max(4, run >> 6) + 12
        kept, at = kept + nodes, at + run
    for one in kept:
        assert one.hash == merkle.root(leaves[one.index << one.level : (one.index + 1) << one.level])


def test_segments_of_a_thousand_keep_eight_nodes_each() -> None:
    edge, kept = Frontier.EMPTY, 0
    for _ in range(64):
        edge, nodes = edge.grow(some(1000))
        kept += len(nodes)
    assert kept == sum(64_000 >> level for level in range(8, 16)) <= 8 * 64


@settings(deadline=None)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=12))
def test_subtrees_joined_are_the_tree(runs: list[int]) -> None:
    """However the leaves are cut, and whoever hashed each run: the same edge after each as from single leaves."""
    leaves, at, edge = some(sum(runs)), 0, Frontier.EMPTY
    for run in runs:
        parts = merkle.subtrees(at, leaves[at : at + run])
        assert len(parts) <= 2 * run.bit_length()
        edge, at = edge.join(run, parts), at + run
        plain = Frontier.EMPTY
        for leaf in leaves[:at]:
            plain = plain.extend([leaf])
        assert edge == plain


@pytest.mark.parametrize(("count", "parts"), [(3, 1), (3, 3), (0, 1), (4, 2), (1, 0)])
def test_parts_of_another_number_of_leaves_are_refused(count: int, parts: int) -> None:
    with pytest.raises(ValueError, match="parts than these leaves have"):
        Frontier.EMPTY.join(count, some(parts))


def test_extending_leaves_the_given_list_and_the_old_edge_alone() -> None:
    leaves = some(7)
    old = Frontier.EMPTY.extend(leaves[:3])
    peaks = old.peaks
    old.extend(leaves)
    assert (old.size, old.peaks, leaves) == (3, peaks, some(7))
    assert old.extend([]) == old


@pytest.mark.parametrize("cut", [0, 1, 9, 10, 41])
def test_a_malformed_edge_is_refused(cut: int) -> None:
    data = Frontier.EMPTY.extend(some(5)).to_bytes()
    for wrong in (data[:cut], data + b"\0", b"F2" + data[2:], data[:9] + b"\x07" + data[10:]):
        with pytest.raises(IntegrityError) as caught:
            Frontier.from_bytes(wrong)
        assert caught.value.code == "FN-6207"


# ---------------------------------------------------------------- proofs


@settings(deadline=None)
@given(st.integers(1, 70), st.data())
def test_inclusion_proofs_hold_and_no_altered_one_does(size: int, data: st.DataObject) -> None:
    leaves = some(size)
    index = data.draw(st.integers(0, size - 1))
    proof, root = proof_of.inclusion(proof_of.over(leaves), index, size), merkle.root(leaves)
    merkle.verify_inclusion(leaves[index], index, size, proof, root)
    refused(merkle.verify_inclusion, flipped(leaves[index], data), index, size, proof, root)
    refused(merkle.verify_inclusion, leaves[index], index, size, proof, flipped(root, data))
    refused(merkle.verify_inclusion, leaves[index], index, size, [*proof, root], root)
    refused(merkle.verify_inclusion, leaves[index], size, size, proof, root)
    refused(merkle.verify_inclusion, leaves[index], -1, size, proof, root)
    for other in range(size):
        if other != index:
            refused(merkle.verify_inclusion, leaves[index], other, size, proof, root)
    for i in range(len(proof)):
        altered = [*proof[:i], flipped(proof[i], data), *proof[i + 1 :]]
        refused(merkle.verify_inclusion, leaves[index], index, size, altered, root)
        refused(merkle.verify_inclusion, leaves[index], index, size, proof[:i] + proof[i + 1 :], root)
        refused(merkle.verify_inclusion, leaves[index], index, size, [*proof[:i], proof[i][:31], *proof[i + 1 :]], root)


@settings(deadline=None)
@given(st.integers(1, 70), st.data())
def test_consistency_proofs_hold_and_no_altered_one_does(new: int, data: st.DataObject) -> None:
    leaves = some(new)
    old = data.draw(st.integers(1, new))
    proof = proof_of.consistency(proof_of.over(leaves), old, new)
    before, after = merkle.root(leaves[:old]), merkle.root(leaves)
    merkle.verify_consistency(old, new, before, after, proof)
    refused(merkle.verify_consistency, old, new, flipped(before, data), after, proof)
    refused(merkle.verify_consistency, old, new, before, flipped(after, data), proof)
    refused(merkle.verify_consistency, old, new, before, after, [*proof, after])
    refused(merkle.verify_consistency, 0, new, before, after, proof)
    refused(merkle.verify_consistency, new + 1, new, before, after, proof)
    for i in range(len(proof)):
        altered = [*proof[:i], flipped(proof[i], data), *proof[i + 1 :]]
        refused(merkle.verify_consistency, old, new, before, after, altered)
        refused(merkle.verify_consistency, old, new, before, after, proof[:i] + proof[i + 1 :])


def flipped(hash_: bytes, data: st.DataObject) -> bytes:
    bit = data.draw(st.integers(0, 255))
    return (int.from_bytes(hash_, "big") ^ 1 << bit).to_bytes(32, "big")


def test_a_rewritten_history_has_no_proof() -> None:
    honest, other = some(8), [*some(2), hashed(b"rewritten"), *some(8)[3:]]
    proof = proof_of.consistency(proof_of.over(other), 4, 8)
    refused(merkle.verify_consistency, 4, 8, merkle.root(honest[:4]), merkle.root(other), proof)


def test_the_longest_proof_and_one_more() -> None:
    size = 2**64
    proof = some(merkle.PROOF_HASHES_MAX)
    refused(merkle.verify_inclusion, proof[0], 0, size, proof, proof[0])
    refused(merkle.verify_inclusion, proof[0], 0, size, [*proof, proof[0]], proof[0])
    current = leaf = hashed(b"leaf")
    for sibling in proof[:64]:
        current = merkle.node(current, sibling)
    merkle.verify_inclusion(leaf, 0, size, proof[:64], current)


def test_there_is_no_proof_of_what_is_not_there() -> None:
    for index in (-1, 3):
        with pytest.raises(ValueError, match="index"):
            proof_of.inclusion(proof_of.over(some(3)), index, 3)
    for old in (0, 4):
        with pytest.raises(ValueError, match="old"):
            proof_of.consistency(proof_of.over(some(3)), old, 3)


# ---------------------------------------------------------------- leaves


@given(
    st.lists(
        st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 255), st.binary(max_size=40), st.binary(max_size=80)),
        max_size=20,
    ),
    st.integers(0, 2**32 - 1),
)
def test_many_leaves_are_the_single_ones(changes: list[tuple[int, int, bytes, bytes]], version: int) -> None:
    salts = [hashed(bytes((n,))) for n in range(len(changes))]
    hlcs, ops, keys, payloads = ([change[n] for change in changes] for n in range(4))
    together = merkle.leaves(hlcs, bytes(ops), version, keys, b"".join(salts), payloads)  # type: ignore[arg-type]
    assert together == [
        merkle.leaf(hlc, op, version, key, merkle.commitment(salt, payload))
        for (hlc, op, key, payload), salt in zip(changes, salts, strict=True)
    ]


def test_each_change_has_a_whole_salt() -> None:
    for salts in (bytes(63), bytes(65), b""):
        with pytest.raises(ValueError, match="salt"):
            merkle.leaves([1, 2], b"\1\1", 1, [b"a", b"b"], salts, [b"", b""])


def test_every_part_of_a_change_is_in_its_leaf() -> None:
    base = (1, 1, 1, b"key", merkle.commitment(bytes(32), b"{}"))
    others = [
        (2, *base[1:]),
        (1, 2, *base[2:]),
        (1, 1, 2, *base[3:]),
        (1, 1, 1, b"kez", base[4]),
        (1, 1, 1, b"key" + base[4][:1], base[4][1:]),  # the key's length is in it too
        (1, 1, 1, b"key", merkle.commitment(bytes(31) + b"\1", b"{}")),
        (1, 1, 1, b"key", merkle.commitment(bytes(32), b"[]")),
    ]
    assert len({merkle.leaf(*change) for change in [base, *others]}) == 1 + len(others)
