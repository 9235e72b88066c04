# SPDX-License-Identifier: BSD-3-Clause
"""Links of Markdown to files of the repository that are no pages of the site.

A page may include a file from outside docs/, whose links were written for readers of
the repository. A link to a file that such a page includes goes to that page; one to any
other file is a download. Links to what does not exist are left alone, for MyST to warn.
"""

from pathlib import Path

from sphinx.addnodes import download_reference, pending_xref

DOCS = Path(__file__).resolve().parents[1]
# What is included, and the page that it is on.
PAGES = {
    "examples/tutorial.md": "start/tutorial",
    "examples/README.md": "results",
    "COMING_FROM_KERAS.md": "start/from_keras",
}


def _source(node):
    """The file that a node was written in, as far as docutils has noted it."""
    while node is not None and not node.source:
        node = node.parent
    return node and Path(node.source)


def _redirect(app, doctree):
    for link in list(doctree.findall(pending_xref)):
        if link.get("reftype") != "myst":
            continue
        target, _, fragment = link["reftarget"].partition("#")
        if link.get("refdomain") == "doc":  # MyST has found it, from the page
            path = (DOCS / f"{target}.md").resolve()
        else:
            path = (_source(link).parent / target).resolve()
        if not path.is_file() or path.is_relative_to(DOCS):
            continue
        name = path.relative_to(DOCS.parent).as_posix()
        if name in PAGES:
            link["refdomain"], link["reftarget"] = "doc", PAGES[name]
            link["reftargetid"] = link.get("reftargetid") or fragment or None
        else:
            download = download_reference("", "", *link.children)
            download["refdoc"] = link["refdoc"]
            download["reftarget"] = f"/../{name}"
            link.replace_self(download)


def setup(app):
    # Before the collectors of Sphinx, which copy the files of download references.
    app.connect("doctree-read", _redirect, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
