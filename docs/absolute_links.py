# SPDX-License-Identifier: BSD-3-Clause
"""Give the links of a README an address, for a package index, which has no tree.

``python docs/absolute_links.py README.md ADDRESS REVISION`` rewrites the file in place:
a link to ``docs/numerics.md`` becomes ``ADDRESS/blob/REVISION/docs/numerics.md``, and a
picture is taken from ``ADDRESS/raw/REVISION/``. ADDRESS is that of the repository.  A
release runs this in its own copy of the tree, before the package is built.
"""

import argparse
import re
import sys
from pathlib import Path

LINK = re.compile(r"(!?)(\[[^\]]*\])\(([^)\s]+)\)")


def absolute(text, address, revision):
    """The text of a README with an address in front of every relative link."""

    def link(found):
        is_picture, name, target = found.groups()
        if re.match(r"\w+:|#", target):  # an address already, or a place in the page
            return found[0]
        kind = "raw" if is_picture else "blob"
        address_of = f"{address.rstrip('/')}/{kind}/{revision}/{target}"
        return f"{is_picture}{name}({address_of})"

    return LINK.sub(link, text)


def main(arguments=None):
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("address")
    parser.add_argument("revision")
    options = parser.parse_args(arguments)
    text = options.file.read_text(encoding="utf-8")
    changed = absolute(text, options.address, options.revision)
    options.file.write_text(changed, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
