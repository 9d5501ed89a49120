"""Sockets, TLS and DNS: everything that touches the network, and nothing that decides.

site        where a domain's mail goes: hosts in order of preference
routes      which domains go to named hosts instead of their MX
prohibited  which addresses are never connected to
resolver    domain to site, host to addresses: DNS with a cache
connect     a socket from a source address; a session opened over it
tls         contexts for the client side of TLS
listen      listening sockets; is an address on this host?
"""
