"""``Client`` and ``AsyncClient``, streams, and the calls of the package's door.

``base`` is what both clients share, ``resolve`` finds a backend by name. Backends are plug-ins
found by entry point, never imported here. Imports ``batch``, ``flows`` and what lies below them.
"""
