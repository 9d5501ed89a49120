"""Sockets, TLS, DNS and what the kernel tells of files: it touches the outside, and decides nothing.

site        where a domain's mail goes: hosts in order of preference
routes      which domains go to named hosts instead of their MX
own         which hosts are this installation
prohibited  which addresses are never connected to
lanes       how many questions are asked at once
dns         one question over aiodns, answered by a value
cache       values kept for a while, and the look-ups under way for those that are not
resolver    domain to site, host to addresses, over the seven above
dnssec      one question to a validating resolver
tlsa        the TLSA records of a mail host
https       small requests to the https servers of recipient domains
sts         the MTA-STS policy in force for a domain
demands     domain to site with what the domain asks of TLS
extensions  what a peer offers in EHLO
tls         what a session requires of TLS, and how that ended; contexts for the client's side
handshake   one TLS handshake: context, ticket, what came of it
tickets     TLS sessions that can be resumed, by peer
trust       whom a certificate names; would it have passed?
certificate a listener's certificate, and the context that shows it
alerts      why a handshake with a client failed, told to the client
sockets     a socket from a source address
proxy       the same through a proxy that has the address
connect     a session opened over a socket with aiosmtplib
listen      listening sockets; is an address on this host?
accepting   one connection at a time, so that shards share them
proxied     the header in front of a connection: who the client behind a proxy is
inotify     changes in a directory
"""
