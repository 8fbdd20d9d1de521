"""What an answer is worth, and what is done about it: rules, the ladder, presets, money, boxes.

Nothing here asks a server: the flows and the batch ask, and look here for what to make of an
answer. Imports ``protocol``, ``images``, ``schema`` and what lies below them.
"""
