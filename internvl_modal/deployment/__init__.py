"""A model on Modal: options, what will be made, publishing it, and the handle afterwards.

``options``, ``spec`` and ``design`` are pure; ``modal_build`` and ``modal_api`` are the only users
of Modal's client; ``containers`` is what runs there and needs the standard library alone when it
is imported. Imports ``gateway``, ``client``, ``planning``, ``weights``, ``engines``.
"""
