"""Memory, capacity and cost of a model on GPUs, before anything runs.

Pure, but for ``prices`` (Modal's price list), ``model_lookup`` (a repository's ``config.json``) and
``api`` (``plan``), which joins them. Imports ``engines``, ``models`` and ``weights``.
"""
