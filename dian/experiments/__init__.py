"""The recorded experiments: one module per family, found by name.

A module here defines ``EXPERIMENTS``, a tuple of
:class:`dian.runs.experiment.Experiment`. Settings are frozen: changing one defines
another run, and makes the records of the old one stale.
"""
