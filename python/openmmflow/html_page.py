# SPDX-License-Identifier: MIT
"""A page about a run: one HTML file without scripts, pictures inside, that opens anywhere."""
from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from matplotlib.figure import Figure

from . import atomic

_STYLE = """body{font:15px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em;color:#222;background:#fff}
img{max-width:100%;height:auto}h2{margin-top:1.6em;border-bottom:1px solid #ddd}table{border-collapse:collapse}
td,th{padding:.15em 1.2em .15em 0;text-align:left;vertical-align:top}pre{background:#f4f4f4;padding:1em;overflow:auto}
.good{color:#00704f;font-weight:bold}.bad{color:#b34a00;font-weight:bold}"""


class HtmlPage:
    """What is added stands in its order; :meth:`write` makes the file.

    Parameters
    ----------
    title : of the page
    """

    def __init__(self, title: str):
        self._parts = [f"<!DOCTYPE html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
                       f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def verdict(self, text: str, good: bool) -> None:
        """A paragraph in the colour of good or of bad news."""
        self._parts.append(f"<p class={'good' if good else 'bad'}>{html.escape(text)}</p>")

    def table(self, rows: Iterable[Iterable[object]], header: Iterable[str] = (), *, marked: Collection[int] = ()) -> None:
        """Rows of cells; the header is a row of its own. Rows whose index is in ``marked`` are bad news."""
        def row(cells, tag, mark=""):
            return f"<tr{mark}>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

        head = row(header, "th") if header else ""
        body = "".join(row(cells, "td", " class=bad" if index in marked else "") for index, cells in enumerate(rows))
        self._parts.append(f"<table>{head}{body}</table>")

    def figure(self, title: str, figure: Figure) -> None:
        """A heading and a picture."""
        content = io.BytesIO()
        figure.savefig(content, dpi=100, format="png")
        picture = base64.b64encode(content.getvalue()).decode()
        self.heading(title)
        self._parts.append(f'<img alt="{html.escape(title)}" src="data:image/png;base64,{picture}">')

    def fragment(self, markup: str) -> None:
        """HTML as it is."""
        self._parts.append(markup)

    def record(self, title: str, document: object) -> None:
        """A heading and a JSON document."""
        self.heading(title)
        self._parts.append(f"<pre>{html.escape(json.dumps(document, indent=1))}</pre>")

    def write(self, path) -> Path:
        """Write the file; it appears complete or not at all. Returns its path."""
        atomic.write_bytes(path, "\n".join([*self._parts, "</html>\n"]).encode())
        return Path(path)
