# SPDX-License-Identifier: BSD-3-Clause
"""From the source on the site back to the reference, by the name that is used there.

Sphinx remembers one public module for each source file. What two of them share, as
`fastrnn.callbacks` and `fastrnn.schedules` do, would be linked to an anchor that is not
on the page. The page has the name that the anchor begins with.
"""

import re

LINK = re.compile(
    r'generated/(?P<page>[\w.]+\.(?P<name>\w+))\.html#[\w.]+?\.(?P=name)(?P<rest>[\w.]*)"'
)


def _mend(app, pagename, templatename, context, doctree):
    if pagename.startswith("_modules/") and "body" in context:
        new = r'generated/\g<page>.html#\g<page>\g<rest>"'
        context["body"] = LINK.sub(new, context["body"])


def setup(app):
    app.connect("html-page-context", _mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
