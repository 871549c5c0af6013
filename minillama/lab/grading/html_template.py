"""Jinja templates of HTML pages: values are escaped, and a missing one is an error."""

from pathlib import Path

import jinja2


def html_template(path: Path, **globals: object) -> jinja2.Template:
    """The template in a file.

    globals: names that it can use in addition to the values of `render`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(path.name, globals=globals)
