"""`mailrail.toml`: what this installation is, and whose mail it carries.

model   frozen structs: every setting, its unit and its default
fields  which keys each section has, and what each may hold
parse   from (file name, text) to `Settings`; every error names file, line and key
password passwords of injectors, as scrypt hashes
cross   what must agree between sections: names, addresses, paths
check   what `mailrail check` finds: what nothing uses or reaches
"""
