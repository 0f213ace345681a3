"""Signed notes: published examples, one form, known keys verify or the note is refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednode.crypto import note
from fednode.crypto.errors import IntegrityError
from fednode.crypto.keys import SigningKey
from fednode.crypto.note import COSIGNATURE, ED25519, Line, Note

# The example of golang.org/x/mod/sumdb/note, from which C2SP's signed-note comes.
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The example of C2SP's signed-note: empty lines in the text.
QUASIMODO_NOTE = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)
KEY = SigningKey.from_seed(bytes(range(32)))
OTHER = SigningKey.from_seed(bytes(32))
TEXT = "a text\n"


def signed(text: str = TEXT, name: str = "hebei/13", key: SigningKey = KEY) -> Line:
    return Line(name, note.key_id(name, ED25519, key.public), key.sign(text.encode()))


def cosigned(time_s: int, text: str = TEXT, name: str = "hebei/1301", key: SigningKey = OTHER) -> Line:
    signature = key.sign(note.cosigned(text, time_s))
    return Line(name, note.key_id(name, COSIGNATURE, key.public), time_s.to_bytes(8, "big") + signature)


def refused(code: str, check: object, *arguments: object) -> None:
    assert callable(check)
    with pytest.raises(IntegrityError) as caught:
        check(*arguments)
    assert caught.value.code == code


def test_the_published_note_verifies_with_the_published_key() -> None:
    name, kind, public = note.parse_verifier_key(NEUMANN)
    parsed = note.parse(NEUMANN_NOTE)
    assert (name, kind, note.verifier_key(name, kind, public)) == ("PeterNeumann", ED25519, NEUMANN)
    assert parsed.format() == NEUMANN_NOTE
    note.verify(parsed, name, public)
    altered = note.parse(NEUMANN_NOTE.replace("don't", "do"))
    refused("FN-6201", note.verify, altered, name, public)


def test_the_text_ends_at_the_last_empty_line() -> None:
    parsed = note.parse(QUASIMODO_NOTE)
    assert parsed.text.endswith("\n\ned è subito sera.\n")
    assert [(line.name, len(line.signature)) for line in parsed.lines] == [("quasimodo.example/salvatore", 64)]
    assert parsed.format() == QUASIMODO_NOTE


def test_signatures_of_unknown_keys_are_left_alone() -> None:
    strangers = (Line("hebei/13", b"\0\0\0\0", b"?"), Line("other", signed().key_id, b"?"))
    parsed = note.parse(Note(TEXT, (*strangers, signed(), cosigned(7))).format())
    note.verify(parsed, "hebei/13", KEY.public)
    assert note.verify_cosignature(parsed, "hebei/1301", OTHER.public) == 7


def test_a_known_key_verifies_on_every_line_or_the_note_is_refused() -> None:
    bad = Line("hebei/13", signed().key_id, bytes(64))
    for lines in ((bad,), (signed(), bad), (bad, signed())):
        refused("FN-6201", note.verify, Note(TEXT, lines), "hebei/13", KEY.public)
    refused("FN-6201", note.verify, Note(TEXT, (signed(),)), "hebei/13", OTHER.public)
    refused("FN-6201", note.verify, Note(TEXT, (signed(),)), "hebei/14", KEY.public)
    refused("FN-6201", note.verify, Note("another\n", (signed(),)), "hebei/13", KEY.public)


def test_a_cosignature_is_no_signature_and_binds_its_time() -> None:
    both = Note(TEXT, (signed(), cosigned(1_700_000_000), cosigned(1_700_000_060)))
    assert note.verify_cosignature(both, "hebei/1301", OTHER.public) == 1_700_000_060
    refused("FN-6201", note.verify, both, "hebei/1301", OTHER.public)
    refused("FN-6201", note.verify_cosignature, both, "hebei/13", KEY.public)
    line = cosigned(1_700_000_000)
    for stamped in (
        (1_700_000_001).to_bytes(8, "big") + line.signature[8:],
        line.signature[8:],
        line.signature[:7],
        line.signature + b"\0",
    ):
        altered = Note(TEXT, (Line(line.name, line.key_id, stamped),))
        refused("FN-6201", note.verify_cosignature, altered, "hebei/1301", OTHER.public)


def test_the_latest_time_that_a_cosignature_may_state() -> None:
    most = note.TIME_MAX_S
    assert note.verify_cosignature(Note(TEXT, (cosigned(most),)), "hebei/1301", OTHER.public) == most
    refused("FN-6201", note.verify_cosignature, Note(TEXT, (cosigned(most + 1),)), "hebei/1301", OTHER.public)


GOOD = Note(TEXT, (signed(),)).format()
LINE = signed().format()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "a text\n",
        "a text\n\n",
        GOOD[:-1],
        GOOD + "\n",
        GOOD.replace("\n\n", "\n"),
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("a text", "a\ttext"),
        GOOD.replace("a text", "a\0text"),
        GOOD.replace("a text", "\ud800"),
        GOOD.replace("— ", "- "),
        GOOD.replace("— ", "—"),
        GOOD.replace("hebei/13", ""),
        GOOD.replace("hebei/13", "he+bei"),
        GOOD.replace("hebei/13", "he bei"),
        GOOD.replace("hebei/13", "he\u3000bei"),
        GOOD.replace("hebei/13", "he\u2028bei"),
        GOOD[:-2] + "\n",
        GOOD.replace("=\n", "\n"),
        GOOD[:-3] + "*" + GOOD[-2:],
        TEXT + "\n— hebei/13 AAAAAA==\n",
        TEXT + "\n" + LINE * (note.LINES_MAX + 1),
        "x" * note.NOTE_BYTES_MAX + GOOD,
    ],
)
def test_what_is_no_note_is_refused(text: str) -> None:
    refused("FN-6208", note.parse, text)


def test_base64_has_one_form() -> None:
    encoded = LINE.split(" ")[2].strip()
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    at = len(encoded.rstrip("=")) - 1
    other = encoded[:at] + last[last.index(encoded[at]) ^ 1] + encoded[at + 1 :]
    assert base64.b64decode(other) == base64.b64decode(encoded), "the lenient reading: the same bytes"
    refused("FN-6208", note.parse, GOOD.replace(encoded, other))


def test_the_largest_notes() -> None:
    assert len(note.parse(TEXT + "\n" + LINE * note.LINES_MAX).lines) == note.LINES_MAX
    filler = "x" * (note.NOTE_BYTES_MAX - len(GOOD.encode()))
    assert len(note.parse(filler + GOOD).text) == len(filler) + len(TEXT)
    refused("FN-6208", note.parse, filler + "x" + GOOD)


def test_nothing_is_written_that_would_not_be_read() -> None:
    for bad in (
        Note("no newline", (signed(),)),
        Note(TEXT, ()),
        Note("a\0\n", (signed(),)),
        Note(TEXT, (Line("a b", b"1234", b"s"),)),
        Note(TEXT, (Line("a", b"1234", b""),)),
        Note(TEXT, (Line("a\n— b", b"1234", b"s"),)),
    ):
        refused("FN-6208", bad.format)


PRINTABLE = st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"]) | st.just("\n"))
NAME = st.text(
    st.characters(min_codepoint=0x21, exclude_categories=["Cs", "Z", "C"], exclude_characters="+"), min_size=1
)


@given(PRINTABLE, st.lists(st.tuples(NAME, st.binary(min_size=5, max_size=80)), min_size=1, max_size=5))
def test_what_was_written_is_read_again(text: str, lines: list[tuple[str, bytes]]) -> None:
    written = Note(text + "\n", tuple(Line(name, data[:4], data[4:]) for name, data in lines))
    assert note.parse(written.format()) == written


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_anything_else_is_refused_and_never_crashes(text: str) -> None:
    for candidate in (text, text + GOOD, GOOD + text, GOOD.replace("hebei", text)):
        try:
            parsed = note.parse(candidate)
        except IntegrityError:
            continue
        assert parsed.format() == candidate


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "FN-6208"),
        ("PeterNeumann", "FN-6208"),
        (NEUMANN.replace("c74f", "c74e"), "FN-6208"),
        (NEUMANN.replace("c74f20a3", "C74F20A3"), "FN-6208"),
        (NEUMANN.replace("Peter", "Poter"), "FN-6208"),
        (NEUMANN.replace("Peter", ""), "FN-6208"),
        (NEUMANN[:-4], "FN-6208"),
        (NEUMANN + "\n", "FN-6208"),
        (note.verifier_key("a", 2, KEY.public), "FN-6208"),
        (note.verifier_key("a b", ED25519, KEY.public), "FN-6208"),
        (note.verifier_key("a", ED25519, bytes(32)), "FN-6205"),
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str, code: str) -> None:
    refused(code, note.parse_verifier_key, text)
