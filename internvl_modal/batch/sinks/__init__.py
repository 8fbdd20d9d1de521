"""Where outcomes are written, and what an earlier run left there.

``choose`` picks the sink for ``out=``; ``base`` says what one must do.
"""
