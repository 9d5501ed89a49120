"""Messages as octets: header and body with CRLF lines, not stuffed. Pure.

headers    the fields that acceptance reads, adds and removes
pickup     spool files to envelope and message
dkim       signatures
dsn        bounce messages
"""
