"""What a user could take instead, on the same stub, each set up as its documentation says for throughput.

Development only: `make peers` installs the others into a folder of their own. The programs that drive them import nothing of the project.
"""
