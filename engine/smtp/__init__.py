"""Both ends of an SMTP dialogue, as values and octets: no sockets, no clock.

wire       replies and dot-stuffing: what both ends put on the wire
client     ClientConversation: transactions that we send
parameters what stands behind MAIL and RCPT towards a peer, or why it can't have the message
under_way  a transaction that goes on, and what a reply to it is about
lmtp       the same transactions, answered once for each recipient
enhanced   the enhanced code of a reply that has none
server     ServerConversation: transactions that we receive
reading    what a client sends, taken apart: commands, content, chunks
replies    what it answers, word for word
command    MAIL and RCPT lines, parsed
content    what DATA carries: where it ends, and what it is without its dots
chunks     what BDAT carries
strangers  commands that are none of ours, and clients that speak no SMTP
hello      what a listener allows one session, and what its EHLO reply offers
access     STARTTLS, AUTH and XCLIENT of one conversation
auth       AUTH as a state machine
xclient    for whom a front end speaks
transaction  a message and its envelope, read; what is asked of the message
"""
