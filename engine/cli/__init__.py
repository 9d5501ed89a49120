"""The command line: asks a running engine through its admin API, or reads its configuration.

main            the commands
options         what commands have in common: options, JSON, the way out
values          what the value of an option may be
configuration   which configuration file, and where its engine answers
api             requests to the admin API over a unix socket or TCP
tables          answers as tables for people
check           `mailrail check`
classify        `mailrail classify`
rules           `mailrail rules`
explain         `mailrail explain`, from the engine or from the files
steer           `mailrail reload` and `mailrail drain`
look            `mailrail status`, `queues`, `paths`, `messages` and `message`
send            `mailrail send`
password        `mailrail password`
store           `mailrail store`
"""
