"""Helpers that know nothing of InternVL: child processes, daemon threads, progress on a terminal.

Imported by everybody; they import ``errors`` and nothing else of this package.
"""
