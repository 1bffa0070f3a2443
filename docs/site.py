"""What mkdocs needs beside the pages: CONTRIBUTING and CHANGELOG as pages, and one with the help of every command."""

import re
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files
from typer.core import TyperGroup

ROOT = Path(__file__).parents[1]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
WIDTH = 84


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "cli.md", content=commands()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files of the checkout lead to their pages; links to those that have none become plain words."""
    depth = "../" * page.file.src_uri.count("/")
    for name, target in PAGES.items():
        markdown = re.sub(rf"\]\((\.\./)+{re.escape(name)}", f"]({depth}{target}", markdown)
        markdown = markdown.replace(f"]({name}", f"]({target}")
    return re.sub(r"\[([^][]+)\]\((?:\.\./)*(?:LICENSE|README\.md|CITATION\.cff)\)", r"\1", markdown)


def commands() -> str:
    """`madtp --help`, and that of every verb, as it stands."""
    from madtp.cli import main

    if not main.app.registered_commands:
        main._register()
    group = typer.main.get_command(main.app)
    assert isinstance(group, TyperGroup)
    parts = ["# Command line\n\nWhat `madtp --help` and `madtp VERB --help` say.\n", _help(group, "madtp", "madtp")]
    parts += [_help(command, f"madtp {name}", name) for name, command in group.commands.items()]
    return "\n".join(parts)


def _help(command: Any, called: str, title: str) -> str:
    context = command.make_context(called, [], resilient_parsing=True, max_content_width=WIDTH, terminal_width=WIDTH)
    return f"## {title}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
