"""What is made of captions once they are there: the gallery of a file, and models side by side.

Above ``client``, as a comparison asks clients. Imports it, ``batch``, ``captions`` and what lies
below them.
"""
