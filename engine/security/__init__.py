"""What a recipient domain asks of the TLS under its mail, as values without I/O.

sts         MTA-STS: the record, the policy, which MX names match (RFC 8461)
dane        TLSA records, and what they say of a certificate chain (RFC 6698, 7671, 7672)
authority   what a certificate authority between a peer and a trust anchor may vouch for (RFC 5280)
demand      the two together: what a session must show before it carries a domain's mail
tally       outcomes of TLS counted by domain and day (RFC 8460)
report      the JSON document and the mail made of a day's outcomes (RFC 8460)
"""
