"""The page of the gateway: one HTML file, one script, one style sheet, and the API's reference.

They load nothing from any other host and are served without the key, which the page asks for.
``routes`` serves them, ``reference`` writes ``/docs``. Imports ``captions``,
``gateway.auth`` and what that imports; ``gateway.app`` includes it.
"""
