"""What pages take from the package when they are built, so that it cannot go stale.

    .. computed:: module function [argument ...]

puts in its place the reStructuredText that a function of docs/figures gives; the arguments are words.
"""

import importlib
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

# The tutorials in the order in which one reads them; an example that is not named comes last.
ORDER = (
    "standard", "depthwise_and_pointwise", "separable", "atrous", "transposed", "autoencoder", "embedded", "large_image",
)  # fmt: skip


def example_order(filename: str) -> tuple[int, str]:
    """Of a gallery's files."""
    name = Path(filename).stem.removeprefix("plot_")
    return ORDER.index(name) if name in ORDER else len(ORDER), name


class Computed(SphinxDirective):
    """The directive."""

    required_arguments = 2
    optional_arguments = 8

    def run(self) -> list[nodes.Node]:
        module, function, *words = self.arguments
        imported = importlib.import_module(module)
        self.env.note_dependency(imported.__file__)
        text = getattr(imported, function)(*words)
        return self.parse_content_to_nodes(text)

    def parse_content_to_nodes(self, text: str) -> list[nodes.Node]:
        lines = StringList(text.splitlines(), source=self.get_source_info()[0])
        node = nodes.Element()
        self.state.nested_parse(lines, self.content_offset, node)
        return node.children


def setup(app):
    """Called by Sphinx."""
    app.add_directive("computed", Computed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
