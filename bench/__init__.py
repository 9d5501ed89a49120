"""Measuring tools: processes of their own that share no code with the engine they measure.

source       load source: SMTP sessions flat out or at a rate, accepted ids on record
sink         receiving end: counts, judges limits, answers by script, delays that overlap
receiver     one connection of the sink
tally        what the sink counts and how it judges rates
script       scripted replies of the sink
prose        messages that look like mail
control      ask a running sink for its account
certificate  throw-away certificates for STARTTLS
processes    start, await and end processes; their CPU and memory from /proc
calibrate    source and sink against Postfix's smtp-source and smtp-sink
postfix      a private Postfix instance as the field to beat
mailrail     a private Mailrail under the same load
throughput   the table of `make bench`
"""
