"""What goes into a call and what comes out of it, as pydantic models: plain data, no I/O.

``inputs`` are pictures and messages, ``options`` what can be asked, ``results`` what is answered,
``validation`` turns pydantic's errors into ours. Imports ``errors`` only.
"""
