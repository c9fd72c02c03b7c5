"""The run: every group of links on a cluster of its own, into one result."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from kproxy import errors
from kproxy.lab import facts, news
from kproxy.lab.chain import probes, shop, table
from kproxy.lab.chain.settings import Parameters
from kproxy.lab.chain.steady import Steady
from kproxy.lab.chain.trial import ChainTrials
from kproxy.lab.comparison import INTERRUPTED, TERMINATED, Step
from kproxy.lab.site import Site
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.traffic import chainset
from kproxy.traffic.chainsummary import Words, summarise
from netns.errors import NetnsError
from netns.kernels import base
from netns.lab import Lab
from netns.nicreport import NicReport

LAB_NAME = "chain"


def run(
    parameters: Parameters, state_dir: Path, *, progress: Callable[[Step], None]
) -> chainset.ChainSet:
    """Run it all.

    If a group goes wrong for good (its cluster does not come up) the others are run all the same,
    and an interrupt (Ctrl-C) ends the run early: the result holds what was measured, and
    ``parameters.incomplete`` says what is missing.
    """
    parameters.check()
    trials: list[chainset.LinkTrial] = []
    incomplete: list[str] = []
    cards: list[NicReport] = []
    for number in range(parameters.first, parameters.first + parameters.trials):
        for names in table.groups(parameters.links):
            try:
                _run_group(parameters, names, number, state_dir, (trials, cards), progress)
            except (errors.KproxyError, NetnsError) as error:
                incomplete.append(f"{', '.join(names)}: {error}")
            except KeyboardInterrupt:
                return whole(parameters, trials, [*incomplete, INTERRUPTED], cards=cards)
            except SystemExit:
                return whole(parameters, trials, [*incomplete, TERMINATED], cards=cards)
    return whole(parameters, trials, incomplete, cards=cards)


def _run_group(
    parameters: Parameters,
    names: Sequence[str],
    number: int,
    state_dir: Path,
    found: tuple[list[chainset.LinkTrial], list[NicReport]],
    progress: Callable[[Step], None],
) -> None:
    """Append the trials of one group, and say on which cards they are."""
    trials, cards = found
    total = len(parameters.links) * parameters.trials
    current = names[0]

    def tell(text: str, said: news.News | None = None) -> None:
        progress(Step(done=len(trials), total=total, mode=current, text=text, news=said))

    site = Site(parameters.file(table.by_name(names[0]).variant))
    take = parameters.take_default_route
    tell("building the lab")
    with (
        Lab(site.topology(), name=LAB_NAME, state_dir=state_dir, take_default_route=take) as lab,
        WholeCluster(lab, site, progress=tell) as cluster,
    ):
        cards[:] = lab.cards()
        for warning in (text for card in cards for text in card.told):
            tell(f"warning: {warning}")
        nodes = [node.name for node in site.nodes]
        cluster.must_apply([*shop.manifests(cluster.places.files), *probes.manifests(nodes)])
        Steady(cluster).settle()
        with ChainTrials(cluster, parameters, base.seed()) as runner:
            for name in names:
                current = name
                tell(f"trial {number} of {parameters.trials}")
                records = cluster.places.files.records
                with news.watched(records, functools.partial(tell, "")) as runner.told:
                    trials.append(runner.run(table.by_name(name), number))
                tell("", news.ended(name, trials[-1]))
        tell("taking the lab away")


def whole(
    parameters: Parameters,
    trials: Sequence[chainset.LinkTrial],
    incomplete: list[str],
    made: chainset.ChainSet | None = None,
    *,
    cards: Sequence[NicReport] = (),
) -> chainset.ChainSet:
    """Put trials together, in the order of the chain.

    ``made``: what says where and how they were made; None: here, as we are, on these ``cards``.
    """
    order = list(table.LINKS)
    ordered = sorted(trials, key=lambda trial: (trial.number, order.index(trial.link)))
    words = {one.name: Words(one.title, one.guarantor) for one in table.LINKS.values()}
    rows = summarise(ordered, words)
    if not all(one.valid for one in ordered if one.link == table.BASELINE.name):
        rows = tuple(dataclasses.replace(row, valid=False) for row in rows)
    return chainset.ChainSet(
        kernel=made.kernel if made else facts.kernel(),
        host=made.host if made else {**facts.host(), "cards": msgspec.to_builtins(cards)},
        parameters={
            **(made.parameters if made else facts.run()),
            **msgspec.to_builtins(parameters),
            "lossless": {name: list(one.lossless) for name, one in table.LINKS.items()},
            "incomplete": incomplete,
        },
        trials=tuple(ordered),
        summary=rows,
        left_out=parameters.left_out,
    )
