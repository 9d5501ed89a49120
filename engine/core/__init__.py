"""Values that every row may use, and nothing that does anything.

errors     the one tree of exceptions
units      durations, rates and sizes as users write them
address    mailboxes, domains, patterns over them
reply      what an SMTP server says, as a value
terms      what a sender asked for beyond plain delivery
envelope   message ids, envelopes, deliveries
lines      what the lines of a message must be
framing    frames on a stream, cut anywhere
document   TOML text with the line of every key
fields     tables of keys to values, with errors that name the nearest known key
finding    what `mailrail check` says
"""
