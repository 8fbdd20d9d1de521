"""HTTP: one attempt, retries, redirects and deadlines, for both clients.

``retry`` is the rule, a value that every loop of this package asks; ``exchange`` is what the two
clients share; ``sync`` and ``aio`` move the bytes. Imports ``protocol`` and what lies below it.
"""
