"""Requests and answers as bytes: nothing here opens a socket or a file.

``chat_request`` makes a request, ``completion`` and ``completion_stream`` read answers,
``error_responses`` tells what a failure means, ``verification`` whether the pictures were seen.
What differs between servers is in ``dialects``. Imports ``images``, ``models``, ``schema`` and
what lies below them.
"""
