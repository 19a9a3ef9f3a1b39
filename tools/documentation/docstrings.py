# SPDX-License-Identifier: MIT
"""An extension of griffe, which reads the Python sources for mkdocstrings: docstrings are Markdown where they are reST."""
import re
import textwrap

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([^`]+)`")
_DOCTEST = re.compile(r"^( *)>>> .*(?:\n\1\S.*)*", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Roles become code, examples fenced code."""

    def on_object(self, *, obj, **_):
        if obj.docstring is not None:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = _DOCTEST.sub(
                lambda match: textwrap.indent(f"```pycon\n{textwrap.dedent(match[0])}\n```", match[1]), text)
