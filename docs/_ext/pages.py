# SPDX-License-Identifier: BSD-3-Clause
"""The directive ``pages``: a toctree of the pages that are there, by patterns in order.

Of ``toctree`` every entry has to exist. Here a line that no page fits adds nothing, so
a list can say where a page will go, and ``*`` at the end adds what no line has named.
"""

from docutils.statemachine import StringList
from sphinx.directives.other import TocTree
from sphinx.util import docname_join
from sphinx.util.matching import patfilter


class Pages(TocTree):
    """The pages in this page's folder that fit a line, each once."""

    def run(self):
        here = self.env.docname
        left = self.env.found_docs - {here}
        names = []
        for pattern in self.content:
            found = sorted(patfilter(left, docname_join(here, pattern)))
            names += [f"/{name}" for name in found]
            left = left.difference(found)
        self.env.note_reread()  # another page may come
        self.content = StringList(names, source=here)
        return super().run() if names else []


def setup(app):
    app.add_directive("pages", Pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
