# SPDX-License-Identifier: MIT
"""A hook of MkDocs: files of the repository outside of docs/ that pages link to become files of the site."""
import re
from pathlib import Path

from mkdocs.structure.files import File

# ](../examples/...) on a page directly in docs/, as GitHub resolves it.
_LINK = re.compile(r"\]\(\.\./((?!\.\./)[^)#\s]+)\)")


def on_files(files, *, config, **_):
    """MkDocs calls this with the files of docs/."""
    root = Path(config.config_file_path).parent
    for page in list(files.documentation_pages()):
        for path in _LINK.findall(page.content_string):
            if "/" not in page.src_uri and (root / path).is_file() and files.get_file_from_path(path) is None:
                files.append(File.generated(config, path, abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, *, page, files, **_) -> str:
    """MkDocs calls this with the text of each page."""
    if "/" in page.file.src_uri:
        return markdown
    return _LINK.sub(lambda match: f"]({match[1]})" if files.get_file_from_path(match[1]) else match[0], markdown)
