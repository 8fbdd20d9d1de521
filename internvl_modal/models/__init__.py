"""What is known of each model, as published: shapes, families, the catalogue. No I/O.

Everything else is computed from a shape, so a model that is not listed needs its ``config.json``
(``config_json``) and nothing more. Imports ``schema`` and ``errors``.
"""
