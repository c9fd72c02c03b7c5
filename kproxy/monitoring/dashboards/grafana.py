"""Dashboards in Grafana's own words. The only module that needs grafana-foundation-sdk.

The classic schema, because Grafana 9 to 13 all read it; the library warns, at its import, that
there is a newer one.
"""

import json
import warnings

from .boards import ALL, TAG
from .model import Board, Look, Panel, Place, Row, Variable, layout

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import common as builders_of_common
    from grafana_foundation_sdk.builders import (
        dashboard,
        prometheus,
        stat,
        statetimeline,
        timeseries,
    )
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common
    from grafana_foundation_sdk.models import dashboard as schema

SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
_LEFT_OUT = ("auto", "auto_min", "auto_count")
"""Of a variable: what the library writes and Grafana's schema does not know for its type."""
_ALERTS = 'ALERTS{alertstate="firing",severity!="none"}'

Maker = timeseries.Panel | stat.Panel | statetimeline.Panel


def documents() -> dict[str, str]:
    """Return the files' names and their texts."""
    return {f"{board.uid}.json": text(board) for board in ALL}


def text(board: Board) -> str:
    """Return a dashboard as JSON; the same board is always the same text."""
    made = json.loads(JSONEncoder(sort_keys=True).encode(build(board)))
    for variable in made["templating"]["list"]:
        for name in _LEFT_OUT:
            variable.pop(name, None)
    return json.dumps(made, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def build(board: Board) -> schema.Dashboard:
    """Return a dashboard as the library has it."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(schema.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .annotation(_alerts())
        .link(
            dashboard.DashboardLink("Other dashboards of kproxy")
            .type(schema.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
    for variable in board.variables:
        made.with_variable(_variable(variable))
    for number, (one, place) in enumerate(layout(board), start=1):
        if isinstance(one, Row):
            made.with_row(dashboard.Row(one.title).id(number).grid_pos(_place(place)))
        else:
            made.with_panel(_panel(one).id(number).grid_pos(_place(place)))
    return made.build()


def _alerts() -> dashboard.AnnotationQuery:
    """Return what marks the times when alerts fired in all pictures."""
    asked = prometheus.Dataquery().expr(_ALERTS).ref_id("Alerts").datasource(SOURCE)
    made = dashboard.AnnotationQuery().name("Alerts").datasource(SOURCE).enable(True)
    return made.icon_color("red").target(asked)


def _variable(one: Variable) -> dashboard.QueryVariable:
    made = (
        dashboard.QueryVariable(one.name)
        .label(one.label)
        .datasource(SOURCE)
        .query({"query": one.query, "refId": one.name})
        .refresh(schema.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(schema.VariableSort.ALPHABETICAL_ASC)
        .multi(one.several)
        .include_all(one.several)
    )
    if one.several:
        made.current(schema.VariableOption(selected=True, text="All", value="$__all"))
    return made


def _place(place: Place) -> schema.GridPos:
    return schema.GridPos(h=place.height, w=place.width, x=place.x, y=place.y)


def _panel(one: Panel) -> Maker:
    made = _look(one)
    made.title(one.title).description(one.description).datasource(SOURCE).unit(one.unit)
    made.min(0)
    if one.most is not None:
        made.max(one.most)
    steps = [schema.Threshold(value=step.value, color=step.colour) for step in one.steps]
    absolute = schema.ThresholdsMode.ABSOLUTE
    made.thresholds(dashboard.ThresholdsConfig().mode(absolute).steps(steps))
    if one.words:
        words = {
            f"{value:g}": schema.ValueMappingResult(text=text, index=index)
            for index, (value, text) in enumerate(one.words)
        }
        made.mappings([schema.ValueMap(options=words)])
    for number, query in enumerate(one.queries):
        target = prometheus.Dataquery().expr(query.expr).ref_id(chr(ord("A") + number))
        target.datasource(SOURCE).legend_format(query.legend).range()
        made.with_target(target)
    return made


def _look(one: Panel) -> Maker:
    if one.look is Look.FIGURE:
        last = builders_of_common.ReduceDataOptions().calcs(["lastNotNull"])
        return (
            stat.Panel()
            .reduce_options(last)
            .color_mode(common.BigValueColorMode.BACKGROUND)
            .graph_mode(common.BigValueGraphMode.NONE)
            .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        )
    if one.look is Look.STATES:
        by_steps = dashboard.FieldColor().mode(schema.FieldColorModeId.THRESHOLDS)
        return (
            statetimeline.Panel()
            .color_scheme(by_steps)
            .merge_values(True)
            .show_value(common.VisibilityMode.NEVER)
            .row_height(0.9)
        )
    table = builders_of_common.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST)
    table.placement(common.LegendPlacement.BOTTOM).show_legend(True)
    all_of_them = builders_of_common.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)
    return timeseries.Panel().legend(table).tooltip(all_of_them).line_width(1).fill_opacity(5)
