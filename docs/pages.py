"""A hook of MkDocs: pages that are kept elsewhere, and links between files as links between pages.

README.md and its like are read where they stand. Links in them and in the pages of this folder name
files, so that they work on a code host; here those that lead to pages and images become links to
these, and those that lead to other files of the source tree become plain text. A text that is the
name of a page's file becomes the page's title.
"""

import os.path
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

# By page: the file, and the section of it if it is not the whole.
ELSEWHERE = {
    "index.md": ("README.md", None),
    "methods.md": ("README.md", "Which method"),
    "cli.md": ("docs/api.md", "The command line"),
    "benchmarks.md": ("benchmarks/README.md", None),
    "contributing.md": ("CONTRIBUTING.md", None),
    "security.md": ("SECURITY.md", None),
    "changelog.md": ("CHANGELOG.md", None),
}
PAGE_OF = {file: page for page, (file, section) in ELSEWHERE.items() if section is None}

_LINK = re.compile(r"\[(?P<text>[^][]*)\]\((?P<file>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")
_FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages that are kept elsewhere."""
    for page, (name, section) in ELSEWHERE.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        if section is not None:
            text = section_of(text, section, name)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Turns links between files into links between pages, outside blocks of code."""
    name, _section = ELSEWHERE.get(page.file.src_uri, (f"docs/{page.file.src_uri}", None))
    parts = _FENCE.split(markdown)
    return "".join(
        part if part.startswith("```") else _LINK.sub(lambda link: _on_page(link, name), part)
        for part in parts
    )


def section_of(text: str, title: str, name: str) -> str:
    """Returns a section of the second level as a page of its own."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"{name} has no section '{title}'")
    return f"# {title}\n{found.group(1)}"


def _on_page(link: re.Match[str], name: str) -> str:
    """Returns a link of the file `name` as the site has it."""
    target = os.path.normpath(os.path.join(os.path.dirname(name), link["file"]))
    anchor = link["anchor"] or ""
    if not (ROOT / target).exists():
        return link[0]  # for MkDocs to complain about
    if target not in PAGE_OF and not target.startswith("docs/"):
        return link["text"]
    text = _title(target) if link["text"] == link["file"] else link["text"]
    return f"[{text}]({PAGE_OF.get(target, target.removeprefix('docs/'))}{anchor})"


def _title(name: str) -> str:
    first, *_ = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return first.removeprefix("# ")
