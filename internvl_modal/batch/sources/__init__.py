"""From whatever names many pictures to one (key, source) after the other.

``inputs`` chooses the reader, ``folders`` and ``manifests`` read, ``keys`` names each picture,
``read_ahead`` does it in a thread. Never a list of all.
"""
