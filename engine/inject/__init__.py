"""How mail comes in: one door, and the feeds that lead to it.

accept     the one door: checks, completes, signs, places, stores
context    what a feed knows of a message besides its envelope
signing    which DKIM keys sign for whom
smtp       SMTP listeners
socket     the unix stream socket, many messages in flight
spool      the spool directory
"""
