"""The report's templates, filled in: every text is escaped, and a name that is missing is an error."""

from __future__ import annotations

import jinja2


def filled_in(name: str, **values: object) -> str:
    """name: of a file in this folder."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**values)
