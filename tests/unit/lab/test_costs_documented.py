"""docs/costs.md shows the default model as it is."""

from pathlib import Path

from kproxy import costfile
from kproxy.lab import costmodel

PAGE = Path(__file__).parents[3] / "docs" / "costs.md"


def expected(model: costfile.Model) -> list[str]:
    """Return the rows of the page's table: one per entry, measured medians beside the model."""
    rows = []
    for entry in model.entries:
        terms = entry.seconds
        values = [
            f"{point.median * 1e3:.1f} → {terms.at(point.services, point.endpoints) * 1e3:.1f}"
            for point in entry.points
        ]
        values += [""] * (4 - len(values))
        kernel = "embedded" if entry.kernel.startswith("User-Mode Linux") else "native"
        name = f"{entry.process} `{entry.place}`"
        cells = [name, entry.mode, kernel, f"{terms.constant * 1e3:.1f}"]
        cells += [f"{term * 1e6:.1f}" for term in (terms.per_service, terms.per_endpoint)]
        rows.append(f"| {' | '.join(cells + values)} |")
    return rows


def test_the_page_shows_the_default_model() -> None:
    rows = expected(costfile.read(costmodel.default_path()))
    shown = PAGE.read_text().splitlines()
    assert [row for row in rows if row not in shown] == [], "\n".join(rows)
