"""The model servers that this package starts: their command lines, and their processes.

A file named after an engine holds its options and its command line and does no I/O. Used by
``backends`` and ``deployment``; imports ``models``, ``schema``, ``_utils`` and ``errors``.
"""
