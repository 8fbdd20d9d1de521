"""Modal's control plane and web edge on loopback, for Modal's own client and container runtime."""

from .containers import Host
from .plane import Fault, Plane

__all__ = ["Fault", "Host", "Plane"]
