"""Programs that ask the gateway with clients that nobody here wrote, run by ``test_clients``.

Each runs in an environment with those packages alone, and fails by its exit status.
"""
