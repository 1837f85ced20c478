"""What every adapter of an AWS service uses: clients, calls, errors, fast request paths, permission checks.

What may live here: what more than one family needs of AWS. Nothing here imports a family.
"""
