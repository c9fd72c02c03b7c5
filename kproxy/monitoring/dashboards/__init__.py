"""Grafana dashboards as code: what they show is declared here, their JSON is written from it.

::

    boards (:mod:`chain`, :mod:`proxy`, :mod:`service`, :mod:`loss`), values of :mod:`model`
        → :mod:`grafana`: grafana-foundation-sdk, which knows Grafana's schema (developers only)
        → deploy/monitoring/dashboards/*.json, which are kept: nobody needs the library to use them
    every query of every panel → :mod:`checking`: does a real Prometheus have data for it?

    scripts/dashboards                             writes the files anew
    scripts/check-dashboards --prometheus URL      asks all queries
"""
