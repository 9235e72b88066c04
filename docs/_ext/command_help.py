# SPDX-License-Identifier: BSD-3-Clause
"""The directive ``command-help``: what a command of the command line says of itself."""

import contextlib
import io
import os

from docutils import nodes
from docutils.parsers.rst import Directive

from fastrnn.text.cli import main


class CommandHelp(Directive):
    """The text that ``fastrnn COMMAND --help`` prints, as a block."""

    optional_arguments = 1  # without one: the help of fastrnn itself

    def run(self):
        said = io.StringIO()
        os.environ["COLUMNS"] = "80"  # for argparse, on a terminal of any width
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main([*self.arguments, "--help"])
        command = " ".join(["$ fastrnn", *self.arguments, "--help"])
        text = f"{command}\n{said.getvalue()}"
        return [nodes.literal_block(text, text, language="console")]


def setup(app):
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
