"""What pages take from the package when they are built, so that it cannot go stale.

    .. computed:: module function [argument ...]

puts in its place the reStructuredText that a function of docs/figures gives; the arguments are words.
"""

import importlib
from pathlib import Path

from docutils import nodes
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
        return self.parse_text_to_nodes(getattr(imported, function)(*words), allow_section_headings=True)


def setup(app):
    """Called by Sphinx."""
    app.add_directive("computed", Computed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
