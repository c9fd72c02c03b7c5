"""Reconcile loops: what turns Deployments, DaemonSets and Services into pods and slices."""
