"""What is inside a message: header and body with CRLF lines, not stuffed. No I/O.

headers    fields read, added and removed at acceptance
addresses  address lists of header fields
pickup     spool files to envelopes
encode     8-bit parts made 7-bit ones
dkim       signatures
dsn        bounce messages
"""
