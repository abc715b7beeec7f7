"""MkDocs hooks: pages of the repository that are not in docs/ join the site.

Markdown in docs/ links to benchmarks/, README.md and other files by their paths in the
repository, so that the links work on any forge. Here these files become pages or downloads of the
site, and the links are rewritten to them. MkDocs then reports whatever does not exist.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

REPOSITORY = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
RENAMED = {"README.md": "overview.md"}  # MkDocs takes a README for the index of its folder


def _site_path(path):
    """Where a file of the repository is in the site, as a source path of MkDocs."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in RENAMED or path.startswith("benchmarks/") and path.endswith(".md"):
        return RENAMED.get(path, path)
    return f"repository/{path}"


def _repository_path(site_path):
    """The inverse, for pages."""
    for path, renamed in RENAMED.items():
        if site_path == renamed:
            return path
    return site_path if site_path.startswith("benchmarks/") else f"docs/{site_path}"


def _add(files, config, path):
    """Add a file of the repository to the site, once."""
    site_path = _site_path(path)
    if files.get_file_from_path(site_path) is None:
        source = str(REPOSITORY / path)
        files.append(File.generated(config, site_path, abs_src_path=source))


def on_files(files, config):
    """Add the README and the pages of benchmarks/."""
    for path in ["README.md", *sorted((REPOSITORY / "benchmarks").glob("*.md"))]:
        _add(
            files, config, str(Path(path).relative_to(REPOSITORY) if path != "README.md" else path)
        )
    return files


def on_page_markdown(markdown, page, config, files):
    """Rewrite links to other files of the repository, and add those that are not pages."""
    here = posixpath.dirname(_repository_path(page.file.src_uri))

    def rewrite(match):
        before, link, after = match.groups()
        if "://" in link or link.startswith(("mailto:", "/")):
            return match.group()
        path = posixpath.normpath(posixpath.join(here, link))
        if not (REPOSITORY / path).is_file():
            return match.group()  # MkDocs reports it
        if not path.startswith("docs/"):
            _add(files, config, path)
        start = posixpath.dirname(page.file.src_uri)
        return before + posixpath.relpath(_site_path(path), start) + after

    return LINK.sub(rewrite, markdown)
