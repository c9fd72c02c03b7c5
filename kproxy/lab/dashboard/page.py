"""The page as one document that asks for nothing but the lab's state, from where it came."""

import secrets
from importlib import resources

import jinja2
from markupsafe import Markup

_FILES = "page"


def html(name: str) -> str:
    """Return the document for a lab of that name.

    Its Content Security Policy allows nothing but its own style and script, and questions to the
    server that it came from.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kproxy.lab.dashboard", _FILES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("dashboard.html.j2").render(
        name=name,
        nonce=secrets.token_urlsafe(16),
        style=Markup(_ours("dashboard.css")),  # noqa: S704  ours
        scripts=[Markup(_ours(one)) for one in ("chart.js", "dashboard.js")],  # noqa: S704  ours
    )


def _ours(name: str) -> str:
    files = resources.files("kproxy.lab.dashboard").joinpath(_FILES, name)
    return files.read_text(encoding="utf-8")
