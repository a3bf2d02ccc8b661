"""The sub-commands of `tljax`: each module adds parsers, and calls a recipe once the options are understood.

No module here imports jax at its head, so that help comes at once.
"""
