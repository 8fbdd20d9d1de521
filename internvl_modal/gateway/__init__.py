"""The REST gateway: ``POST /`` and OpenAI's protocol in front of any client.

``app`` puts the routes together; ``describe_route`` and ``openai_routes`` are the two doors of
programs, ``page`` is that of people; ``auth``, ``middleware`` and ``metrics`` stand before them.
Imports ``captions``, ``client`` and what lies below it; needs the extra ``gateway``.
"""

from internvl_modal.gateway.app import create_app

__all__ = ["create_app"]
