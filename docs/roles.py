"""What the docstrings' roles, such as :class:`Name`, become in the pages: links."""

import re

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`(~?)([\w.]+)`")


class Roles(Extension):
    """Turns each role into a link that stays plain code where nothing has that name."""

    def on_object(self, *, obj: Object, **options) -> None:
        """Rewrite the docstring of a class, function, module or attribute."""
        if obj.docstring is None:
            return
        module = obj.module.path

        def link(match: re.Match) -> str:
            short, name = match.groups()
            path = name if name.startswith("irbridge") else f"{module}.{name}"
            shown = name.rpartition(".")[2] if short else name
            return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'

        obj.docstring.value = ROLE.sub(link, obj.docstring.value)
