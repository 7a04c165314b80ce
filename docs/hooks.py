"""What MkDocs calls while it builds the site: texts of the repository become pages, and the reference is generated.

Nothing is copied by hand: ``included.py`` takes the repository's own texts in, ``command_pages.py`` asks the
argparse parser, ``code_pages.py`` reads error codes, policy members and modules off the code.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "docs"), str(ROOT)]  # the generators beside this file, and the package as it stands here

import code_pages  # noqa: E402 - after the path
import command_pages  # noqa: E402 - after the path
import included  # noqa: E402 - after the path
import navigation  # noqa: E402 - after the path
import pictures  # noqa: E402 - after the path
from mkdocs.config.defaults import MkDocsConfig  # noqa: E402 - after the path
from mkdocs.structure.files import File, Files  # noqa: E402 - after the path
from mkdocs.structure.pages import Page  # noqa: E402 - after the path


def generated_pages() -> dict[str, str]:
    """Every page that no file in docs/ stands for, by its place in the site."""
    return {**included.pages(), **command_pages.pages(), **code_pages.pages()}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give the site its navigation, with the generated pages in it."""
    config.nav = navigation.navigation()
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and every file of the repository that a page links to."""
    pages = generated_pages()
    for place, text in pages.items():
        files.append(File.generated(config, place, content=text))
    for place, drawn in pictures.pictures().items():
        files.append(File.generated(config, place, content=drawn))
    linked = {path for source in sorted((ROOT / "docs").rglob("*.md")) for path in included.linked_files(source)}
    linked |= included.files_of_included()
    for path in sorted(linked):
        files.append(File.generated(config, included.place_of_file(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links of a page in docs/ to files elsewhere in the repository into links to their pages."""
    if page.file.generated_by is not None:
        return markdown
    return included.with_links(markdown, Path("docs") / page.file.src_uri, page.file.src_uri)
