"""Many pictures: every one gets an outcome, and a run that was cut off goes on where it was.

``pipeline`` is the run; ``sources`` feed it, ``sinks`` keep what it gives, ``requests`` asks the
server, ``limiter`` decides how many at once. Imports ``flows`` and what lies below it.
"""
