"""``kproxy report``: one file that shows what results say, for a browser, a review, a sheet."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kproxy import errors

if TYPE_CHECKING:
    from kproxy.reports.reading import Loaded

HTML, MARKDOWN, CSV = "html", "markdown", "csv"
ENDINGS = {HTML: "html", MARKDOWN: "md", CSV: "csv"}


@click.command()
@click.argument("results", nargs=-1, required=True, metavar="[NAME=]RESULT...")
@click.option(
    "--format",
    "form",
    type=click.Choice([*ENDINGS]),
    help="What is written.  [default: by the name given to --out, else html]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, allow_dash=True),
    help="File to write, - for standard output; default: report.html beside the first result.",
)
def report(results: tuple[str, ...], form: str | None, out: Path | None) -> int:
    """Write a report on results of `kproxy compare` and `kproxy chain`.

    RESULT is a result.json or the directory it is in. Several stand side by side, called by NAME
    or by their directory: `kproxy report before=results/a after=results/b`.

    The HTML file holds everything it needs. Exit code 1: a result is damaged, and what could be
    read of it was; 2: nothing could.
    """
    loaded = _loaded(results)
    form = form or _form(out)
    path = out or loaded[0].path.parent / f"report.{ENDINGS[form]}"
    if any(path.exists() and path.samefile(one.path) for one in loaded):
        raise errors.UsageError(
            f"--out {path}: that would replace the result", remedy="name another file"
        )
    text = rendered(loaded, form)
    if str(path) == "-":
        click.echo(text, nl=False)
    else:
        write(text, path)
        click.echo(f"kproxy: written: {path}", err=True)
    for one in loaded:
        for trouble in one.troubles:
            click.echo(f"kproxy: {one.path}: {trouble}", err=True)
    return 1 if any(one.troubles for one in loaded) else 0


def beside(result: Path) -> None:
    """Write the report of a run beside its result, and say where; a failure costs only that."""
    from kproxy.reports import reading

    path = result.with_name(f"report.{ENDINGS[HTML]}")
    try:
        write(rendered([reading.read(result)], HTML), path)
    except errors.UsageError as error:
        click.echo(f"kproxy: no report: {error}", err=True)
        return
    click.echo(f"kproxy: report: {path}", err=True)


def rendered(loaded: "Sequence[Loaded]", form: str) -> str:
    """Return the text of a report."""
    from kproxy.reports import csvfile, report

    if form == CSV:
        return csvfile.table(loaded)
    document = report.document(loaded)
    if form == MARKDOWN:
        from kproxy.reports import markdown

        return markdown.markdown(document)
    from kproxy.reports import page

    return page.html(document)


def write(text: str, path: Path) -> None:
    """Write a report. Raises UsageError if that cannot be."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise errors.UsageError(
            f"--out {path}: {error.strerror}", remedy="name a file that you may write"
        ) from None


def _form(out: Path | None) -> str:
    endings = {ending: form for form, ending in ENDINGS.items()}
    return endings.get(out.suffix.removeprefix("."), HTML) if out else HTML


def _loaded(words: Sequence[str]) -> "list[Loaded]":
    """Read all results; every one has a label of its own."""
    import dataclasses

    from kproxy.reports import reading

    loaded: list[Loaded] = []
    for word in words:
        label, _, rest = word.partition("=")
        named = bool(rest) and not Path(word).exists()
        one = reading.read(Path(rest), label) if named else reading.read(Path(word))
        taken = {other.label for other in loaded}
        if one.label in taken:
            numbers = (f"{one.label} ({n})" for n in range(2, len(words) + 2))
            one = dataclasses.replace(one, label=next(n for n in numbers if n not in taken))
        loaded.append(one)
    return loaded
