"""Writes docs/errors.md: every error code with its words, in the order of the exit codes. scripts/generate calls it."""

from __future__ import annotations

import sys
from pathlib import Path

from fednode.node.messages import catalogue

HEADS = {
    "2": "usage: the command line was not understood",
    "3": "input refused, or partly refused",
    "4": "the peer cannot be reached; nothing is lost",
    "5": "refused by the peer, or not permitted here",
    "6": "integrity failure: a proof does not hold",
    "7": "trouble with this node's store, home or configuration",
}


def page() -> str:
    """The page's text."""
    lines = [
        "# Errors",
        "",
        "Made from the message catalogue (`node/messages/*.toml`) by `scripts/generate`: do not edit. The first digit",
        "of a code is the exit code of the command. Exit code 0 is success, 130 an interruption: nothing half done.",
    ]
    entries = sorted((key, entry) for key, entry in catalogue().items() if key.startswith("FN-"))
    for digit, head in HEADS.items():
        lines += [
            "",
            f"## Exit code {digit}: {head}",
            "",
            "| code | what happened | what to do | 中文 |",
            "| --- | --- | --- | --- |",
        ]
        for key, entry in entries:
            if key[3] == digit:
                cells = (key, entry["en"], entry.get("en_hint", ""), entry["zh"])
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or with --check compare."""
    path = Path(__file__).resolve().parents[1] / "docs/errors.md"
    if "--check" in sys.argv:
        same = path.exists() and path.read_text(encoding="utf-8") == page()
        if not same:
            print("docs/errors.md is stale: run scripts/generate", file=sys.stderr)
        return 0 if same else 1
    path.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
