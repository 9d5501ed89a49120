"""Measuring tools; source and sink are those of engine/rig, which the demo uses too.

source       `python -m bench.source`
sink         `python -m bench.sink`
calibrate    source and sink against Postfix's smtp-source and smtp-sink
postfix      a private Postfix instance as the field to beat
mailrail     a private Mailrail under the same load
throughput   the table of `make bench`
store_commit where the group commit runs: three ways compared
"""
