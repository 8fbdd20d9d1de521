"""Modal's control plane and web edge on loopback, for Modal's own client and container runtime."""

from .plane import Fault, Plane

__all__ = ["Fault", "Plane"]
