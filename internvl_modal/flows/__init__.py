"""What a client does, as steps that a driver performs: written once for sync and async.

``core`` has the flows, ``turns`` prepares pictures and messages, ``steps`` has the only two
drivers, ``drive`` and ``adrive``. Imports ``transport``, ``protocol`` and what lies below them.
"""
