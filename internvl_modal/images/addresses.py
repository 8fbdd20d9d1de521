"""Which addresses a stranger's URL may lead to: a table of our own, the same on every Python.

From the IANA special-purpose registries (IPv4 2025-10, IPv6 2025-10) and the cloud providers'
pages; what Python calls global differs between its versions.

A server that fetches what its users name can be led to its own network: to a database on 10.0.0.5,
or to the cloud's metadata with its credentials. Judged by address and not by name, since anybody
may give a name any address. A block that IANA adds is a row here.

>>> forbidden(ip_address("10.0.0.5")), forbidden(ip_address("93.184.216.34"))
('a private address', None)
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

# Named apart for the message: their block alone would call them link-local, or public.
_METADATA = {
    ip_address("169.254.169.254"),  # AWS, Google, Azure, Oracle and others
    ip_address("169.254.170.2"),  # AWS containers
    ip_address("fd00:ec2::254"),  # AWS
    ip_address("fd20:ce::254"),  # Google
    ip_address("100.100.100.200"),  # Alibaba
    ip_address("192.0.0.192"),  # Oracle's older one
    ip_address("168.63.129.16"),  # Azure's host, a public address
}
_NAT64 = ip_network("64:ff9b::/96")
_PUBLIC_6 = ip_network("2000::/3")
"""All that IANA has given out for the Internet."""

# The first block that holds an address names its kind, so narrow ones stand before wide ones.
_SPECIAL = tuple(
    (ip_network(block), kind)
    for block, kind in (
        ("0.0.0.0/32", "an unspecified address"),
        ("::/128", "an unspecified address"),
        ("127.0.0.0/8", "a loopback address"),
        ("::1/128", "a loopback address"),
        ("169.254.0.0/16", "a link-local address"),
        ("fe80::/10", "a link-local address"),
        ("224.0.0.0/4", "a multicast address"),
        ("ff00::/8", "a multicast address"),
        ("0.0.0.0/8", "a private address"),  # "this network"
        ("10.0.0.0/8", "a private address"),
        ("172.16.0.0/12", "a private address"),
        ("192.168.0.0/16", "a private address"),
        ("fc00::/7", "a private address"),
        ("fec0::/10", "a private address"),  # site-local, of old
        ("::ffff:0:0/96", "an IPv4 address in IPv6 disguise"),
        ("::/96", "an IPv4 address in IPv6 disguise"),  # "compatible", of old
        ("2001::/32", "an IPv4 address in IPv6 disguise"),  # Teredo
        ("2002::/16", "an IPv4 address in IPv6 disguise"),  # 6to4
        ("100.64.0.0/10", "not a public address"),  # shared by carriers
        ("192.0.0.0/24", "not a public address"),  # protocol assignments, anycast ones too
        ("192.0.2.0/24", "not a public address"),  # documentation
        ("192.88.99.0/24", "not a public address"),  # 6to4 relays, of old
        ("198.18.0.0/15", "not a public address"),  # benchmarks
        ("198.51.100.0/24", "not a public address"),
        ("203.0.113.0/24", "not a public address"),
        ("240.0.0.0/4", "a reserved address"),
        ("64:ff9b:1::/48", "not a public address"),  # a network's own NAT64
        ("100::/64", "not a public address"),  # discard only
        ("100:0:0:1::/64", "not a public address"),  # dummy prefix
        ("2001::/23", "not a public address"),  # protocol assignments
        ("2001:db8::/32", "not a public address"),  # documentation
        ("3fff::/20", "not a public address"),  # documentation
        ("5f00::/16", "not a public address"),  # segment routing
    )
)


def forbidden(address: IPv4Address | IPv6Address) -> str | None:
    """Why a client must not connect to ``address`` for a stranger's URL; None when it may."""
    if address in _METADATA:
        return "a cloud metadata address"
    if address in _NAT64:  # how networks without IPv4 reach the public one
        return forbidden(IPv4Address(int(address) & 0xFFFFFFFF))
    for block, kind in _SPECIAL:
        if address in block:
            return kind
    return None if address.version == 4 or address in _PUBLIC_6 else "not a public address"
