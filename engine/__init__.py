"""Mailrail: a virtual-MTA delivery engine. The rows, top to bottom:

__main__ · cli                 what people type
supervisor                     one process: sockets, shards, reload, admin
shard · admin                  shard builds the objects of one engine process and hands them to each other
inject · delivery · control · loading
store · net                    LMDB; sockets and DNS
smtp · message · policy · settings · queue      no I/O at all
telemetry
core

A module imports only from rows below its own or from its own package.
"""

__version__ = "0.1.0"
