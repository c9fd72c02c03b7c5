"""The page as one document that asks for nothing but the lab's state, from where it came."""

import secrets
from importlib import resources

import jinja2
from markupsafe import Markup

_HERE, _FILES = "kproxy.lab.dashboard", "page"


def html(name: str) -> str:
    """Return the document for a lab of that name.

    Its Content Security Policy allows nothing but its own style and script, and questions to the
    server that it came from.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(_HERE, _FILES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("dashboard.html.j2").render(
        name=name,
        nonce=secrets.token_urlsafe(16),
        style=_ours("kproxy", "palette.css") + _ours(_HERE, _FILES, "dashboard.css"),
        scripts=[_ours(_HERE, _FILES, one) for one in ("chart.js", "dashboard.js")],
    )


def _ours(package: str, *path: str) -> Markup:
    text = resources.files(package).joinpath(*path).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704  a file of this project, with nothing of anybody else's in it
