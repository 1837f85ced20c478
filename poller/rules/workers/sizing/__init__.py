"""Rules for how many workers there should be. What may live here: how a worker measures its load, and what follows from all loads.

Every worker must give the same answer, since a load balancer chooses which one is asked. And the answer must be calm, since each
change moves shards. So two things are kept apart:

* Each worker measures only itself, with its own clock (`samples`, `meter`). It writes one word into its digest: busy, steady or calm.
  The word says for how many workers it was measured. It counts only while there are so many. So after each change of their
  number everything is measured anew, and the waiting times begin again.
* The recommendation (`recommendation`) is a number that the workers copy from each other, with a counter of its changes: the
  greatest counter wins. A worker that looks at all words may make the next one. Two that do it at once see the same words, and
  make the same one. It does not follow the number of live workers, which is one too many while pods are replaced.

No time is compared between machines.
"""
