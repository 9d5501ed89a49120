"""Both ends of an SMTP dialogue, as values and octets: no sockets, no clock.

wire       replies and dot-stuffing: what both ends put on the wire
client     ClientConversation: transactions that we send
parameters what stands behind MAIL and RCPT towards a peer, or why it can't have the message
server     ServerConversation: transactions that we receive
command    MAIL and RCPT lines, parsed
content    what DATA carries: where it ends, and what it is without its dots
chunks     what BDAT carries
hello      what a listener allows one session, and what its EHLO reply offers
transaction  a message and its envelope, read; what is asked of the message
"""
