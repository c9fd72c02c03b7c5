"""Who is killed next: any process of the cluster, but never so many of etcd that all are. Pure."""

import random
from collections.abc import Sequence

from kproxy.lab.whole.roles import Role, Running

SPARED = (Role.INIT, Role.DNS)
"""What a machine's own init does when it is killed is no question of a cluster's."""


def choose(
    running: Sequence[Running], lots: random.Random, *, members_well: bool
) -> Running | None:
    """Return the next victim; None: nobody may be killed now.

    First a role, then one of its processes: or those of which there are many would have it all.
    ``members_well``: whether all etcd members are there, so that one may be killed.
    """
    roles = sorted({one.role for one in running} - set(SPARED))
    if not members_well:
        roles = [role for role in roles if role is not Role.ETCD]
    if not roles:
        return None
    role = lots.choice(roles)
    candidates = sorted(one.host for one in running if one.role is role)
    host = lots.choice(candidates)
    return next(one for one in running if (one.role, one.host) == (role, host))
