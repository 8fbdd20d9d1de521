"""One class for each kind of server, holding all that differs there.

``base`` is the template: it speaks plain OpenAI, and says in its methods what may differ.
``registry`` decides from what a server says of itself which one it is. A new kind of server is
one file here and one row in the registry; ``vllm`` is an example of everything that can differ.
"""
