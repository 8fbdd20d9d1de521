"""Presets: what captions for one purpose are asked for, limited to, and checked against.

Each file is one preset, to be copied and changed: a prompt, options, rules, and what is said when
it is asked again. ``registry`` finds them by name. Imports ``captions`` beside it.
"""
