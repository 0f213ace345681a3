"""docs: the documentation, readable where there is no network."""

from __future__ import annotations

import sys
from importlib import resources
from importlib.resources.abc import Traversable

import rich_click as click

from fednode.node.cli.frame import Session, command, table
from fednode.sync.errors import Refused

ENDING = ".md"


def pages() -> dict[str, Traversable]:
    """Every page that comes with the program, by its name; `quickstart.zh` is the Chinese `quickstart`."""
    folder = resources.files("fednode.node").joinpath("data/docs")
    found = (one for one in folder.iterdir() if one.name.endswith(ENDING))
    return {one.name.removesuffix(ENDING): one for one in sorted(found, key=lambda one: one.name)}


def title(text: str) -> str:
    """A page's first heading."""
    return next((line.lstrip("# ") for line in text.splitlines() if line.startswith("# ")), "")


@command("help.docs")
@click.argument("topic", default="")
def docs(session: Session, topic: str) -> None:
    """A page in the language that is spoken, where there is one; without a topic, which pages there are."""
    there = pages()
    if not topic:
        found = [{"topic": name, "title": title(page.read_text("utf-8"))} for name, page in there.items()]
        rows = [(one["topic"], one["title"]) for one in found]
        session.done({"docs": found}, table(rows, [session.words("head.topic"), session.words("head.heading")]))
        return
    wanted = topic.removesuffix(ENDING)
    name = next((one for one in (f"{wanted}.{session.lang}", wanted, f"{wanted}.zh") if one in there), "")
    if not name:
        raise Refused("FN-3761", topic=topic, known=", ".join(there))
    text = there[name].read_text("utf-8")
    session.done({"topic": name, "text": text}, [_shown(session, text)])


def _shown(session: Session, text: str) -> str:
    """As a terminal shows it; as it is written where nobody looks (`fednode docs faq | less`)."""
    if session.as_json or not sys.stdout.isatty() or "NO_COLOR" in session.environ:
        return text.rstrip("\n")
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    with console.capture() as captured:
        console.print(Markdown(text))
    return captured.get().rstrip("\n")
