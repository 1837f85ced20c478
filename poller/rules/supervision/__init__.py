"""Rules of a supervisor: how many processes there are, what each may use, and when an ended one is started again."""
